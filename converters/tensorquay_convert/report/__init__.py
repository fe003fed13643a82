"""What a person reads about an import: one self-contained page."""
