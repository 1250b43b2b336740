"""The other ways to run a bundle: emulated CPUs, browsers, Node, other releases of onnxruntime, a
small device. Each target is one row of ``table.py``."""
