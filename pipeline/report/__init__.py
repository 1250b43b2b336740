"""The report of a run: ``data.py`` is what was found, ``charts.py`` draws it, ``render.py`` makes
one HTML file of it. Each is imported by name, so that reading a report loads no matplotlib."""
