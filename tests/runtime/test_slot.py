"""A slot keeps a bundle that works, whatever is installed and whenever the process dies."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime
from runtime import (
    Bundle,
    BundleFormatError,
    BundleIntegrityError,
    InputError,
    SelftestError,
    SignatureError,
    Slot,
    SlotError,
    SlotState,
)
from runtime.__main__ import main
from runtime.slot_files import chunks
from runtime.versions import order

PIXELS = np.zeros((1, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def versions(build: Any) -> list[bytes]:
    """Three bundles that differ in their model_version, and so in their id."""

    def version(number: int) -> bytes:
        return build.bundle(edit=lambda m: m.update(model_version=f"{number}.0.0"))  # type: ignore[no-any-return]

    return [version(number) for number in range(1, 4)]


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    return Slot(tmp_path / "slot")


def ids(versions: list[bytes]) -> list[str]:
    return [str(Bundle.open(data).id) for data in versions]


def files(slot: Slot) -> list[str]:
    return sorted(path.name[:64] for path in (slot.folder / "bundles").iterdir())


def damage(slot: Slot, bundle_id: str | None) -> None:
    assert bundle_id
    (path,) = (slot.folder / "bundles").glob(f"{bundle_id}-*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def test_an_empty_slot_says_so(slot: Slot) -> None:
    assert slot.state == SlotState(None, None)
    with pytest.raises(SlotError, match=r"is empty\. Install a bundle first"):
        slot.open()
    with pytest.raises(SlotError, match="has no previous bundle"):
        slot.rollback()


def test_two_bundles_are_kept_and_older_ones_deleted(
    slot: Slot, versions: list[bytes], tmp_path: Path
) -> None:
    one, two, three = ids(versions)
    (tmp_path / "one.zip").write_bytes(versions[0])
    assert slot.install(tmp_path / "one.zip", device="cpu") == one
    assert slot.install(versions[1], device="cpu") == two
    assert slot.state == SlotState(two, one)
    assert slot.install(versions[2], device="cpu") == three
    assert slot.state == SlotState(three, two)
    assert files(slot) == sorted([two, three])
    assert not list((slot.folder / "incoming").iterdir())
    with slot.open("cpu") as p:
        assert (p.info.bundle_id, p.info.model_version) == (three, "3.0.0")
        assert slot.state == SlotState(three, two, opened=three)


def test_installing_the_same_again_keeps_the_previous(slot: Slot, versions: list[bytes]) -> None:
    one, two, _ = ids(versions)
    for data in (versions[0], versions[1], versions[1], versions[1]):
        slot.install(data, device="cpu")
    assert slot.state == SlotState(two, one)
    Slot(slot.folder, allow_downgrade=True).install(versions[0], device="cpu")
    assert slot.state == SlotState(one, two)


def test_a_running_predictor_finishes_on_the_old_one(slot: Slot, versions: list[bytes]) -> None:
    slot.install(versions[0], device="cpu")
    with slot.open("cpu") as old:
        expected = old(PIXELS)
        slot.install(versions[1], device="cpu")
        slot.install(versions[2], device="cpu")  # deletes the first
        assert ids(versions)[0] not in files(slot)
        assert np.array_equal(old(PIXELS), expected)
        old.selftest()  # reads every member again
        assert old.info.model_version == "1.0.0"


def broken(build: Any, versions: list[bytes]) -> dict[str, tuple[bytes, type[Exception], str]]:
    return {
        "no bundle": (b"junk", BundleFormatError, "zip file"),
        "truncated": (versions[1][:-9], BundleFormatError, "truncated"),
        "other answers": (build.bundle(error=0.5), SelftestError, "differs from its golden"),
        "no golden samples": (
            build.bundle(
                pack=lambda m: m.pop("golden.npz"), edit=lambda d: d["files"].pop("golden.npz")
            ),
            SelftestError,
            "golden.* is missing",
        ),
        "altered": (
            build.bundle(pack=lambda m: m.update({"measurements.json": b"[]"})),
            BundleIntegrityError,
            "sha256",
        ),
    }


def test_what_does_not_work_is_not_installed(
    slot: Slot, build: Any, versions: list[bytes], tmp_path: Path
) -> None:
    slot.install(versions[0], device="cpu")
    before = slot.state
    for name, (data, error, message) in broken(build, versions).items():
        with pytest.raises(error, match=message):
            slot.install(data, device="cpu")
        assert slot.state == before, name
        assert files(slot) == [before.current]
        assert not list((slot.folder / "incoming").iterdir())
    with pytest.raises(BundleFormatError, match="cannot be opened"):
        slot.install(tmp_path / "nowhere.zip")
    with pytest.raises(InputError, match="threads=0"):
        slot.install(versions[1], device="cpu", threads=0)


def test_keys_hold_for_installing_and_opening(slot: Slot, versions: list[bytes]) -> None:
    key = "ed25519:" + "A" * 43 + "="
    with pytest.raises(SignatureError, match="is not signed"):
        slot.install(versions[0], iter([key]), device="cpu")
    assert slot.state == SlotState(None, None)
    slot.install(versions[0], device="cpu")
    with pytest.raises(SlotError, match=r"holds no bundle that works.*is not signed"):
        slot.open("cpu", trusted_keys=iter([key]))
    with pytest.raises(InputError, match="expected a list of keys"):
        slot.open("cpu", trusted_keys=key)


def test_a_damaged_current_gives_way_to_the_previous(
    slot: Slot, versions: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    one, two, three = ids(versions)
    slot.install(versions[0], device="cpu")
    slot.install(versions[1], device="cpu")
    damage(slot, two)
    with caplog.at_level(logging.WARNING), slot.open("cpu") as p:
        assert p.info.bundle_id == one
    assert f"{two[:12]} does not work" in caplog.text
    state = slot.state
    assert (state.current, state.previous, state.opened) == (two, one, one)
    assert state.problem and "damaged" in state.problem
    slot.install(versions[2], device="cpu")  # the last good one is kept, not the damaged one
    assert slot.state == SlotState(three, one, one, state.problem)
    damage(slot, one)
    damage(slot, three)
    with pytest.raises(SlotError, match=f"no bundle that works: {three[:12]}.*{one[:12]}"):
        slot.open("cpu")
    Slot(slot.folder, allow_downgrade=True).install(versions[1], device="cpu")
    assert slot.state.current == two and slot.state.previous is None


def test_a_current_that_answers_otherwise_gives_way(
    slot: Slot, build: Any, versions: list[bytes]
) -> None:
    """As after an update of onnxruntime: it was sound when it was installed."""
    slot.install(versions[0], device="cpu")
    slot.install(versions[1], device="cpu")
    (path,) = (slot.folder / "bundles").glob(f"{ids(versions)[1]}-*")
    path.write_bytes(build.bundle(error=0.5))
    with slot.open("cpu") as p:
        assert p.info.model_version == "1.0.0"
    assert "differs from its golden" in str(slot.state.problem)


def test_rollback_is_for_good(slot: Slot, versions: list[bytes]) -> None:
    one, two, _ = ids(versions)
    slot.install(versions[0], device="cpu")
    slot.install(versions[1], device="cpu")
    assert slot.rollback(device="cpu") == one
    assert slot.state == SlotState(one, None) and files(slot) == [one]
    with pytest.raises(SlotError, match="no previous bundle"):
        slot.rollback()
    slot.install(versions[1], device="cpu")
    damage(slot, one)
    with pytest.raises(BundleIntegrityError):
        slot.rollback(device="cpu")
    assert slot.state == SlotState(two, one)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\xff", b"[]", b"{}", b'{"format": 2}', b'{"format": 1, "current": "../x.zip"}',
        b'{"format": 1, "current": {}, "previous": null}',
        b'{"format": 1, "current": "", "previous": null}',
        b'{"format": 1, "current": 0, "previous": null}',
    ],
)  # fmt: skip
def test_a_damaged_pointer_is_reported_and_replaced(
    slot: Slot, versions: list[bytes], text: bytes
) -> None:
    slot.install(versions[0], device="cpu")
    (slot.folder / "current").write_bytes(text)
    with pytest.raises(SlotError, match=r"current is damaged .*Install a bundle again"):
        slot.open("cpu")
    slot.install(versions[0], device="cpu")
    slot.open("cpu").close()


def test_a_damaged_pointer_does_not_let_an_older_version_in(
    slot: Slot, versions: list[bytes]
) -> None:
    slot.install(versions[1], device="cpu")
    for text in (b"{", b"x" * 5000):
        (slot.folder / "current").write_bytes(text)
        with pytest.raises(SlotError, match=r"lower than"):
            slot.install(versions[0], device="cpu")
    slot.install(versions[2], device="cpu")
    (slot.folder / "current").write_bytes(b"{")
    Slot(slot.folder, allow_downgrade=True).install(versions[0], device="cpu")


def test_a_pointer_leads_nowhere_else(slot: Slot, versions: list[bytes]) -> None:
    slot.install(versions[0], device="cpu")
    pointer = {"format": 1, "current": f"../{'0' * 64}-{'0' * 16}.zip", "previous": None}
    (slot.folder / "current").write_text(json.dumps(pointer))
    with pytest.raises(SlotError, match="not names of bundles"):
        slot.open("cpu")


def test_two_installers_exclude_each_other(slot: Slot, versions: list[bytes]) -> None:
    with slot._writing():
        with pytest.raises(SlotError, match="another process installs into the slot"):
            Slot(slot.folder).install(versions[0], device="cpu")
        code = "import sys, runtime; runtime.Slot(sys.argv[1]).install(sys.argv[2])"
        done = subprocess.run(
            [sys.executable, "-c", code, str(slot.folder), "x.zip"],
            cwd=Path(runtime.__file__).parents[1],
            capture_output=True,
            text=True,
        )
        assert "SlotError: another process installs" in done.stderr
    slot.install(versions[0], device="cpu")


def test_readers_and_an_installer_at_once(slot: Slot, versions: list[bytes]) -> None:
    """Whoever opens while bundles come and go finds one that works."""
    slot.install(versions[0], device="cpu", threads=1)
    errors: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                with Slot(slot.folder).open("cpu", threads=1) as p:
                    p(PIXELS)
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(15):
        Slot(slot.folder, allow_downgrade=True).install(versions[i % 3], device="cpu", threads=1)
    done.set()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]


def clean(slot: Slot, before: SlotState) -> bool:
    """Whether the slot is as it was, and nothing of an install is left."""
    aside = [path.name for path in slot.folder.glob("incoming/*")]
    bundles = sorted(filter(None, (before.current, before.previous)))
    return (
        slot.state == before
        and files(slot) == bundles
        and not aside
        and not (slot.folder / "current.new").exists()
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="not run: there are no pipes and devices")
def test_only_files_are_copied_and_none_that_is_too_large(
    slot: Slot, versions: list[bytes], tmp_path: Path
) -> None:
    slot.install(versions[0], device="cpu")
    before = slot.state
    os.mkfifo(tmp_path / "pipe.zip")
    small = Slot(slot.folder, max_bytes=len(versions[1]) - 1)
    (tmp_path / "large.zip").write_bytes(versions[1])
    for source, message, where in (
        (tmp_path / "pipe.zip", "it is a pipe; expected a file", slot),
        ("/dev/zero", "it is a device; expected a file", slot),
        (tmp_path, "it is a directory; expected a file", slot),
        (tmp_path / "large.zip", "expected at most .*max_bytes", small),
        (versions[1], "expected at most .*max_bytes", small),
    ):
        with pytest.raises(BundleFormatError, match=message):
            where.install(source, device="cpu")
        assert clean(slot, before)


def test_a_file_that_grows_while_it_is_copied_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "growing.zip"
    file.write_bytes(bytes(3 << 20))
    copying = chunks(file, 3 << 20)
    assert len(next(copying)) == 1 << 20
    with file.open("ab") as more:
        more.write(b"x")
    with pytest.raises(BundleFormatError, match=r"has 3,145,729 bytes or more"):
        list(copying)


class _Interrupt(BaseException):
    """As Ctrl-C, at a place that a test chooses."""


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), _Interrupt()])
@pytest.mark.parametrize("call", range(5))
def test_a_failure_leaves_nothing_behind_and_is_reported(
    error: BaseException,
    call: int,
    slot: Slot,
    versions: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each flush to the disk of an install fails once: of the copy, of the folder of bundles, of
    the pointer, of the slot's folder, which comes after the switch; and the last never comes."""
    one, two, _ = ids(versions)
    slot.install(versions[0], device="cpu")
    before, calls, sync = slot.state, iter(range(9)), os.fsync

    def failing(handle: int) -> None:
        if next(calls) == call:
            raise error
        sync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    try:
        slot.install(versions[1], device="cpu")
    except SlotError as exc:
        switched = call == 3
        assert ("the slot is as it was" in str(exc)) is not switched
        assert ("the switch was made" in str(exc)) is switched
        assert clean(slot, SlotState(two, one) if switched else before)
    except _Interrupt:
        assert clean(slot, SlotState(two, one) if call == 3 else before)
    else:
        assert call == 4 and clean(slot, SlotState(two, one))


