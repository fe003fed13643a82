"""The proof: run source and ONNX model on the same inputs, compare, and say where they part. Knows no framework."""
