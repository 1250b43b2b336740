"""Where two forms of a model part, and why."""
