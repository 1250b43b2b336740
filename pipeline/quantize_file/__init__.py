"""Quantize an ONNX file that this pipeline did not export."""
