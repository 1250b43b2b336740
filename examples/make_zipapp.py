"""Packs a program and a model's wheel into one file.

    python make_zipapp.py edgeproof_mnist-1.0.0-py3-none-any.whl app.pyz
    python app.pyz photo.png

``app.pyz`` carries the predictor and the model; numpy and onnxruntime (and Pillow, to read image
files) come from the Python that runs it, since compiled modules cannot be imported from a zip.
"""

from __future__ import annotations

import argparse
import tempfile
import zipapp
import zipfile
from pathlib import Path

PROGRAM = """
import sys
from {package} import Predictor, PredictorError

try:
    with Predictor() as predictor:  # the bundle is read from inside app.pyz
        for path in sys.argv[1:]:
            print(path, predictor.predict(path).to_dict())
except PredictorError as exc:
    sys.exit("error: " + str(exc))
"""


def make(wheel: Path, target: Path) -> None:
    package = wheel.name.partition("-")[0]  # edgeproof_mnist-1.0.0-... holds edgeproof_mnist
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        (Path(folder) / "__main__.py").write_text(PROGRAM.format(package=package))
        zipapp.create_archive(folder, target, interpreter="/usr/bin/env python3")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    make(arguments.wheel, arguments.target)
