"""Where do the images come from? Every source ends in the arrays of ``arrays.py``."""