def test_a_failure_with_a_damaged_pointer_leaves_no_copy(
    slot: Slot, versions: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    slot.install(versions[0], device="cpu")
    (slot.folder / "current").write_bytes(b"?")

    def failing(self: Slot, pointer: object) -> None:
        raise _Interrupt

    monkeypatch.setattr(Slot, "_switch", failing)
    with pytest.raises(_Interrupt):
        slot.install(versions[1], device="cpu")
    assert files(slot) == [ids(versions)[0]]


def test_a_bundle_in_another_one_s_file_is_passed_over(
    slot: Slot, versions: list[bytes], tmp_path: Path
) -> None:
    """Both are sound; who may write there replaces the new one by an old one."""
    one, two, three = ids(versions)
    slot.install(versions[0], device="cpu")
    slot.install(versions[1], device="cpu")
    (path,) = (slot.folder / "bundles").glob(f"{two}-*")
    path.write_bytes(versions[2])
    with slot.open("cpu") as p:
        assert p.info.bundle_id == one
    assert f"holds the bundle {three}" in str(slot.state.problem)
    (path,) = (slot.folder / "bundles").glob(f"{one}-*")
    path.write_bytes(versions[2])
    with pytest.raises(BundleIntegrityError, match="expected that of its name"):
        slot.rollback(device="cpu")


# --- versions -----------------------------------------------------------------------------------


def test_an_older_version_is_installed_on_purpose_only(slot: Slot, versions: list[bytes]) -> None:
    one = ids(versions)[0]
    slot.install(versions[2], device="cpu")
    before = slot.state
    assert before.highest == "3.0.0"
    with pytest.raises(SlotError, match=r"'1\.0\.0', lower than '3\.0\.0'.*allow_downgrade=True"):
        slot.install(versions[0], device="cpu")
    assert clean(slot, before)
    on_purpose = Slot(slot.folder, allow_downgrade=True)
    on_purpose.install(versions[0], device="cpu")
    assert (slot.state.current, slot.state.highest) == (one, "3.0.0")
    slot.install(versions[0], device="cpu")  # it is there already
    with pytest.raises(SlotError, match=r"'2\.0\.0', lower than '3\.0\.0'"):
        slot.install(versions[1], device="cpu")
    slot.install(versions[2], device="cpu")
    assert slot.rollback(device="cpu") == one and slot.state.highest == "3.0.0"


def test_a_slot_of_an_older_runtime_knows_its_versions_by_its_bundles(
    slot: Slot, versions: list[bytes]
) -> None:
    slot.install(versions[0], device="cpu")
    slot.install(versions[1], device="cpu")
    pointer = json.loads((slot.folder / "current").read_text())
    assert pointer.pop("highest") == "2.0.0"
    (slot.folder / "current").write_text(json.dumps(pointer))
    slot.open("cpu").close()
    assert slot.state.highest is None
    with pytest.raises(SlotError, match=r"'1\.0\.0', lower than '2\.0\.0'"):
        slot.install(versions[0], device="cpu")
    slot.install(versions[2], device="cpu")
    assert slot.state.highest == "3.0.0"


def test_versions_that_cannot_be_compared_are_refused(
    slot: Slot, versions: list[bytes], build: Any
) -> None:
    def named(version: str) -> bytes:
        return build.bundle(edit=lambda m: m.update(model_version=version))  # type: ignore[no-any-return]

    slot.install(named("blue"), device="cpu")
    assert slot.state.highest is None
    slot.install(named("blue"), device="cpu")
    for data, version in ((named("green"), "green"), (versions[0], r"1\.0\.0")):
        with pytest.raises(SlotError, match=f"{version}', which cannot be compared with 'blue'"):
            slot.install(data, device="cpu")
    on_purpose = Slot(slot.folder, allow_downgrade=True)
    on_purpose.install(versions[0], device="cpu")
    with pytest.raises(SlotError, match=r"'blue', which cannot be compared with '1\.0\.0'"):
        slot.install(named("blue"), device="cpu")
    on_purpose.install(named("9" * 18 + ".1" * 9), device="cpu")
    on_purpose.install(named("1." * 100_000), device="cpu")  # the pointer stays small
    assert slot.state.highest == "9" * 18 + ".1" * 9
    slot.open("cpu").close()


RISING = (
    "0.9", "1.0.dev2", "1.0a1", "1.0-alpha.2", "1.0.0-beta", "1.0b1", "1.0rc1", "1.0-rc.2", "v1",
    "1.0.post1", "1.0.1", "1.2", "1.10", "2", "20240501", "20241130.2",
)  # fmt: skip


def test_versions_rise_as_pep_440_and_semver_say() -> None:
    keys = [order(version) for version in RISING]
    assert None not in keys and keys == sorted(keys) and len(set(keys)) == len(keys)  # type: ignore[type-var]
    for same in (("1", "1.0.0"), ("1.0rc1", "v1.0-RC.1"), ("1.0", "1.0+build.7"), ("1a", "1a0")):
        assert order(same[0]) == order(same[1])
    for none in ("", "blue", "1.", "1..2", "2024-05-01", "1.0\n", "\u0661", "9" * 19, "1.0-x"):
        assert order(none) is None, none


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="not run: root writes all")
def test_a_folder_that_cannot_be_written_is_reported(slot: Slot, versions: list[bytes]) -> None:
    slot.install(versions[0], device="cpu")
    slot.folder.chmod(0o500)
    try:
        with pytest.raises(SlotError, match="cannot be written"):
            slot.install(versions[1], device="cpu")
        slot.open("cpu").close()
    finally:
        slot.folder.chmod(0o700)


