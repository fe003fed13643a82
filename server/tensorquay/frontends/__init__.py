"""Front-end processes: they own sockets and codecs, and ask the one engine process for everything else."""
