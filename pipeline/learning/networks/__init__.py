"""Networks by their source: layers of a recipe, torchvision, the user's own code."""
