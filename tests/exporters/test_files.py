import errno
import os
import stat
from pathlib import Path

import pytest
from full_disk import full_disk

from exporters.files import atomic_file, atomic_folder, write_bytes, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    write_text(tmp_path / "a", "Grüße\n")
    assert (tmp_path / "a").read_bytes() == "Grüße\n".encode()
    assert mode(tmp_path / "a") == mode(tmp_path / "other")
    assert names(tmp_path) == ["a", "other"]


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"old")
    file.chmod(0o600)
    write_bytes(file, b"new")
    assert file.read_bytes() == b"new" and mode(file) == 0o600


def test_what_a_kill_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.partial").write_bytes(b"a longer rest than the new content")
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new" and names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_keeps_the_old_file(error: type[BaseException], tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"old")
    with pytest.raises(error), atomic_file(file) as partial:
        partial.write_bytes(b"new")
        assert partial.parent == tmp_path and file.read_bytes() == b"old"
        raise error
    assert file.read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_a_full_disk_names_the_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"old")
    with pytest.raises(OSError) as caught, full_disk():
        write_bytes(file, bytes(5000))
    assert caught.value.filename == str(file) and caught.value.errno == errno.EFBIG
    assert file.read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_a_missing_folder_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_bytes(tmp_path / "none" / "a", b"new")
    assert caught.value.filename == str(tmp_path / "none" / "a")


def test_another_file_s_error_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_file(tmp_path / "a") as partial:
        partial.write_bytes((tmp_path / "source").read_bytes())
    assert caught.value.filename == str(tmp_path / "source")


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    flush, replace = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        flush(handle)

    def rename(path: Path, target: Path) -> Path:
        events.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    write_bytes(tmp_path / "a", b"new")
    assert events == ["file", "rename", "folder"]
    events.clear()
    with atomic_folder(tmp_path / "folder") as new:
        (new / "a").write_bytes(b"new")
    assert events == ["file", "folder", "rename", "folder"]


def test_a_folder_replaces_the_old_one(tmp_path: Path) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    other.mkdir()
    for content in ("first", "second"):
        with atomic_folder(folder) as new:
            (new / "inner").mkdir()
            (new / "inner" / content).write_text(content)
            before = names(folder / "inner") if folder.exists() else None
    assert before == ["first"]  # until the second one was complete
    assert names(folder / "inner") == ["second"] and mode(folder) == mode(other)
    assert names(tmp_path) == ["folder", "other"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_keeps_the_old_folder(error: type[BaseException], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").write_bytes(b"old")
    with pytest.raises(error), atomic_folder(folder) as new:
        (new / "new").write_bytes(b"new")
        raise error
    assert names(folder) == ["old"] and names(tmp_path) == ["folder"]


def test_a_folder_that_cannot_take_its_name_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, replace = tmp_path / "folder", Path.replace
    folder.mkdir()
    (folder / "old").write_bytes(b"old")

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError), atomic_folder(folder):
        pass
    assert names(folder) == ["old"] and names(tmp_path) == ["folder"]
