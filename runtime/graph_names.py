"""Names in the graphs of a bundle. Standard library only."""

from __future__ import annotations

METADATA_KEY = "edgeproof.spec"  # of an ONNX file's metadata
INPUT_NAME = "images"  # uint8 [N, height, width, channels]
OUTPUT_NAME = "probabilities"  # float32 [N, len(labels)], of tasks with labels
PREPROCESS_INPUT = "image"  # uint8 [H, W, C], C in {1, 3}, rows first
PREPROCESS_OUTPUT = "pixels"  # uint8 [height, width, channels]
