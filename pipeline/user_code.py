"""The user's own Python: the function that a recipe names, and every file that it is made of. Finds
these files without running them, so that a plan needs no torch. Standard library only.

A module counts as the user's when its file is neither in the standard library, nor in a folder of
installed packages, nor a part of this product; a package that is installed in editable mode is the
user's. Files that are not imported, such as data, are not looked at.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import linecache
import site
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

MISSING = "missing"  # in place of a hash
_OWN = tuple(
    Path(__file__).resolve().parents[1] / name for name in ("pipeline", "exporters", "runtime")
)


class ImportFailed(Exception):
    """What a recipe names cannot be imported; the cause is the error of the user's code, if any."""


@dataclass
class _Session:
    """The one reference whose modules are loaded at present."""

    reference: str
    folder: Path | None
    before: frozenset[str]  # names of modules that were loaded before it
    added: str | None = None  # the folder, where it was appended to sys.path
    digests: dict[str, str] = field(default_factory=dict)


_session: _Session | None = None


# --- importing --------------------------------------------------------------------------------


def imported(reference: str, folder: Path | None = None) -> Any:
    """What "module:attribute" means, with ``folder`` searched after everything else.

    Modules of the user that an earlier call loaded are loaded again where they changed on the disk
    since, or where that call was for another reference: two recipes may each have a ``net.py``.
    Raises ImportFailed, with the error of the user's code as its cause.
    """
    name, _, attribute = reference.partition(":")
    if not name or not attribute:
        raise ImportFailed('expected "module:function"')
    session = _begin(reference, folder)
    try:
        with _no_bytecode():
            found: Any = importlib.import_module(name)
            for part in attribute.split("."):
                found = getattr(found, part)
    except (Exception, SystemExit) as exc:  # whatever the user's code raises
        raise ImportFailed(f"{type(exc).__name__}: {exc}") from exc
    session.digests |= digests(loaded_files(reference, folder))
    return found


def _begin(reference: str, folder: Path | None) -> _Session:
    global _session  # sys.path and sys.modules are the process's, too
    importlib.invalidate_caches()  # files may be newer than what the finders remember
    folder = None if folder is None else folder.resolve()
    session = _session
    if session is not None and (session.reference, session.folder) != (reference, folder):
        _forget(session)
        session = None
    if session is None:
        session = _session = _Session(reference, folder, frozenset(sys.modules))
    else:
        now = digests(loaded_files(reference, folder))
        if any(now.get(name) != digest for name, digest in session.digests.items()):
            _forget(session)
    if folder is not None and not _is_searched(folder):
        session.added = str(folder)
    if session.added is not None:  # it stays there: networks import when they are called, too
        if session.added not in sys.path:
            sys.path.append(session.added)
        _refuse_hidden(reference.partition(":")[0], Path(session.added))
    return session


def _forget(session: _Session) -> None:
    """Take its modules out of this process, and its folder off the path."""
    known = set(_static(session.reference.partition(":")[0], session.folder))
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if not isinstance(spec, ModuleSpec) or not spec.has_location:
            continue
        users = is_users(Path(spec.origin or "").resolve())  # the file may be gone
        if users and (name not in session.before or name in known):
            del sys.modules[name]
    if session.added in sys.path:
        sys.path.remove(str(session.added))
    session.digests = {}


@contextmanager
def _searching(folder: Path | None) -> Iterator[None]:
    """In this block modules are found in ``folder``, after those on ``sys.path``, so that a file
    next to a recipe replaces neither the standard library nor an installed package."""
    if folder is None or _is_searched(folder):
        yield
        return
    sys.path.append(str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))


def _is_searched(folder: Path) -> bool:
    return folder.resolve() in {Path(entry or ".").resolve() for entry in sys.path}


