"""Speed of callables from images to probabilities, and the cost of a fresh process."""
