"""Image files to arrays of pixels, in several processes. Labels and splits are of no concern here."""
