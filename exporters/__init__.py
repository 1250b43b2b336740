"""How does a model change form? PyTorch to ONNX, ONNX to INT8 and FP16, forms compared, bundles
written. Knows neither stages nor the artifact folder."""

import runtime as _runtime  # noqa: F401 - first: it keeps onnxruntime from reporting what it runs
