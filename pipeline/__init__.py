"""In what order? Recipes, stages, the artifact store and the command line."""