def _refuse_hidden(module: str, folder: Path) -> None:
    """Raise ImportFailed where a file in ``folder`` is meant, but an installed one is found."""
    for top in dict.fromkeys(name.partition(".")[0] for name in _names(module)):
        package, spec = folder / top, _find(top, {})
        own = [package.with_name(f"{top}.py")] if package.with_name(f"{top}.py").is_file() else []
        own += [package] if any(package.glob("*.py")) else []
        if not own or spec is None:
            continue
        found = [_file(spec), *map(Path, spec.submodule_search_locations or ())]
        if not any(place is not None and place.is_relative_to(folder) for place in found):
            where = "the standard library" if found[0] is None else str(found[0])
            raise ImportFailed(
                f"{own[0]} is hidden by the module {top!r} of {where}; give it another name"
            )


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Leave no ``__pycache__`` in the user's folder: a file that is edited twice within a second
    would be taken from there."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


# --- which files ------------------------------------------------------------------------------


def source_files(reference: str, folder: Path | None = None) -> dict[str, Path]:
    """The user's files that the import of a reference reads, and what they import in turn, read
    off their source: {"net.py": ..., "blocks/__init__.py": ...}.

    Imports inside functions count; names that are only computed when the code runs are not found
    here, but by :func:`loaded_files`. Without the module itself its file maps to a path that does
    not exist.
    """
    importlib.invalidate_caches()
    name = reference.partition(":")[0]
    found = _static(name, folder)
    if not found and not _is_installed(name):
        return {f"{name.replace('.', '/')}.py": Path(MISSING)}
    return {_label(spec, file): file for spec, file in found.values()}


def _is_installed(name: str) -> bool:
    """Whether there is such a module, though not of the user, or loaded without a file."""
    return name in sys.modules or _find(name, {}) is not None


def loaded_files(reference: str, folder: Path | None = None) -> dict[str, Path]:
    """The same, and those that were loaded since :func:`imported` began with this reference."""
    files = source_files(reference, folder)
    session, folder = _session, None if folder is None else folder.resolve()
    if session is None or (session.reference, session.folder) != (reference, folder):
        return files
    for name in set(sys.modules) - session.before:
        module = sys.modules.get(name)
        file = _file_of_module(module)
        if module is not None and file is not None and is_users(file) and module.__spec__:
            files.setdefault(_label(module.__spec__, file), file)
    return files


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of each file, ``MISSING`` for one that cannot be read."""
    return {name: _digest(file) for name, file in sorted(files.items())}


def is_users(file: Path) -> bool:
    """Whether a source file belongs to the user, rather than to the environment or to us."""
    if not file.is_absolute() or {"site-packages", "dist-packages"} & set(file.parts):
        return False
    return not any(file.is_relative_to(folder) for folder in (*_OWN, *_environment()))


@cache
def _environment() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    folders = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    return tuple(Path(folder).resolve() for folder in sorted(folders))


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return MISSING


_Found = dict[str, tuple[ModuleSpec, Path]]


def _static(module: str, folder: Path | None) -> _Found:
    """The user's modules that ``module`` consists of, by their dotted names."""
    with _searching(folder):
        specs: dict[str, ModuleSpec | None] = {}
        found: _Found = {}
        for name in _names(module, specs):
            spec = specs.get(name)
            file = None if spec is None else _file(spec)
            if spec is not None and file is not None and is_users(file):
                found[name] = (spec, file)
        return found


def _names(module: str, specs: dict[str, ModuleSpec | None] | None = None) -> list[str]:
    """``module`` and all that it and the user's modules behind it import, installed ones too."""
    specs = {} if specs is None else specs
    seen: dict[str, None] = {}
    queue = [module]
    while queue:
        name = queue.pop()
        if not name or name in seen:
            continue
        spec = _find(name, specs)
        if spec is None and name != module:
            continue  # a class or a function, say, in "from module import name"
        seen[name] = None
        queue.append(name.rpartition(".")[0])  # a package runs before what is in it
        file = None if spec is None else _file(spec)
        if spec is not None and file is not None and is_users(file):
            queue += _imports(spec)
    return list(seen)


def _find(name: str, known: dict[str, ModuleSpec | None]) -> ModuleSpec | None:
    """The spec of a module, without importing the packages that it is in."""
    if name in known:
        return known[name]
    parent = name.rpartition(".")[0]
    path: list[str] | None = None
    if parent:
        package = _find(parent, known)
        if package is None or package.submodule_search_locations is None:
            known[name] = None
            return None
        path = list(package.submodule_search_locations)
    known[name] = _search(name, path)
    return known[name]


