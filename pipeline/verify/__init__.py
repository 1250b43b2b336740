"""A bundle on every target that is set up, compared with this machine and judged."""
