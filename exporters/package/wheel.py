"""A bundle -> a wheel of its own with the runtime inside, so that an app installs one package and
none of this project's.

The standard library is enough: a build backend would need a source tree, a configuration and a
subprocess for six files. The format is that of the packaging specifications ("Binary distribution
format", "Core metadata")."""

from __future__ import annotations

import base64
import hashlib
import re
from email import message_from_string
from email.message import EmailMessage
from email.policy import EmailPolicy, compat32
from importlib import resources
from pathlib import Path

import runtime
from exporters.errors import PackageError
from exporters.package.archive import replace_file, zip_bytes
from exporters.package.markdown import as_text
from exporters.package.resource_files import files_under
from exporters.package.wheel_fields import check_fields
from runtime.plain_text import hidden_character

_LAZY = "Predictor"  # imports onnxruntime, so it is imported on first use
# Files of ``wheel_files`` by their names in the wheel. They are valid Python, so that linters and
# type checkers read them; here they get the model's names and the wheel's own runtime.
_SOURCES = {
    "__init__.py": "__init__.py",
    "__main__.py": "__main__.py",
    "_predictor.py": "_predictor.py",
    "__pyinstaller/__init__.py": "__pyinstaller/__init__.py",
    "__pyinstaller/hook-{package}.py": "__pyinstaller/hook.py",
}
_PLACEHOLDERS = re.compile(
    r'SUMMARY|PACKAGE|DISTRIBUTION|"VERSION"|PredictorError as PublicNames|"PublicNames"'
    r"|(?<=from )(?=runtime\b)"
)
_RUNTIME_FILES = (".py", ".md", ".json", "py.typed")

_ENTRY_POINTS = """[pyinstaller40]
hook-dirs = {package}.__pyinstaller:get_hook_dirs
"""

# Core metadata 2.1; a name may occur more than once, and extras come before their requirements.
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
    """Headers of core metadata: UTF-8, one line each, neither folded nor encoded."""

    def header_store_parse(self, name: str, value: str) -> tuple[str, str]:
        """Refuse text that would begin another line; keep any other as it is."""
        if hidden_character(value):
            raise ValueError(f"{name} {value!r} has a control character")
        return name, value


_HEADERS = _HeaderPolicy(utf8=True, mangle_from_=False, max_line_length=0)


def write_wheel(
    folder: Path, *, name: str, version: str, bundle: Path | bytes, summary: str, license: str
) -> Path:
    """Write ``edgeproof_<name>-<version>-py3-none-any.whl`` into ``folder``; returns its path.

    ``bundle`` is a file or its bytes, ``name`` is a recipe's, ``version`` the model's in the normal
    form of PEP 440, ``summary`` one line, ``license`` that of the weights (the runtime's is
    Apache-2.0). The same arguments and bundle give the same bytes. Raises PackageError.
    """
    summary, license = summary.strip(), license.strip()
    check_fields(name, version, summary, license)
    distribution, package = f"edgeproof-{name}", f"edgeproof_{name.replace('-', '_')}"
    info = f"{package}-{version}.dist-info"
    target = folder / f"{package}-{version}-py3-none-any.whl"
    try:
        members = {
            **_sources(distribution, package, version, summary),
            f"{package}/bundle.zip": bundle if isinstance(bundle, bytes) else bundle.read_bytes(),
            f"{package}/py.typed": b"",
            **{f"{package}/runtime/{name}": data for name, data in _runtime_files().items()},
            f"{info}/METADATA": _metadata(distribution, package, version, summary, license),
            f"{info}/WHEEL": _WHEEL.encode(),
            f"{info}/entry_points.txt": _ENTRY_POINTS.format(package=package).encode(),
        }
        members = _compiled(members)
        members[f"{info}/RECORD"] = _record(members, f"{info}/RECORD")
        replace_file(target, zip_bytes(members), lambda _: None)
    except OSError as exc:
        raise PackageError(f"the wheel {target} cannot be written: {exc}.") from exc
    return target


def _sources(distribution: str, package: str, version: str, summary: str) -> dict[str, bytes]:
    """Return the Python of ``wheel_files`` with this model's names, by path in the wheel."""
    names = sorted(set(runtime.__all__) - {"__version__"})
    texts = {
        # it becomes part of a docstring, whatever characters it has
        "SUMMARY": summary.replace("\\", "\\\\").replace('"""', '\\"\\"\\"'),
        "PACKAGE": package,
        "DISTRIBUTION": distribution,
        '"VERSION"': repr(version),
        "PredictorError as PublicNames": ",\n    ".join(n for n in names if n != _LAZY),
        '"PublicNames"': ",\n    ".join(f'"{n}"' for n in names),
        "": ".",  # the wheel's own runtime
    }
    folder = resources.files("exporters.package").joinpath("wheel_files")
    return {
        f"{package}/{name.format(package=package)}": _PLACEHOLDERS.sub(
            lambda match: texts[match[0]], folder.joinpath(source).read_text(encoding="utf-8")
        ).encode()
        for name, source in _SOURCES.items()
    }


def _compiled(members: dict[str, bytes]) -> dict[str, bytes]:
    """Return the same files after compiling every Python source."""
    for name, data in members.items():
        if not name.endswith(".py"):
            continue
        try:
            compile(data, name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as exc:
            raise PackageError(f"{name} of the wheel is not valid Python: {exc}.") from exc
    return members


def _metadata(distribution: str, package: str, version: str, summary: str, license: str) -> bytes:
    """Return METADATA, written by the library that pip reads it with."""
    message = EmailMessage(_HEADERS)
    rows = (
        ("Metadata-Version", "2.1"),
        ("Name", distribution),
        ("Version", version),
        ("Summary", summary),
        ("License", f"{license} (model), Apache-2.0 (runtime)"),
        *_REQUIRES,
    )
    for key, value in rows:
        message[key] = value
    message.set_payload(
        _README.format(distribution=distribution, package=package, summary=as_text(summary))
    )
    text = message.as_string()
    if message_from_string(text, policy=compat32).items() != [*rows]:
        raise PackageError(f"summary {summary!r}, license {license!r}; expected one line each.")
    return text.encode()


def _runtime_files() -> dict[str, bytes]:
    """Return the runtime's files by path: modules, type marker, format specification, schema."""
    files = files_under(resources.files("runtime"), _RUNTIME_FILES)
    return {path: data for path, data in files.items() if not path.startswith("web/")}


def _record(members: dict[str, bytes], own_name: str) -> bytes:
    rows = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in members.items()]
    return "\n".join([*rows, f"{own_name},,", ""]).encode()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