def _search(name: str, path: list[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except (ImportError, KeyError, ValueError, AttributeError):
            # a namespace package below another one asks for its parent in sys.modules
            spec = None
        if spec is not None:
            return spec
    folders = [Path(entry) / name.rpartition(".")[2] for entry in path or ()]
    places = [str(folder) for folder in folders if folder.is_dir()]
    if not places:
        return None
    namespace = ModuleSpec(name, None, is_package=True)
    namespace.submodule_search_locations = places
    return namespace


def _file(spec: ModuleSpec) -> Path | None:
    """The file of a module, of one in a zip archive that archive; None for namespaces and what is
    built in."""
    if not spec.has_location or spec.origin is None:
        return None
    file = Path(spec.origin).resolve()
    return next((place for place in (file, *file.parents) if place.is_file()), None)


def _file_of_module(module: ModuleType | None) -> Path | None:
    spec = getattr(module, "__spec__", None)
    return _file(spec) if isinstance(spec, ModuleSpec) else None


def _label(spec: ModuleSpec, file: Path) -> str:
    """The file's name in messages, which is the same wherever the folder is."""
    stem = spec.name.replace(".", "/") + ("/__init__" if spec.submodule_search_locations else "")
    return stem + file.suffix


def _imports(spec: ModuleSpec) -> Iterator[str]:
    """Dotted names of all that a module's source may import, at any depth of its code."""
    try:
        tree = ast.parse(_source(spec))
    except (OSError, ImportError, SyntaxError, ValueError, AttributeError):
        return  # compiled, or not to be read: importing it says so
    package = spec.name if spec.submodule_search_locations else spec.name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.Call) and node.args:
            function, first = node.func, node.args[0]
            name = getattr(function, "attr", getattr(function, "id", ""))
            named = isinstance(first, ast.Constant) and isinstance(first.value, str)
            if named and name in ("import_module", "__import__"):
                yield _absolute(first.value, package)  # type: ignore[attr-defined]  # a constant


def _source(spec: ModuleSpec) -> str:
    file = Path(spec.origin or "")
    if file.suffix == ".py" and file.is_file():
        return importlib.util.decode_source(file.read_bytes())
    return str(spec.loader.get_source(spec.name) or "")  # type: ignore[union-attr]  # of a zip


def _absolute(name: str, package: str) -> str:
    """A relative name, "..blocks", seen from a package; "" where it leads out of it."""
    rest = name.lstrip(".")
    level = len(name) - len(rest)
    if not level:
        return name
    parts = package.split(".")
    if level > len(parts):
        return ""
    return ".".join([*parts[: len(parts) - level + 1], *([rest] if rest else [])])


# --- which line -------------------------------------------------------------------------------


def line_of(exc: BaseException) -> str | None:
    """Where in the user's code an error was raised, 'net.py:12: x = self.fc(x)'; None where it
    was not."""
    for error in reversed(_chain(exc)):  # what came first is the cause of the others
        if isinstance(error, SyntaxError) and error.filename and error.lineno:
            return _line(Path(error.filename), error.lineno)
        frames = traceback.extract_tb(error.__traceback__)
        for frame in reversed(frames):
            file = Path(frame.filename)
            if file.is_absolute() and is_users(file.resolve()):
                return _line(file, frame.lineno or 1)
    return None


def at_line(exc: BaseException) -> str:
    """The same for the end of a message: " (at net.py:12: ...)", or nothing."""
    line = line_of(exc)
    return "" if line is None else f" (at {line})"


def _chain(exc: BaseException) -> list[BaseException]:
    """An error, what it was raised from, and so on."""
    chain: list[BaseException] = []
    current: BaseException | None = exc
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def line_of_function(function: Any) -> str | None:
    """Where a function of the user's begins; None for others."""
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    file = Path(code.co_filename)
    users = file.is_absolute() and is_users(file.resolve())
    return _line(file, code.co_firstlineno) if users else None


def _line(file: Path, number: int) -> str:
    linecache.checkcache(str(file))
    text = linecache.getline(str(file), number).strip()
    here = Path.cwd()
    name = file.relative_to(here) if file.is_relative_to(here) else file
    return f"{name}:{number}" + (f": {text}" if text else "")
