"""Plan, skip what is fresh, run, record."""
