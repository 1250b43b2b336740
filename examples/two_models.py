"""Two models in one program, each installed as its own wheel.

    pip install edgeproof_mnist-*.whl edgeproof_celeba-*.whl onnxruntime pillow
    python two_models.py photo.jpg

Each wheel carries the predictor that it was tested with, so the models may be of different ages
and one can be updated without the other. Nothing of this project needs to be installed.
"""

from __future__ import annotations

import sys

import edgeproof_celeba as faces
import edgeproof_mnist as digits


def describe(image: str) -> str:
    # Two models on one machine share its cores: half of them would do for each; one is plenty.
    with digits.Predictor(threads=1) as digit, faces.Predictor(threads=1) as face:
        number, person = digit.predict(image, min_probability=0.9), face.predict(image)
        digit_label = number.label if number.accepted else "no clear digit"
        return f"{digit_label}; {', '.join(person.present) or 'no attribute'}"


if __name__ == "__main__":
    try:
        print(describe(sys.argv[1]))
    except (digits.PredictorError, faces.PredictorError) as exc:  # each wheel has its own errors
        sys.exit(f"error: {exc}")
