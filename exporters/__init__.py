"""How does a model change form? PyTorch to ONNX, ONNX to INT8 and FP16, forms compared, bundles
written. Knows neither stages nor the artifact folder."""
