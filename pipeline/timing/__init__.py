"""How fast is a callable from images to probabilities, and what does a fresh process pay?"""
