"""How does a network learn? Pure PyTorch; knows no stages and no artifact paths."""
