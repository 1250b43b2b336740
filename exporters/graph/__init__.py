"""An ONNX graph as a value: read, walk, check and count it."""
