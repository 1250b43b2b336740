"""Where else the answers are computed to see that they are the same: other CPUs, browsers, Node,
other releases of onnxruntime, a small device. Each target is one row of ``table.py``."""
