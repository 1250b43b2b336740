"""The origin of an exception: a library, for a fault of its input, or the app around this package.

An app's time limit or cancellation strikes at any line, from a signal's handler or from another
thread, and it passes through untouched: it says nothing about a bundle or an image. onnxruntime and
Pillow raise classes of their own as well as nearly every built-in one, so the class alone does not
decide. The frames that an exception has passed do: a handler has one of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

_CANCELLATIONS = ("asyncio", "concurrent")  # their errors are about the app's own tasks
_LIBRARIES = ("onnxruntime", "PIL", "numpy", "cryptography")
# Too little memory or stack, which no input is to blame for: with more of it the same would work.
_SHORTAGES = (MemoryError, RecursionError)


def is_the_apps(exc: BaseException) -> bool:
    """True for an exception that only an app raises, by its class.

    It is defined outside Python and the libraries used here, or it is a TimeoutError that no
    system call reported, whatever class it is derived from.
    """
    if isinstance(exc, TimeoutError) and exc.errno is None:
        return True
    home = _top(type(exc).__module__)
    if home in _LIBRARIES or _is_ours(type(exc).__module__):
        return False
    return home not in sys.stdlib_module_names | {"builtins"} or home in _CANCELLATIONS


def let_through(exc: BaseException) -> None:
    """Raise ``exc`` again if it is the app's, by its class or because it comes out of a function of
    the app: the first line of a handler of built-in classes. What a system call reported is not."""
    reported = isinstance(exc, OSError) and exc.errno is not None
    if is_the_apps(exc) or not (reported or _passed_only(exc, _LIBRARIES)):
        raise exc


def raised_by(exc: BaseException, library: str, plugins: Iterable[str] = ()) -> bool:
    """True for an exception of ``library`` (a top-level package) about what it was given.

    Its class is the library's, or it is Python's and between the caller and the line that raised it
    were only the library, its ``plugins`` (packages), this package and the standard library.
    """
    if _top(type(exc).__module__) == library:
        return True
    if is_the_apps(exc) or isinstance(exc, _SHORTAGES):
        return False
    return _passed_only(exc, (library, *plugins, "numpy"))


def _passed_only(exc: BaseException, packages: Iterable[str]) -> bool:
    """True where all frames between the caller and the line that raised it are of ``packages``,
    this one and the standard library."""
    allowed = {*packages} | sys.stdlib_module_names
    step = exc.__traceback__
    while step is not None:
        name = str(step.tb_frame.f_globals.get("__name__"))
        if not (_top(name) in allowed or name in allowed or _is_ours(name)):
            return False
        step = step.tb_next
    return True


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_ours(module: str) -> bool:
    """This package may be part of a larger one, whose other modules are not its own."""
    return module.startswith(f"{__package__}.")
