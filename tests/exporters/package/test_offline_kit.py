"""Kits for devices without internet. Putting one together needs the package index, so that is in
``make test-full``, where the kits are also installed: on an emulated ARM, and in a network
namespace that is empty."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from exporters.errors import PackageError
from exporters.package import device_wheels
from exporters.package.archive import zip_bytes
from exporters.package.device_wheels import for_device
from exporters.package.offline_kit import Kit, write_kit
from exporters.package.signing import generate_key, sign_bundle
from pipeline.cli.main import cli
from pipeline.errors import TargetError, WebError
from pipeline.targets import launch
from pipeline.targets import table as targets
from pipeline.targets.constrained import no_network
from pipeline.targets.install import install
from pipeline.web.site import site_files
from runtime import PredictorError, SignatureError

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def made(bundle: Path, folder: Path, platform: str, python: str) -> Kit:
    try:
        return write_kit(bundle, folder, platform, python)
    except PackageError as exc:
        if "Retrying (" in str(exc) or "Network" in str(exc):
            pytest.skip(f"not run: pip reaches no package index: {str(exc)[-300:]}")
        raise


@pytest.mark.parametrize(
    ("platform", "python", "message"),
    [
        ("riscv", "3.11", "platform 'riscv'; expected one of arm64, x86_64"),
        ("arm64", "3", r"Python '3'; expected a version as in 3\.11"),
        ("arm64", "3.11; rm -rf /", "expected a version"),
    ],
)
def test_an_unknown_device_is_refused(platform: str, python: str, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        for_device(platform, python)


def test_a_kit_that_cannot_be_made_leaves_the_old_one(
    digits_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "edgeproof_digits-1.0.0-arm64-py3.11"
    old.mkdir()
    (old / "install.sh").write_text("the old one")
    broken = (sys.executable, "-c", "import sys; sys.exit('no index today')")
    monkeypatch.setattr(device_wheels, "PIP", broken)
    with pytest.raises(
        PackageError, match=r"pip finds no wheels for Python 3\.11 on arm64: no ind"
    ):
        write_kit(digits_bundle, tmp_path, "arm64", "3.11")
    assert (old / "install.sh").read_text() == "the old one"
    assert [path.name for path in tmp_path.iterdir()] == [old.name]


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip brings nothing but itself, so that a kit is made without a network."""
    code = (
        "import pathlib, sys; folder = sys.argv[sys.argv.index('-d') + 1]; "
        "pathlib.Path(folder, 'pip-1.0-py3-none-any.whl').write_bytes(b'')"
    )
    monkeypatch.setattr(device_wheels, "PIP", (sys.executable, "-c", code))


