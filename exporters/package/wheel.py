"""A bundle -> a wheel of its own, which carries the runtime inside, so that an app installs one
package and never meets this project's.

Written with the standard library: build backends pack a source tree by its configuration, and a
tree, a configuration and a subprocess for six files would be the longer way. The format is that
of the packaging specifications ("Binary distribution format", "Core metadata")."""

from __future__ import annotations

import base64
import hashlib
from email import message_from_string
from email.message import EmailMessage
from email.policy import EmailPolicy, compat32
from importlib import resources
from pathlib import Path

import runtime
from exporters.errors import PackageError
from exporters.package.archive import replace_file, zip_bytes
from exporters.package.markdown import as_text
from exporters.package.wheel_fields import check_fields
from runtime.plain_text import hidden_character

_LAZY = "Predictor"  # imports onnxruntime, so only at its first mention

# the text of the first line is the user's, so it is written as Python writes strings
_INIT = """{docstring}

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.runtime import (
    {imports},
)

if TYPE_CHECKING:
    from exporters._predictor import Predictor

__version__ = {version!r}

__all__ = [
    "__version__",
    {names},
]


def __getattr__(name: str) -> object:
    if name == "Predictor":
        from exporters._predictor import Predictor

        return Predictor
    raise AttributeError(f"module {{__name__!r}} has no attribute {{name!r}}")
"""

_DOCSTRING = """{summary}

    from {package} import Predictor

    with Predictor() as p:
        print(p.predict("image.png"))

The model lies in this package; ``Predictor`` opens it, or any other bundle. It is imported at its
first mention, since it needs onnxruntime: install {distribution}[cpu] or {distribution}[gpu].
"""

_PREDICTOR = '''"""The predictor of the model in this package."""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Iterable

from exporters.runtime import PredictorError
from exporters.runtime.bundle import Source
from exporters.runtime.predictor import Predictor as _Predictor

BUNDLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bundle.zip")


def packaged_bundle() -> Source:
    """The path of the bundle in this package, or its bytes when the package lies in a zip."""
    if os.path.isfile(BUNDLE):
        return BUNDLE
    try:
        data = pkgutil.get_data(__package__, "bundle.zip")
    except OSError:  # a frozen app that was made without the package's data
        data = None
    if data is None:
        raise PredictorError(
            f"bundle.zip, the model itself, is missing in the package {__package__}; expected "
            f"{BUNDLE}. Install the wheel again. If this app was frozen, pass the package's data: "
            f"PyInstaller finds it by the package's own hook, or by --collect-all {__package__}; "
            f"Nuitka by --include-package-data={__package__}; cx_Freeze by packages."
        )
    return data


class Predictor(_Predictor):
    """The runtime's Predictor, which opens this package's model unless it is given another."""

    def __init__(
        self,
        bundle: Source | None = None,
        device: str = "auto",
        variant: str = "auto",
        threads: int | None = None,
        *,
        trusted_keys: Iterable[str] | None = None,
    ) -> None:
        super().__init__(
            packaged_bundle() if bundle is None else bundle,
            device,
            variant,
            threads,
            trusted_keys=trusted_keys,
        )
'''

_MAIN = '''"""``python -m {package} predict IMAGE... | selftest | info | autotune``: at a prompt."""

import sys

from exporters._predictor import BUNDLE
from exporters.runtime.__main__ import main

sys.exit(main(package="{package}", bundle=BUNDLE))
'''

# PyInstaller asks an installed package for its hooks (entry point "pyinstaller40"): data files and
# modules that are imported at their first mention are not found by reading the code.
_HOOKS = '''"""Where PyInstaller finds this package's hook."""

import os


def get_hook_dirs() -> list[str]:
    """This folder."""
    return [os.path.dirname(__file__)]
'''
_HOOK = '''"""What PyInstaller packs for this package: the model and every module of the runtime."""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules

datas = collect_data_files("{package}")
hiddenimports = collect_submodules("{package}.runtime")
'''
_ENTRY_POINTS = """[pyinstaller40]
hook-dirs = {package}.__pyinstaller:get_hook_dirs
"""

# Core metadata 2.1; a name may stand more than once, and extras before what they require.
_REQUIRES = (
    ("Requires-Python", ">=3.10"),
    ("Requires-Dist", "numpy>=1.24"),
    ("Provides-Extra", "cpu"),
    ("Requires-Dist", 'onnxruntime>=1.15; extra == "cpu"'),
    ("Provides-Extra", "gpu"),
    ("Requires-Dist", 'onnxruntime-gpu>=1.18; extra == "gpu"'),
    ("Provides-Extra", "openvino"),
    ("Requires-Dist", 'onnxruntime-openvino>=1.18; extra == "openvino"'),
    ("Provides-Extra", "sign"),
    ("Requires-Dist", 'cryptography>=41; extra == "sign"'),
    ("Description-Content-Type", "text/markdown"),
)
_README = """# {distribution}

{summary}

```python
from {package} import Predictor

with Predictor() as p:
    print(p.predict("image.png"))
```

Install either `{distribution}[cpu]` or `{distribution}[gpu]`, not both: onnxruntime's two packages
own the same files. Reading image files needs Pillow; arrays do not.
"""

