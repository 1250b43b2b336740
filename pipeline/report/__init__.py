"""The report of a run: ``assemble.py`` makes one value of the stages' reports (``model.py``),
``charts/`` draw it, ``render.py`` makes one HTML file of it."""
