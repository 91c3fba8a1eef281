"""The example that an export to ONNX contains: programs in Python and JavaScript that need nothing of this package."""
