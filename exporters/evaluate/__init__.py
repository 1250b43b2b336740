"""How good a model is, and whether two forms of it are equal: metrics, parity and gates."""
