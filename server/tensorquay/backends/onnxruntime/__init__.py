"""The ONNX Runtime backend: the only room that knows `onnxruntime` and `onnx`.

Nothing here imports either at import time: `OnnxRuntimeBackend()` does, so that `import tensorquay` stays quick and a
machine without a runtime can still run the other commands.
"""
