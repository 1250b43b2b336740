"""Any two forms of a model beside each other: how far apart, since which layer, and why."""
