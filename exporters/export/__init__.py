"""From a trained network to ONNX: the network, its preprocessing, and what guards the export."""
