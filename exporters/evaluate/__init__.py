"""The quality of a model, and the equality of two forms of it: metrics, parity, gates, tasks."""
