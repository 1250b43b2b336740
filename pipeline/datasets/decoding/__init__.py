"""From image files to arrays of pixels, on several processes."""
