"""Fine-tuning with simulated quantization."""