def test_a_file_in_the_place_of_a_slot_is_reported(tmp_path: Path, versions: list[bytes]) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SlotError, match="cannot be written"):
        Slot(tmp_path / "file").install(versions[0])


def test_the_commands(
    tmp_path: Path, versions: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, bundle = str(tmp_path / "slot"), tmp_path / "bundle.zip"
    one, two, _ = ids(versions)
    for data, expected in ((versions[0], one), (versions[1], two)):
        bundle.write_bytes(data)
        assert main(["install", folder, str(bundle), "--device", "cpu"]) == 0
        assert capsys.readouterr().out == f"{folder}: installed {expected}\n"
    assert main(["slot", folder, "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert (state["current"], state["previous"]) == (two, one)
    assert main(["rollback", folder, "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out) == {"bundle_id": one}
    assert main(["slot", folder]) == 0
    assert capsys.readouterr().out == f"{'current':13} {one}\n{'previous':13} None\n"
    assert main(["install", folder, str(bundle), "--device", "cpu"]) == 0
    bundle.write_bytes(versions[0])
    capsys.readouterr()
    assert main(["install", folder, str(bundle), "--device", "cpu"]) == 1
    assert "--allow-downgrade" in capsys.readouterr().err
    assert main(["install", folder, str(bundle), "--device", "cpu", "--allow-downgrade"]) == 0
    assert main(["rollback", folder]) == 0
    assert main(["rollback", folder]) == 1
    assert "has no previous bundle" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not run: there is no fork")
@pytest.mark.parametrize("count", [10, pytest.param(200, marks=pytest.mark.full)])
def test_a_death_at_any_moment_leaves_a_slot_that_works(
    count: int, versions: list[bytes], tmp_path: Path
) -> None:
    for name, data in zip(("a.zip", "b.zip"), versions, strict=False):
        (tmp_path / name).write_bytes(data)
    script = Path(__file__).with_name("slot_kills.py")
    words = [str(tmp_path / name) for name in ("slot", "a.zip", "b.zip")]
    done = subprocess.run(
        [sys.executable, str(script), *words, str(count), "1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(runtime.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["unusable"] == [] and found["kills"] == count
    assert found["states"] > 1  # not all at the same step
    assert found["left"] <= 2
