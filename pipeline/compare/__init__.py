"""Any two models side by side: the difference, the first layer that differs, and the cause."""
