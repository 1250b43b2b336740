"""The command line: ``python -m PACKAGE predict IMAGE... | selftest | info | autotune``."""

import sys

from runtime.__main__ import main

from ._predictor import BUNDLE

sys.exit(main(package="PACKAGE", bundle=str(BUNDLE)))
