"""Sockets ⇄ calls. Knows bytes and listeners, nothing of models."""
