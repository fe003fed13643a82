"""Passes: each rewrites an ONNX file with a well-kept library and reports what it changed."""
