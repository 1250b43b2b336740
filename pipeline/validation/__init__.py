"""Every candidate against the network on the test split, and the verdict of the gate."""
