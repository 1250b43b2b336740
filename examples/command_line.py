"""Reads images and prints what the model sees, one line each.

    python command_line.py bundle.zip photo.jpg folder/ --min-probability 0.9

Folders are walked. A file that is not an image is reported on stderr and skipped; then the exit
code is 1. However many files there are, only a batch of small images is in memory at a time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from runtime import InputError, Prediction, Predictor, PredictorError


def files_in(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--min-probability", type=float, default=0.0)
    arguments = parser.parse_args()

    failures = 0
    with Predictor(arguments.bundle) as predictor:
        answers = predictor.stream(
            files_in(arguments.images),
            batch_size=16,
            min_probability=arguments.min_probability,
            return_errors=True,  # one broken file must not end the run
        )
        for path, answer in zip(files_in(arguments.images), answers, strict=True):
            if isinstance(answer, InputError):
                print(answer, file=sys.stderr)
                failures += 1
            elif not answer.accepted:
                print(f"{path}: not sure")
            elif isinstance(answer, Prediction):
                print(f"{path}: {answer.label} ({answer.probability:.0%})")
            else:
                print(f"{path}: {', '.join(answer.present) or 'nothing'}")
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PredictorError as exc:  # no such bundle, a damaged one, no usable device
        sys.exit(f"error: {exc}")
