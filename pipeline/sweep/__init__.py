"""Many trials of one recipe, and the plot that people choose from."""
