"""The files copied to a target and started there. A target imports nothing of this package but
``runtime``."""
