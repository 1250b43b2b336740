"""Are the answers of a bundle the same everywhere? Runs it on every target that is set up,
compares with this machine, and judges."""
