"""What the console and `tensorquay top` watch: figures every second, and what is served."""
