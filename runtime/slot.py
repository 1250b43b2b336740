"""A folder in which a device keeps the bundle that it runs, and replaces it in the field.

    slot = Slot("/var/lib/app/model")
    slot.install("new.zip", trusted_keys=[KEY])
    predictor = slot.open(trusted_keys=[KEY])

It holds:

    bundles/<id>-<hash>.zip   bundles that passed their selftest here: the current and the last one
    incoming/                 a bundle that is being installed; everything in it may be deleted
    current                   JSON, which of them are current and previous, and the highest version
                              that was installed; the switch is its rename
    lock                      empty; locked by the process that installs

Every file is written aside, flushed to the disk and renamed, so that a death at any moment leaves
the old state or the new one; what is left aside is deleted at the end, or by the next install.
Running predictors are not touched: on POSIX systems they keep reading the file that they opened,
even when it is deleted. Windows does not delete a file that is open; there it stays until a later
install finds it closed. Independent of where bundles come from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import strict_json
from .bundle import Bundle, reusable_keys
from .errors import (
    BundleError,
    BundleIntegrityError,
    DeviceError,
    PredictorError,
    SelftestError,
    SlotError,
)
from .origin import let_through
from .regular_file import read_regular
from .slot_files import chunks, lock, sync_folder
from .versions import order

if TYPE_CHECKING:
    from .predictor import Predictor
    from .reports import PredictorInfo

_log = logging.getLogger(__name__)
_POINTER_NAME = "current"
_FORMAT = 1
_FILE_NAME = re.compile(r"([0-9a-f]{64})-[0-9a-f]{16}\.zip", re.ASCII)
_MAX_POINTER_BYTES = 4096
_MAX_VERSION_LETTERS = 256  # of one that the pointer holds
_MAX_BYTES = 1 << 32  # no bundle is larger
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
    highest: str | None = field(default=None, compare=False)  # version; see Slot


@dataclass(frozen=True)
class _Pointer:
    """The content of ``current``: names of files in ``bundles/``, and the highest version that was
    ever current, where versions can be compared. Older runtimes wrote none, and ignore it."""

    current: str | None = None
    previous: str | None = None
    highest: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in (self.current, self.previous) if name is not None)


@dataclass(frozen=True)
class _Options:
    """The arguments of Predictor with which bundles are opened."""

    device: str
    variant: str
    threads: int | None
    trusted_keys: tuple[str, ...] | None

    @classmethod
    def of(
        cls, device: str, variant: str, threads: int | None, keys: Iterable[str] | None
    ) -> _Options:
        """Make the keys readable more than once."""
        return cls(device, variant, threads, reusable_keys(keys))


class Slot:
    """The place of one model on a device. Any process may ``open`` while another installs."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        allow_downgrade: bool = False,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        """Nothing is read or written yet; ``install`` makes the folder.

        Without ``allow_downgrade`` no bundle is installed whose version is lower than the highest
        that was installed here, or cannot be compared with it (``versions.py`` says how versions
        compare); ``rollback`` is always possible. ``BUNDLE.md`` says what this protects from.
        ``max_bytes`` is the size of the largest bundle that is copied into the slot.
        """
        self.folder = Path(folder)
        self._allow_downgrade = allow_downgrade
        self._max_bytes = max_bytes
        self._opened: str | None = None
        self._problem: str | None = None

    @property
    def state(self) -> SlotState:
        """The bundles that are installed, and the result of the last ``open``; raises SlotError."""
        pointer = self._read()
        ids = (_id(pointer.current), _id(pointer.previous))
        return SlotState(*ids, self._opened, self._problem, pointer.highest)

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

        It is verified and selftested here, on ``device``, before the switch; whatever fails before
        it leaves the slot as it was, without the copy. The bundle that was current is kept as
        previous if it still passes its own selftest. A bundle without golden samples cannot be
        installed.

        Raises SlotError (another process installs; the folder cannot be written; the version is
        lower than one that was installed), and what Predictor and ``selftest`` raise of the bundle.
        """
        options = _Options.of(device, variant, threads, trusted_keys)
        with self._writing():
            (self.folder / "incoming").mkdir(exist_ok=True)
            aside, digest = self._copy(bundle)
            info = _try(aside, options)
            name = f"{info.bundle_id}-{digest[:16]}.zip"
            old = self._read_or_nothing()
            highest = self._highest(old)
            self._refuse_downgrade(
                str(info.model_version), highest, is_current=_id(name) == _id(old.current)
            )
            previous = self._last_good(old, name, options)
            with self._kept(aside, name):
                self._switch(_Pointer(name, previous, _higher(highest, str(info.model_version))))
            _log.info("%s: installed %s", self.folder, info.bundle_id)
            return str(info.bundle_id)

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
        options = _Options.of(device, variant, threads, trusted_keys)
        for _ in range(_TRIES):
            pointer = self._read()
            problems = []
            for name in pointer.names:
                try:
                    predictor = _tested(self.folder / "bundles" / name, options)
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
        options = _Options.of(device, variant, threads, trusted_keys)
        with self._writing():
            old = self._read()
            if old.previous is None:
                raise SlotError(f"the slot {self.folder} has no previous bundle to go back to.")
            bundle_id = str(_try(self.folder / "bundles" / old.previous, options).bundle_id)
            self._switch(_Pointer(old.previous, None, _higher(self._highest(old))))
            _log.info("%s: rolled back to %s", self.folder, bundle_id)
            return bundle_id

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """The lock of the slot; whatever cannot be written is a SlotError. At the end, whichever it
        is, what the pointer does not name is deleted."""
        before = self._pointer_bytes()
        try:
            (self.folder / "bundles").mkdir(parents=True, exist_ok=True)
            with (self.folder / "lock").open("a+b") as file:
                if not lock(file):
                    raise SlotError(
                        f"another process installs into the slot {self.folder}. Try again when "
                        "it is done."
                    )
                try:
                    yield
                finally:
                    self._tidy()
        except OSError as exc:
            let_through(exc)
            outcome = "the slot is as it was"
            if self._pointer_bytes() != before:
                outcome = "the switch was made, but may not outlive a power cut"
            raise SlotError(
                f"the slot {self.folder} cannot be written: {exc}. Check free space and "
                f"permissions; {outcome}."
            ) from exc

    def _tidy(self) -> None:
        """Delete copies of installs that did not end, and bundles that are not used any more. What
        cannot be deleted stays for the next time: on Windows, what a predictor has open."""
        names = None
        with contextlib.suppress(SlotError):  # damaged: any bundle may be the good one
            names = self._read().names
        left = [self.folder / f"{_POINTER_NAME}.new"]
        with contextlib.suppress(OSError):
            left += (self.folder / "incoming").iterdir()
        with contextlib.suppress(OSError):
            bundles = (self.folder / "bundles").iterdir()
            left += [path for path in bundles if names is not None and path.name not in names]
        for path in left:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _copy(self, bundle: str | os.PathLike[str] | bytes) -> tuple[Path, str]:
        """A copy in ``incoming/`` that is on the disk, and its sha256."""
        handle, name = tempfile.mkstemp(suffix=".zip", dir=self.folder / "incoming")
        digest = hashlib.sha256()
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks(bundle, self._max_bytes):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return Path(name), digest.hexdigest()

    @contextlib.contextmanager
    def _kept(self, aside: Path, name: str) -> Iterator[None]:
        """The bundle is in ``bundles/``, and stays there if the block switches to it."""
        target = self.folder / "bundles" / name
        is_new = not target.exists()
        aside.chmod(0o644)  # mkstemp's files are for their owner alone
        try:
            aside.replace(target)
            sync_folder(self.folder / "bundles")
            yield
        except BaseException:
            if is_new and name not in self._read_or_nothing().names:
                with contextlib.suppress(OSError):
                    target.unlink(missing_ok=True)
            raise

    def _highest(self, old: _Pointer) -> str | None:
        """The highest version that was installed here; where none is written down, as by an older
        runtime, or none can be read, that of the bundles that are here, or one that cannot be
        compared."""
        if old.highest is not None:
            return old.highest
        names = old.names
        if not names and (self.folder / _POINTER_NAME).exists():  # damaged
            files = (path.name for path in (self.folder / "bundles").iterdir())
            names = tuple(sorted(name for name in files if _FILE_NAME.fullmatch(name)))
        versions: list[str] = []
        for name in names:
            try:
                bundle = Bundle.open(self.folder / "bundles" / name)
            except BundleError:
                continue  # damaged: its version is unknown
            versions.append(bundle.manifest.model_version)
            bundle.close()
        return _higher(*versions) or next(iter(versions), None)

    def _refuse_downgrade(self, version: str, highest: str | None, *, is_current: bool) -> None:
        if self._allow_downgrade or is_current or highest is None or version == highest:
            return
        new, old = order(version), order(highest)
        on_purpose = (
            "To install it on purpose, give Slot(..., allow_downgrade=True), or --allow-downgrade "
            "at a prompt."
        )
        if new is None or old is None:
            raise SlotError(
                f"the bundle has the version {version!r}, which cannot be compared with "
                f"{highest!r}, the highest that was installed in {self.folder}; expected numbers "
                f"with dots, as in 1.2.0 or 1.3.0rc1, and not a lower one. {on_purpose}"
            )
        if new < old:
            raise SlotError(
                f"the bundle has the version {version!r}, lower than {highest!r}, which was "
                f"installed in {self.folder}; expected none that is older. {on_purpose}"
            )

    def _last_good(self, old: _Pointer, new: str, options: _Options) -> str | None:
        """The newest of the installed bundles that works, apart from the new one."""
        for name in old.names:
            if name == new:
                continue
            try:
                _try(self.folder / "bundles" / name, options)
            except PredictorError as exc:
                _log.warning("%s: %s is not kept: %s", self.folder, name[:12], exc)
            else:
                return name
        return None

    def _switch(self, pointer: _Pointer) -> None:
        """Write the pointer."""
        text = json.dumps({"format": _FORMAT, **asdict(pointer)}) + "\n"
        aside = self.folder / f"{_POINTER_NAME}.new"
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.folder / _POINTER_NAME)
        sync_folder(self.folder)

    def _pointer_bytes(self) -> bytes | None:
        """The pointer as it is on the disk; None where there is none."""
        try:
            return read_regular(self.folder / _POINTER_NAME, _MAX_POINTER_BYTES)
        except OSError as exc:
            let_through(exc)
            return None

    def _read(self) -> _Pointer:
        path = self.folder / _POINTER_NAME
        try:
            text = read_regular(path, _MAX_POINTER_BYTES)
        except FileNotFoundError:
            return _Pointer()
        except OSError as exc:
            let_through(exc)
            raise SlotError(f"{path} cannot be read: {exc}.") from exc
        try:
            data = strict_json.loads(text)
            if data["format"] != _FORMAT:
                raise ValueError(f"format {data['format']!r}; this runtime reads {_FORMAT}")
            pointer = _Pointer(data["current"], data["previous"], data.get("highest"))
            if not all(_FILE_NAME.fullmatch(name) for name in pointer.names):
                raise ValueError(f"not names of bundles: {pointer.names}")
            if pointer.highest is not None and order(pointer.highest) is None:
                raise ValueError(f"not a version: {pointer.highest!r}")
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
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


