"""One attempt to make the runtime believe, read, allocate or run what it must not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attack_cases.forging import plain
from runtime import Predictor, PredictorError, Values
from runtime.signature import key_text

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
TRUSTED = (key_text(KEY.public_key().public_bytes_raw()),)
IMAGE = (np.arange(600) * 37 % 256).astype(np.uint8).reshape(30, 20)  # as in attempt.mjs


@dataclass(frozen=True)
class Attack:
    name: str
    why: str  # what it would do to a trusting reader
    evil: Callable[[], bytes]
    error: type[PredictorError]
    message: str  # regular expression
    clean: Callable[[], bytes] = field(default_factory=lambda: plain)
    keys: tuple[str, ...] | None = None


def attempt(data: bytes, keys: tuple[str, ...] | None = None) -> tuple[Any, ...]:
    """Everything that an app does with a bundle: open it, ask it, test it."""
    with Predictor(data, device="cpu", threads=1, trusted_keys=keys) as predictor:
        answer = predictor.predict(IMAGE)
        predictor.selftest()
        if isinstance(answer, Values):
            return tuple(np.concatenate([a.ravel() for a in answer.arrays.values()]).tolist())
        return answer.probabilities
