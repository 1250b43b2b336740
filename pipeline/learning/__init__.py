"""Networks and their training, in PyTorch. Independent of stages and artifact paths."""
