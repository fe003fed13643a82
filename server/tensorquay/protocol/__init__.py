"""Wire formats ⇄ core messages: bytes in, values out, and back.

Knows no sockets, no routes and no models; every function is pure (shared memory comes in as a value that is handed
in). What is spoken, and where it differs from Triton: docs/protocol.md.
"""
