"""Generated data: digits, faces, and the golden images of a bundle."""