def forged(bundle: Path, folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """The bundle with its manifest edited and all hashes made to fit, as anybody can."""
    with zipfile.ZipFile(bundle) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    edit(manifest)
    text = json.dumps(manifest).encode()
    members |= {
        "manifest.json": text,
        "manifest.sha256": hashlib.sha256(text).hexdigest().encode() + b"\n",
    }
    path = folder / "forged.zip"
    path.write_bytes(zip_bytes(members))
    return path


FORGERIES: tuple[Callable[[dict[str, Any]], object], ...] = (
    lambda m: m["provenance"].update(licence="MIT\rRequires-Dist: evil"),
    lambda m: m["provenance"].update(license="MIT\u2028Requires-Dist: evil"),
    lambda m: m["provenance"].update(recipe={"description": "a\rRequires-Dist: evil"}),
    lambda m: m.update(model_version="1.0'; touch evil; '"),
    lambda m: m.update(model_version="1/../../../evil"),
    lambda m: m["spec"].update(name="x'; touch evil; '"),
    lambda m: m["spec"].update(name="../evil"),
    lambda m: m.update(model_version="1.0\n"),
)


@pytest.mark.parametrize("edit", FORGERIES)
def test_a_forged_bundle_chooses_neither_packages_nor_paths_nor_commands(
    edit: Callable[[dict[str, Any]], object], digits_bundle: Path, tmp_path: Path, no_index: None
) -> None:
    evil = forged(digits_bundle, tmp_path, edit)
    out = tmp_path / "deep" / "kit"
    with pytest.raises((PackageError, PredictorError)):
        write_kit(evil, out, "arm64", "3.11")
    assert sorted(path.name for path in tmp_path.rglob("*")) in (
        ["forged.zip"],
        ["deep", "forged.zip", "kit"],
    )


def test_a_kit_lists_the_requirements_of_its_wheel_and_runs_one_command(
    digits_bundle: Path, tmp_path: Path, no_index: None
) -> None:
    odd = forged(digits_bundle, tmp_path, lambda m: m["provenance"].update(licence="MIT $(x) '`"))
    kit = write_kit(odd, tmp_path / "kit", "arm64", "3.11")
    assert kit.wheels == ("edgeproof_digits-1.0.0-py3-none-any.whl", "pip-1.0-py3-none-any.whl")
    script = (kit.folder / "install.sh").read_text()
    assert script.endswith(""" "$@" 'edgeproof-digits[cpu]==1.0.0'\n""") and "MIT" not in script


def test_kit_and_page_take_trusted_keys(
    digits_bundle: Path, tmp_path: Path, no_index: None
) -> None:
    key, other = (generate_key(tmp_path / name) for name in ("key", "other"))
    bundle = Path(shutil.copy(digits_bundle, tmp_path / "bundle.zip"))
    with pytest.raises(SignatureError, match="is not signed"):
        write_kit(bundle, tmp_path / "kit", "arm64", "3.11", [key])
    with pytest.raises(WebError, match="is not signed"):
        site_files(bundle, [key])
    sign_bundle(bundle, tmp_path / "key")
    assert write_kit(bundle, tmp_path / "kit", "arm64", "3.11", iter([other, key])).wheels
    words = ["package", str(bundle), "--kit", "arm64", "--out", str(tmp_path / "kit2")]
    done = CliRunner().invoke(cli, [*words, "--trusted-key", other])
    assert done.exit_code == 1 and "none of the 1 trusted keys" in done.output
    done = CliRunner().invoke(cli, [*words, "--trusted-key", str(tmp_path / "key.pub")])
    assert done.exit_code == 0, done.output
    for verb in ("selftest", "inspect", "demo", "verify"):
        done = CliRunner().invoke(cli, [verb, str(bundle), "--trusted-key", other])
        assert done.exit_code == 1, verb
    done = CliRunner().invoke(cli, ["selftest", str(bundle), "--trusted-key", key])
    assert done.exit_code == 0, done.output


def test_the_command_needs_an_output(digits_bundle: Path) -> None:
    done = CliRunner().invoke(cli, ["package", str(digits_bundle)])
    assert done.exit_code == 2 and "nothing to write: give --kit" in done.output


def check(kit: Kit, machine: str) -> None:
    script = (kit.folder / "install.sh").read_text()
    assert len(script.splitlines()) == 3
    names = [re.split("[-_]", name)[0] for name in kit.wheels]
    assert {"edgeproof", "numpy", "onnxruntime", "pip"} <= set(names)
    native = {name for name in kit.wheels if not name.endswith("-any.whl")}
    assert all(machine in name for name in native)
    assert {name.split("-")[0] for name in native} >= {"numpy", "onnxruntime"}
    rows = [line.split("  ") for line in (kit.folder / "SHA256SUMS").read_text().splitlines()]
    assert [Path(name).name for _, name in rows] == list(kit.wheels)
    for digest, name in rows:
        assert hashlib.sha256((kit.folder / name).read_bytes()).hexdigest() == digest


@pytest.mark.full
def test_a_kit_installs_in_an_empty_network_namespace(digits_bundle: Path, tmp_path: Path) -> None:
    kit = made(digits_bundle, tmp_path / "kit", "x86_64", HERE)
    check(kit, "x86_64")
    alone = no_network()
    if not alone:
        pytest.skip("not run: a network namespace is not allowed here")
    venv = tmp_path / "device"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = str(venv / "bin/python")
    env = {"PATH": os.environ["PATH"], "PYTHON": python, "HOME": str(tmp_path)}
    script = str(kit.folder / "install.sh")
    done = subprocess.run([*alone, "sh", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    selftest = subprocess.run(
        [*alone, python, "-I", "-m", "edgeproof_digits", "selftest"], capture_output=True, text=True
    )
    assert selftest.stdout.startswith("passed: "), selftest.stderr
    # a wheel that was damaged on the way is not installed
    (wheel,) = (kit.folder / "wheels").glob("edgeproof_*.whl")
    data = bytearray(wheel.read_bytes())
    data[100] ^= 1
    wheel.write_bytes(bytes(data))
    done = subprocess.run([*alone, "sh", script], env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "FAILED" in done.stdout + done.stderr


@pytest.mark.full
def test_a_kit_installs_on_an_emulated_arm(
    digits_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (target,) = targets.select(("arm64-a76",))[1:]
    if absent := targets.absent_programs(target.needs):
        pytest.skip(f"not run: {absent[0]} not found: {targets.debian_command(absent)}")
    try:
        install(targets.environment("arm64"))
    except TargetError as exc:
        pytest.skip(f"not run: {exc}")
    words = launch.command(target, Path("job"), Path("target"))
    words = words[: words.index(next(w for w in words if w.endswith("onnx_job.py")))]
    prefix = Path(words[words.index("-L") + 1])
    python = (targets.environment("arm64").folder / "prefix/usr/bin").glob("python3.*")
    version = next(python).name.removeprefix("python")
    kit = made(digits_bundle, tmp_path / "kit", "arm64", version)
    check(kit, "aarch64")
    # the device's Python, without the packages that verify installed
    site = tmp_path / "site"
    device = tmp_path / "python3"
    emulator = " ".join(w for w in words[1:] if not w.startswith("PYTHONPATH="))
    device.write_text(f'#!/bin/sh\nexec env {emulator} "$@"\n')
    device.chmod(0o755)
    env = {"PATH": os.environ["PATH"], "PYTHON": str(device), "HOME": str(tmp_path)}
    script = [*no_network(), "sh", str(kit.folder / "install.sh"), "--target", str(site)]
    done = subprocess.run(script, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (library,) = (site / "onnxruntime/capi").glob("onnxruntime_pybind11_state*.so")
    with library.open("rb") as file:
        assert int.from_bytes(file.read(20)[18:], "little") == 183  # ELF's EM_AARCH64
    selftest = subprocess.run(
        [str(device), "-m", "edgeproof_digits", "selftest"],
        env={**env, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert selftest.stdout.startswith("passed: "), selftest.stderr
    shutil.rmtree(prefix)
