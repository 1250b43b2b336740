"""A bundle -> a folder that installs the model on a device without internet: its wheel, the wheels
that it requires, their checksums, and a script of three lines."""

from __future__ import annotations

import hashlib
import io
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.errors import PackageError
from exporters.files import atomic_folder
from exporters.package.device_wheels import download
from exporters.package.wheel import write_wheel
from exporters.package.wheel_fields import check_names
from runtime import Bundle, Manifest
from runtime.bundle import read_file

SCRIPT_NAME, SUMS_NAME, WHEELS_NAME = "install.sh", "SHA256SUMS", "wheels"
# pip is included as a wheel and runs from it, so a device needs only Python. The arguments of the
# script go to pip: --target DIR, --user, --break-system-packages.
_SCRIPT = """\
#!/bin/sh
cd "$(dirname "$0")" && sha256sum --check --quiet {sums} || exit 1
exec "${{PYTHON:-python3}}" {pip}/pip install --no-index --find-links {wheels} "$@" {model}
"""


@dataclass(frozen=True)
class Kit:
    """An offline kit on disk."""

    folder: Path
    model: str  # the requirement it installs: "edgeproof-mnist[cpu]==1.0.0"
    wheels: tuple[str, ...]  # file names
    size_bytes: int


def write_kit(
    bundle: Path,
    parent: Path,
    platform: str,
    python: str,
    trusted_keys: Iterable[str] | None = None,
) -> Kit:
    """Write ``<model>-<version>-<platform>-py<python>`` into ``parent``, or replace it.

    ``platform`` is "arm64" or "x86_64", ``python`` the device's version, as in "3.11". Needs a
    package index. With ``trusted_keys`` a bundle that none of them signed is refused. Raises
    PackageError, and PredictorError for a damaged bundle; an existing kit stays then.
    """
    data = read_file(bundle)  # once: what was verified is what is packed
    opened = Bundle(io.BytesIO(data), str(bundle), trusted_keys)
    manifest = opened.manifest
    opened.close()
    name, version = manifest.spec.name, manifest.model_version
    check_names(name, version)  # folder, script and requirement are named after them
    target = parent / f"edgeproof_{name.replace('-', '_')}-{version}-{platform}-py{python}"
    model = f"edgeproof-{name}[cpu]=={version}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(target) as folder:
            _fill(folder, data, manifest, platform, python, model)
    except OSError as exc:
        raise PackageError(f"the kit {target} cannot be written: {exc}. Free some space.") from exc
    files = [file for file in target.rglob("*") if file.is_file()]
    wheels = tuple(sorted(file.name for file in files if file.suffix == ".whl"))
    return Kit(target, model, wheels, sum(file.stat().st_size for file in files))


def _fill(
    folder: Path, bundle: bytes, manifest: Manifest, platform: str, python: str, model: str
) -> None:
    wheels = folder / WHEELS_NAME
    wheels.mkdir(parents=True)
    own = write_wheel(
        wheels,
        name=manifest.spec.name,
        version=manifest.model_version,
        bundle=bundle,
        summary=_summary(manifest),
        license=str(
            manifest.provenance.get("license")
            or manifest.provenance.get("licence")  # bundles of earlier versions
            or "see the model card"
        ),
    )
    downloaded = download(wheels, [f"{own}[cpu]", "pip"], platform, python)
    (pip,) = (wheel for wheel in downloaded if wheel.name.startswith("pip-"))
    sums = "".join(
        f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {WHEELS_NAME}/{wheel.name}\n"
        for wheel in downloaded
    )
    (folder / SUMS_NAME).write_text(sums, encoding="ascii")
    script = folder / SCRIPT_NAME
    words = {
        "sums": SUMS_NAME,
        "wheels": WHEELS_NAME,
        "pip": shlex.quote(f"{WHEELS_NAME}/{pip.name}"),
        "model": shlex.quote(model),
    }
    script.write_text(_SCRIPT.format(**words), encoding="ascii")
    script.chmod(0o755)


def _summary(manifest: Manifest) -> str:
    """Return the recipe's description, if the bundle has it."""
    recipe: Any = manifest.provenance.get("recipe")
    text = recipe.get("description") if isinstance(recipe, dict) else None
    return text if isinstance(text, str) and text.strip() else f"The model {manifest.spec.name}."
