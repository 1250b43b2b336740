"""Models that somebody else exported: their inputs, their repair and their agreement."""
