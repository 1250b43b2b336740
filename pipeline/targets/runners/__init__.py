"""What travels to a target. The files are copied into a job's folder and started there; nothing of
this package is imported on a target but ``runtime``."""