def _tested(path: Path, options: _Options) -> Predictor:
    """A predictor that has passed its selftest, of the bundle that the file's name says; raises
    PredictorError."""
    from .predictor import Predictor  # here: an app may look at a slot without onnxruntime

    predictor = Predictor(
        path, options.device, options.variant, options.threads, trusted_keys=options.trusted_keys
    )
    try:
        predictor.selftest()
        _check_name(path, str(predictor.info.bundle_id))
    except BaseException:
        predictor.close()
        raise
    return predictor


def _check_name(path: Path, bundle_id: str) -> None:
    """A file in ``bundles/`` is named after its bundle, one that comes in is not yet."""
    if _FILE_NAME.fullmatch(path.name) and bundle_id != _id(path.name):
        raise BundleIntegrityError(
            f"{path} holds the bundle {bundle_id}; expected that of its name. The file was "
            "exchanged. Install the bundle again."
        )


def _try(path: Path, options: _Options) -> PredictorInfo:
    """The report about a bundle that opens and passes its selftest; raises PredictorError."""
    with _tested(path, options) as predictor:
        return predictor.info


def _higher(*versions: str | None) -> str | None:
    """The highest version; one that cannot be compared, or is too long, counts for none."""
    ordered = [
        (key, text)
        for text in versions
        if text is not None and len(text) <= _MAX_VERSION_LETTERS and (key := order(text))
    ]
    return max(ordered, key=lambda row: row[0])[1] if ordered else None


def _id(name: str | None) -> str | None:
    return None if name is None else name[:64]
