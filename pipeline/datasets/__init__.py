"""The data set that a recipe names, as the arrays of ``arrays.py``.

Imports go down: ``prepare`` is the entry, ``preparation`` turns a source into arrays, ``drawn``
generates data, ``sources`` lists what is on disk, ``decoding`` turns image files into pixels,
``splitting`` draws splits, ``arrays`` writes and opens the result.
"""
