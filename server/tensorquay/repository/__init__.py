"""What lies in the model folders: read into immutable snapshots, never written, never loaded.

A snapshot is only files and configurations. What to do about it is decided in `lifecycle`.
"""
