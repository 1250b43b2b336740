"""The first point at which two models differ, and the cause."""
