"""The user's own source files as parts of a fingerprint: the network of a recipe, and a file of
weights that it names. Independent of stages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pipeline import user_code
from pipeline.engine.stage import UserModule
from pipeline.recipe import NetworkOptions


def current_digests(network: NetworkOptions, seen: Mapping[str, UserModule]) -> dict[str, str]:
    """Hashes, as they are now, of every file that the network is made of; ``seen`` are those that
    only running it has shown."""
    reference, folder = network.callable, network.folder
    if reference is None:
        return {}
    base = folder or Path()
    files = {name: base / module.file for name, module in seen.items()}
    return user_code.digests(files | user_code.source_files(reference, folder))


def loaded_modules(network: NetworkOptions) -> dict[str, UserModule]:
    """The files that only running the network has shown, with the content that ran."""
    reference, folder = network.callable, network.folder
    if reference is None:
        return {}
    static = user_code.source_files(reference, folder)
    files = user_code.loaded_files(reference, folder)
    more = {name: file for name, file in files.items() if name not in static}
    return {
        name: UserModule(_relative(more[name], folder), digest)
        for name, digest in user_code.digests(more).items()
    }


def weights_digest(network: NetworkOptions) -> dict[str, str]:
    """Hash of the file of weights that a recipe names, by its key; empty without one."""
    if network.weights is None:
        return {}
    file = Path(network.weights).expanduser()
    digest = user_code.MISSING
    if file.is_file():
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"network.weights": digest}


def _relative(file: Path, folder: Path | None) -> str:
    """Relative to the recipe's folder for files inside it, so that both can be moved."""
    if folder is not None and file.is_relative_to(folder):
        return str(file.relative_to(folder))
    return str(file)
