"""Models of other kinds that are dropped into a repository: made into ONNX by the import, in a process of its own.

The server never reads such a model itself, and nothing of the converters is imported here: they are a command.
"""
