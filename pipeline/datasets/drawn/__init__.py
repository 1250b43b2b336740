"""Generated data: digits and faces that are drawn."""