_WHEEL = """Wheel-Version: 1.0
Generator: edgeproof
Root-Is-Purelib: true
Tag: py3-none-any
"""


class _HeaderPolicy(EmailPolicy):
    """Headers as core metadata has them: UTF-8, one line each, neither folded nor encoded."""

    def header_store_parse(self, name: str, value: str) -> tuple[str, str]:
        """Refuse what would begin another line; keep the text as it is."""
        if hidden_character(value):
            raise ValueError(f"{name} {value!r} has a control character")
        return name, value


_HEADERS = _HeaderPolicy(utf8=True, mangle_from_=False, max_line_length=0)


def write_wheel(
    folder: Path, *, name: str, version: str, bundle: Path | bytes, summary: str, licence: str
) -> Path:
    """Write ``edgeproof_<name>-<version>-py3-none-any.whl`` into ``folder``; returns its path.

    ``bundle`` is a file or its bytes, ``name`` is a recipe's, ``version`` the model's in the normal
    form of PEP 440, ``summary`` one line, ``licence`` that of the weights (the runtime's is
    Apache-2.0). The same arguments and bundle give the same bytes. Raises PackageError.
    """
    summary, licence = summary.strip(), licence.strip()
    check_fields(name, version, summary, licence)
    distribution, package = f"edgeproof-{name}", f"edgeproof_{name.replace('-', '_')}"
    names = sorted(set(runtime.__all__) - {"__version__"})
    fields = {
        "distribution": distribution,
        "package": package,
        "version": version,
        "summary": summary,
        "imports": ",\n    ".join(n for n in names if n != _LAZY),
        "names": ",\n    ".join(f'"{n}"' for n in names),
    }
    info = f"{package}-{version}.dist-info"
    target = folder / f"{package}-{version}-py3-none-any.whl"
    try:
        members = {
            f"{package}/__init__.py": _init(fields).encode(),
            f"{package}/__main__.py": _MAIN.format(**fields).encode(),
            f"{package}/_predictor.py": _PREDICTOR.encode(),
            f"{package}/__pyinstaller/__init__.py": _HOOKS.encode(),
            f"{package}/__pyinstaller/hook-{package}.py": _HOOK.format(package=package).encode(),
            f"{package}/bundle.zip": _bytes_of(bundle),
            f"{package}/py.typed": b"",
            **{f"{package}/runtime/{n}": data for n, data in runtime_files().items()},
            f"{info}/METADATA": _metadata(distribution, package, version, summary, licence),
            f"{info}/WHEEL": _WHEEL.encode(),
            f"{info}/entry_points.txt": _ENTRY_POINTS.format(package=package).encode(),
        }
        members = _compiled(members)
        members[f"{info}/RECORD"] = _record(members, f"{info}/RECORD")
        replace_file(target, zip_bytes(members), lambda _: None)
    except OSError as exc:
        raise PackageError(f"the wheel {target} cannot be written: {exc}.") from exc
    return target


def _init(fields: dict[str, str]) -> str:
    """The package's ``__init__.py``: whatever characters the summary has, they are text."""
    text = _DOCSTRING.format(**fields)
    literal = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return _INIT.format(docstring=f'"""{literal}"""', **fields)


def _compiled(members: dict[str, bytes]) -> dict[str, bytes]:
    """The same files, of which every Python source compiles."""
    for name, data in members.items():
        if not name.endswith(".py"):
            continue
        try:
            compile(data, name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as exc:
            raise PackageError(f"{name} of the wheel is not valid Python: {exc}.") from exc
    return members


def _metadata(distribution: str, package: str, version: str, summary: str, licence: str) -> bytes:
    """METADATA, by the library that reads it again at the other end."""
    message = EmailMessage(_HEADERS)
    rows = (
        ("Metadata-Version", "2.1"),
        ("Name", distribution),
        ("Version", version),
        ("Summary", summary),
        ("License", f"{licence} (model), Apache-2.0 (runtime)"),
        *_REQUIRES,
    )
    for key, value in rows:
        message[key] = value
    message.set_payload(
        _README.format(distribution=distribution, package=package, summary=as_text(summary))
    )
    text = message.as_string()
    if message_from_string(text, policy=compat32).items() != [*rows]:
        raise PackageError(f"summary {summary!r}, licence {licence!r}; expected one line each.")
    return text.encode()


def _bytes_of(bundle: Path | bytes) -> bytes:
    return bundle if isinstance(bundle, bytes) else bundle.read_bytes()


def runtime_files() -> dict[str, bytes]:
    """The runtime's own files by their path in it: modules, type marker, format specification and
    schema."""
    root = resources.files("runtime")
    files = {
        f"{folder}{entry.name}": entry.read_bytes()
        for folder in ("", "tasks/")
        for entry in root.joinpath(folder).iterdir()
        if entry.is_file() and entry.name.endswith((".py", ".md", ".json", "py.typed"))
    }
    return dict(sorted(files.items()))


def _record(members: dict[str, bytes], own_name: str) -> bytes:
    rows = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in members.items()]
    return "\n".join([*rows, f"{own_name},,", ""]).encode()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
