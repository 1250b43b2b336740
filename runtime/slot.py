"""A folder in which a device keeps the bundle that it runs, and replaces it in the field.

    slot = Slot("/var/lib/app/model")
    slot.install("new.zip", trusted_keys=[KEY])
    predictor = slot.open(trusted_keys=[KEY])

What lies there:

    bundles/<id>-<hash>.zip   bundles that passed their selftest here: the current and the last one
    incoming/                 a bundle that is being installed; whatever lies there may be deleted
    current                   JSON, which of them are current and previous; the switch is its rename
    lock                      empty; locked by who installs

Every file is written aside, flushed to the disk and renamed, so that a death at any moment leaves
the old state or the new one. Running predictors are not touched: on POSIX systems they read on
from the file that they opened, even when it is deleted. Windows does not delete a file that is
open; there it stays until a later install finds it closed. Knows nothing of where bundles come
from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from . import strict_json
from .bundle import open_file, reusable_keys
from .errors import BundleError, DeviceError, PredictorError, SelftestError, SlotError
from .origin import let_through

if TYPE_CHECKING:
    from .predictor import Predictor

_log = logging.getLogger(__name__)
_POINTER_NAME = "current"
_FORMAT = 1
_FILE_NAME = re.compile(r"([0-9a-f]{64})-[0-9a-f]{16}\.zip", re.ASCII)
_MAX_POINTER_BYTES = 4096
_COPY_BYTES = 1 << 20
_TRIES = 5  # to open what an installer may be deleting
_UNFIT = (BundleError, SelftestError, DeviceError)  # a fault of the bundle, here and now


@dataclass(frozen=True)
class SlotState:
    """Which bundles a slot holds. ``problem`` is why the last ``open`` passed over the current
    one; None if it did not."""

    current: str | None  # bundle ids; None: nothing was installed
    previous: str | None  # what open() falls back to; None: there is nothing
    opened: str | None = None  # by this Slot, at its last open()
    problem: str | None = None


@dataclass(frozen=True)
class _Pointer:
    """The content of ``current``: names of files in ``bundles/``."""

    current: str | None = None
    previous: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in (self.current, self.previous) if name)


@dataclass(frozen=True)
class _How:
    """How the bundles are to be opened: arguments of Predictor."""

    device: str
    variant: str
    threads: int | None
    trusted_keys: tuple[str, ...] | None

    @classmethod
    def of(cls, device: str, variant: str, threads: int | None, keys: Iterable[str] | None) -> _How:
        """Keys are asked for more than once."""
        return cls(device, variant, threads, reusable_keys(keys))


class Slot:
    """The place of one model on a device. Any process may ``open`` while another installs."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Nothing is read or written yet; ``install`` makes the folder."""
        self.folder = Path(folder)
        self._opened: str | None = None
        self._problem: str | None = None

    @property
    def state(self) -> SlotState:
        """What is installed now, and what the last ``open`` did; raises SlotError."""
        pointer = self._read()
        return SlotState(_id(pointer.current), _id(pointer.previous), self._opened, self._problem)

    def install(
        self,
        bundle: str | os.PathLike[str] | bytes,
        trusted_keys: Iterable[str] | None = None,
        *,
        device: str = "auto",
        variant: str = "auto",
        threads: int | None = None,
    ) -> str:
        """Copy a bundle (a path, or its bytes) into the slot, try it and switch to it; returns
        its id.

        It is verified and selftested here, on ``device``, before the switch; whatever fails
        leaves the slot as it was. The bundle that was current is kept as previous if it still
        passes its own selftest. A bundle without golden samples cannot be installed.

        Raises SlotError (another process installs; the folder cannot be written), and what
        Predictor and ``selftest`` raise of the bundle.
        """
        how = _How.of(device, variant, threads, trusted_keys)
        with self._writing():
            shutil.rmtree(self.folder / "incoming", ignore_errors=True)
            (self.folder / "incoming").mkdir(exist_ok=True)
            aside, digest = self._copy(bundle)
            try:
                bundle_id = _try(aside, how)
                name = f"{bundle_id}-{digest[:16]}.zip"
                self._keep(aside, name)
            finally:
                with contextlib.suppress(OSError):
                    aside.unlink(missing_ok=True)
            old = self._read_or_nothing()
            previous = self._last_good(old, name, how)
            self._switch(_Pointer(name, previous))
            _log.info("%s: installed %s", self.folder, bundle_id)
            return bundle_id

    def open(
        self,
        device: str = "auto",
        variant: str = "auto",
        threads: int | None = None,
        *,
        trusted_keys: Iterable[str] | None = None,
    ) -> Predictor:
        """A predictor of the current bundle, selftested, or of the previous one when the current
        one is damaged, does not open on ``device`` or fails its selftest; ``state`` and the log
        then say so.

        Raises SlotError when no bundle works, InputError for options that none takes.
        """
        how = _How.of(device, variant, threads, trusted_keys)
        for _ in range(_TRIES):
            pointer = self._read()
            problems = []
            for name in pointer.names:
                try:
                    predictor = _tested(self.folder / "bundles" / name, how)
                except _UNFIT as exc:  # noqa: PERF203 - two at most
                    problems.append(f"{name[:12]} does not work: {' '.join(str(exc).split())}")
                    _log.warning("%s: %s", self.folder, problems[-1])
                else:
                    self._opened = _id(name)
                    self._problem = problems[0] if problems else None
                    return predictor
            if pointer == self._read():  # otherwise an installer deleted what was looked for
                break
        if not pointer.names:
            raise SlotError(f"the slot {self.folder} is empty. Install a bundle first.")
        raise SlotError(
            f"the slot {self.folder} holds no bundle that works: {'; '.join(problems)} Install "
            "one that does."
        )

    def rollback(
        self,
        trusted_keys: Iterable[str] | None = None,
        *,
        device: str = "auto",
        variant: str = "auto",
        threads: int | None = None,
    ) -> str:
        """Go back to the previous bundle for good and return its id; the current one is deleted.

        Raises SlotError when there is no previous one, and what Predictor and ``selftest`` raise
        when it does not work; the slot is then as it was.
        """
        how = _How.of(device, variant, threads, trusted_keys)
        with self._writing():
            name = self._read().previous
            if name is None:
                raise SlotError(f"the slot {self.folder} has no previous bundle to go back to.")
            bundle_id = _try(self.folder / "bundles" / name, how)
            self._switch(_Pointer(name))
            _log.info("%s: rolled back to %s", self.folder, bundle_id)
            return bundle_id

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """The lock of the slot; whatever cannot be written is a SlotError."""
        try:
            (self.folder / "bundles").mkdir(parents=True, exist_ok=True)
            with (self.folder / "lock").open("a+b") as file:
                if not _lock(file):
                    raise SlotError(
                        f"another process installs into the slot {self.folder}. Try again when "
                        "it is done."
                    )
                yield
        except OSError as exc:
            let_through(exc)
            raise SlotError(
                f"the slot {self.folder} cannot be written: {exc}. Check free space and "
                "permissions; the slot is as it was."
            ) from exc

    def _copy(self, bundle: str | os.PathLike[str] | bytes) -> tuple[Path, str]:
        """A copy in ``incoming/`` that is on the disk, and its sha256."""
        handle, name = tempfile.mkstemp(suffix=".zip", dir=self.folder / "incoming")
        digest = hashlib.sha256()
        with os.fdopen(handle, "wb") as file:
            for chunk in _chunks(bundle):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return Path(name), digest.hexdigest()

    def _keep(self, aside: Path, name: str) -> None:
        aside.chmod(0o644)  # mkstemp's files are for their owner alone
        aside.replace(self.folder / "bundles" / name)
        _sync_folder(self.folder / "bundles")

    def _last_good(self, old: _Pointer, new: str, how: _How) -> str | None:
        """The newest of the installed bundles, besides the new one, that works."""
        for name in old.names:
            if name == new:
                continue
            try:
                _try(self.folder / "bundles" / name, how)
            except PredictorError as exc:
                _log.warning("%s: %s is not kept: %s", self.folder, name[:12], exc)
            else:
                return name
        return None

    def _switch(self, pointer: _Pointer) -> None:
        """Write the pointer, then delete what it does not name."""
        text = json.dumps({"format": _FORMAT, **asdict(pointer)}) + "\n"
        aside = self.folder / f"{_POINTER_NAME}.new"
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.folder / _POINTER_NAME)
        _sync_folder(self.folder)
        for path in (self.folder / "bundles").iterdir():
            if path.name not in pointer.names:
                with contextlib.suppress(OSError):  # Windows: a predictor has it open
                    path.unlink()

    def _read(self) -> _Pointer:
        path = self.folder / _POINTER_NAME
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_POINTER_BYTES)
        except FileNotFoundError:
            return _Pointer()
        except OSError as exc:
            let_through(exc)
            raise SlotError(f"{path} cannot be read: {exc}.") from exc
        try:
            data = strict_json.loads(text)
            if data["format"] != _FORMAT:
                raise ValueError(f"format {data['format']!r}; this runtime reads {_FORMAT}")
            pointer = _Pointer(data["current"], data["previous"])
            if not all(_FILE_NAME.fullmatch(name) for name in pointer.names):
                raise ValueError(f"no names of bundles: {pointer.names}")
        except (ValueError, TypeError, KeyError) as exc:
            let_through(exc)
            raise SlotError(f"{path} is damaged ({exc}). Install a bundle again.") from exc
        return pointer

    def _read_or_nothing(self) -> _Pointer:
        """The pointer; installing replaces one that is damaged."""
        try:
            return self._read()
        except SlotError as exc:
            _log.warning("%s", exc)
            return _Pointer()


def _tested(path: Path, how: _How) -> Predictor:
    """A predictor that has passed its selftest; raises PredictorError."""
    from .predictor import Predictor  # here: an app may look at a slot without onnxruntime

    predictor = Predictor(path, how.device, how.variant, how.threads, trusted_keys=how.trusted_keys)
    try:
        predictor.selftest()
    except BaseException:
        predictor.close()
        raise
    return predictor


def _try(path: Path, how: _How) -> str:
    """The id of a bundle that passes its selftest; raises PredictorError."""
    with _tested(path, how) as predictor:
        return str(predictor.info.bundle_id)


def _id(name: str | None) -> str | None:
    return None if name is None else name[:64]


def _chunks(bundle: str | os.PathLike[str] | bytes) -> Iterator[bytes]:
    if isinstance(bundle, bytes):
        yield bundle
        return
    with open_file(bundle) as file:
        while chunk := file.read(_COPY_BYTES):
            yield chunk


def _sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` outlive a power cut; Windows has no call for it."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> bool:
        """Lock a byte until the file is closed or the process dies; False if it is taken."""
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(file: IO[bytes]) -> bool:
        """Lock until the file is closed or the process dies; False if it is taken."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
