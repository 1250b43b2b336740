"""Image files to arrays of pixels, in several processes. Independent of labels and splits."""
