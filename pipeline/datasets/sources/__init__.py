"""Readers of what is on disk: IDX, CelebA, class folders, label files. They decode no image."""
