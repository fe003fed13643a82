"""Tensorquay: a model-serving inference server for ONNX models.

Importing this package does nothing but name the version; each room is imported by whoever needs it.
"""

__version__ = "0.1.0"
