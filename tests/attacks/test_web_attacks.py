"""The web runtime refuses what the Python runtime refuses, with an error of the same name, and
opens the same clean twins. In Node, with the very WebAssembly that browsers get."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import attack_cases
import pytest
from attack_cases.attack import attempt
from attack_cases.forging import plain

from pipeline.errors import WebError
from pipeline.web import onnxruntime_web

PLACE = Path(__file__).parent
# Signatures are not looked at in a browser, which gets page and bundle from the same place.
ATTACKS = [attack for attack in attack_cases.ATTACKS if attack.keys is None]


def attempts(bundles: dict[str, bytes], folder: Path) -> dict[str, dict[str, Any]]:
    """What the web runtime says of each bundle."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("not run: node is not installed")
    try:
        onnxruntime_web.read()
    except WebError as exc:
        pytest.skip(f"not run: {exc}")
    for name, data in bundles.items():
        (folder / name).write_bytes(data)
    done = subprocess.run(
        [node, str(PLACE / "attempt.mjs"), str(folder), str(onnxruntime_web.folder())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["name"]: line for line in lines}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    evil = {f"{i:03}": attack.evil() for i, attack in enumerate(ATTACKS)}
    return attempts(evil, tmp_path_factory.mktemp("evil"))


@pytest.mark.parametrize("index", range(len(ATTACKS)), ids=[attack.name for attack in ATTACKS])
def test_it_is_refused_by_the_same_error(index: int, refusals: dict[str, Any]) -> None:
    found, attack = refusals[f"{index:03}"], ATTACKS[index]
    assert found.get("error") == attack.error.__name__, found
    assert 20 < len(found["message"]) < 2_000


def test_the_clean_twins_answer_as_in_python(tmp_path: Path) -> None:
    clean = {attack.clean for attack in ATTACKS}
    bundles = {f"{i:03}": make() for i, make in enumerate(clean)}
    answers = attempts(bundles, tmp_path)
    assert set(answers) == set(bundles)
    for name, line in answers.items():
        assert line["values"] == pytest.approx(attempt(bundles[name]), abs=1e-4), line


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_bundle_is_refused(share: float, tmp_path: Path) -> None:
    whole = plain()
    found = attempts({"cut": whole[: int(len(whole) * share)]}, tmp_path)
    assert found["cut"]["error"] == "BundleFormatError"


def test_one_flipped_bit_anywhere_is_found_or_means_nothing(tmp_path: Path) -> None:
    """300 places over the whole file: a typed error, or the right answer."""
    whole = plain()
    bundles = {"right": whole}
    for i in range(300):
        data = bytearray(whole)
        data[i * len(whole) // 300] ^= 1 << (i % 8)
        bundles[f"{i:03}"] = bytes(data)
    found = attempts(bundles, tmp_path)
    right = found.pop("right")["values"]
    errors = [line.get("error") for line in found.values()]
    assert set(errors) <= {None, "BundleFormatError", "BundleIntegrityError"}
    assert errors.count(None) < 5
    for line in found.values():
        assert line.get("error") or line["values"] == right
