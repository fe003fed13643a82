"""One module per framework; each imports its framework only when a source of that kind is opened, in a worker."""
