"""Which versions live, from a file on disk to a leased session and back: plan, load, warm up, swap, drain."""
