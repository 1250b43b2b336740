"""A page that runs a bundle in a browser: its files, a server for them, and onnxruntime-web."""
