"""Every attack of ``attack_cases`` is refused with its own error; its clean twin opens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx.onnx_ml_pb2 as onnx_proto
import pytest
from attack_cases import ATTACKS
from attack_cases.attack import TRUSTED, Attack, attempt
from attack_cases.forging import sound_members
from attack_cases.output_attacks import heads
from attack_cases.signature_attacks import well_signed

from runtime import Bundle, PredictorError
from runtime.model_file import TENSOR_PATHS

ROOT = Path(__file__).parents[2]
PATH = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_it_is_refused(attack: Attack) -> None:
    with pytest.raises(attack.error, match=f"(?s){attack.message}") as caught:
        attempt(attack.evil(), attack.keys)
    assert caught.type is attack.error
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("clean", list(dict.fromkeys(attack.clean for attack in ATTACKS)))
def test_its_clean_twin_answers(clean: object) -> None:
    keys = TRUSTED if clean is well_signed else None
    values = attempt(clean(), keys)  # type: ignore[operator]
    if clean is heads:
        assert len(values) == 11
    else:
        assert sum(values) == pytest.approx(1)


@pytest.mark.parametrize("bits", [1, pytest.param(8, marks=pytest.mark.full)])
def test_no_bit_around_the_members_of_a_signed_bundle_is_free(bits: int) -> None:
    """So many bits of every byte of the headers, of the directory and of the end record."""
    sound = well_signed()
    inside: set[int] = set()
    for data in sound_members().values():
        inside.update(range(sound.find(data), sound.find(data) + len(data)))
    around = [byte for byte in range(len(sound)) if byte not in inside]
    assert len(around) > 8 * 76
    for byte in around:
        for bit in range(byte, byte + bits):
            data = bytearray(sound)
            data[byte] ^= 1 << bit % 8
            with pytest.raises(PredictorError):
                Bundle.open(bytes(data), TRUSTED)


def test_each_has_a_name_and_a_reason() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(set(names)) == len(names) >= 40
    assert all(attack.why.endswith(".") for attack in ATTACKS)


def test_none_takes_the_interpreter_down() -> None:
    """All in one process of its own, in an empty folder: a crash would be its exit code."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "attack_cases"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": PATH},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_the_walk_knows_every_way_to_a_tensor() -> None:
    """The table against onnx.proto itself: all messages below which a tensor or node can lie."""
    found: dict[str, dict[int, str]] = {}

    def reaches(message: object) -> bool:
        """Whether tensors lie below; fills ``found``."""
        name = message.name  # type: ignore[attr-defined]
        if name not in found:
            found[name] = {}
            for field in message.fields:  # type: ignore[attr-defined]
                if field.message_type is not None and reaches(field.message_type):
                    found[name][field.number] = field.message_type.name
        return name in ("TensorProto", "GraphProto") or bool(found[name])

    reaches(onnx_proto.ModelProto.DESCRIPTOR)
    found["TensorProto"] = {}
    assert {name: ways for name, ways in found.items() if name in TENSOR_PATHS} == TENSOR_PATHS
    assert {name for name, ways in found.items() if ways} <= set(TENSOR_PATHS)


@pytest.mark.parametrize("count", [500, pytest.param(20_000, marks=pytest.mark.full)])
def test_a_mutated_bundle_is_refused_or_answers_right(count: int) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "attack_cases.mutations", str(count), "1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": PATH},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["problems"] == []
    assert sum(found["outcomes"].values()) == count
    allowed = {"BundleFormatError", "BundleIntegrityError", "correct answer"}
    assert set(found["outcomes"]) <= allowed
