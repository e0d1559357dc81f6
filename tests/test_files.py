"""A file is complete or not written, and what is not a JSON object is one line of error.

Run: pytest tests/test_files.py
"""

import errno
import os
import stat
from pathlib import Path

import pytest

from minibert.errors import InputError
from minibert.files import (
    JSON_LIMIT,
    is_same_file,
    lock,
    model_file,
    new_folder,
    parse_json,
    read_json,
    write_atomic,
    write_json,
    write_text,
)


def half_then(error: Exception):
    """A writer that fails in the middle."""

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    return write


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError("bug"), KeyError()])
def test_a_writer_that_fails_leaves_only_the_old_file(tmp_path, error):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(InputError if isinstance(error, OSError) else type(error)):
        write_atomic(file, half_then(error))
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_interrupted_writer_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a.txt", half_then(KeyboardInterrupt()))
    assert os.listdir(tmp_path) == []


def test_the_error_for_a_full_disk_names_the_file_and_the_reason(tmp_path):
    with pytest.raises(InputError, match=r"a.txt: cannot be written \(No space left\)"):
        write_atomic(tmp_path / "a.txt", half_then(OSError(28, "No space left")))


def test_the_error_for_a_missing_folder_names_the_file_and_the_reason(tmp_path):
    with pytest.raises(InputError, match=r"a.txt: cannot be written \(No such file or directory\)"):
        write_text(tmp_path / "no" / "a.txt", "x")


def test_the_new_text_replaces_the_old_and_keeps_its_bytes(tmp_path):
    write_text(tmp_path / "a.txt", "an old and longer text")
    write_text(tmp_path / "a.txt", "é\r\n\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9\r\n\n"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError("bug"), KeyError()])
def test_a_folder_is_filled_before_it_gets_its_name_or_is_not_there(tmp_path, error):
    (tmp_path / ".new.new").mkdir()  # left by a killed process
    (tmp_path / ".new.new" / "old").touch()
    with (
        pytest.raises(InputError if isinstance(error, OSError) else type(error)),
        new_folder(tmp_path / "new") as folder,
    ):
        (folder / "half").touch()
        assert not (tmp_path / "new").exists()
        raise error
    assert os.listdir(tmp_path) == []
    (tmp_path / "new").mkdir()
    with new_folder(tmp_path / "new") as folder:
        (folder / "whole").touch()
    assert [os.listdir(tmp_path), os.listdir(tmp_path / "new")] == [["new"], ["whole"]]


def test_a_folder_or_file_that_exists_is_kept(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(InputError, match="exists; give a new folder"), new_folder(path):
            pass
    with (
        pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"),
        new_folder(tmp_path / "file" / "new"),
    ):
        pass
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_permissions_of_a_file_follow_the_umask(tmp_path, umask, mode):
    def private(temporary: Path) -> None:  # as safetensors writes
        temporary.write_text("x")
        temporary.chmod(0o600)

    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "a.bin", private)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == mode


def test_a_temporary_file_of_a_killed_process_is_removed_first(tmp_path):
    """Neither its permissions are kept nor, if it is a link, its target overwritten."""
    left, other = tmp_path / ".a.txt.new", tmp_path / "other"
    left.write_text("half")
    left.chmod(0o600)
    write_text(tmp_path / "a.txt", "whole")
    (tmp_path / "b").touch()
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b").stat().st_mode
    other.write_text("kept")
    left.symlink_to(other)
    write_text(tmp_path / "a.txt", "new")
    assert other.read_text() == "kept" and (tmp_path / "a.txt").read_text() == "new"


def test_a_folder_that_cannot_be_synced_is_not_an_error(tmp_path, monkeypatch):
    original = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a.txt", "whole")
    assert (tmp_path / "a.txt").read_text() == "whole"


@pytest.mark.skipif(os.name != "posix", reason="no such locks on this system")
def test_one_process_holds_a_lock_and_without_locks_all_do(tmp_path, monkeypatch):
    import fcntl

    path = tmp_path / "lock"
    with open(path, "w") as first, open(path) as second:
        assert lock(first) and not lock(second)
        assert is_same_file(first, path)
        path.rename(tmp_path / "moved")
        assert not is_same_file(first, path)
        path.touch()
        assert not is_same_file(first, path)

    def without_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without_locks)
    with open(path) as file:
        assert lock(file)


def test_json_is_read_as_written_and_is_readable(tmp_path):
    data = {"name": "brûlée", "sizes": [1, 2.5, None]}
    write_json(tmp_path / "a.json", data)
    assert read_json(tmp_path / "a.json") == data
    assert "brûlée" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"a": ', "is not JSON"),
        (b"", "is not JSON"),
        (b'{"a": "\xe8"}', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1]", "holds a list, not a JSON object"),
        (b"null", "holds a NoneType, not a JSON object"),
        (b'{"a": {"b": 1, "b": 1}}', "is not JSON .an object has a key twice"),
        (b'{"a": "%s"}' % (b"x" * JSON_LIMIT), "is larger than 16 MB"),
    ],
)
def test_what_is_not_a_json_object_is_refused(tmp_path, content, problem):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=f"a.json: {problem}"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("objects", [False, True])
def test_json_over_100_levels_deep_is_refused(objects):
    before, after = (b'{"a":', b"}") if objects else (b"[", b"]")
    assert parse_json(before * 100 + b"1" + after * 100)
    for depth in (101, 950, 5000):
        with pytest.raises((ValueError, RecursionError), match=r"is nested over 100|recursion"):
            parse_json(before * depth + b"1" + after * depth)


def test_nan_is_not_written_as_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_links_in_a_model_folder_may_lead_into_it_or_the_hubs_cache_but_not_elsewhere(tmp_path):
    folder = tmp_path / "models--a--b" / "snapshots" / "0f3c"
    blobs = tmp_path / "models--a--b" / "blobs"
    folder.mkdir(parents=True)
    for place in (tmp_path / "disk", tmp_path / "models--c--d" / "blobs"):
        place.mkdir(parents=True)
        (place / "5e9a").write_text("{}")
    blobs.symlink_to(tmp_path / "disk")  # a cache whose files are on another disk
    (folder / "vocab.txt").symlink_to("../../blobs/5e9a")
    (folder / "same.txt").symlink_to("vocab.txt")
    (folder / "other.txt").symlink_to("../../../models--c--d/blobs/5e9a")
    (folder / "gone.txt").symlink_to("../../blobs/gone")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (tmp_path / "link").symlink_to(folder)
    for name in ("vocab.txt", "same.txt"):
        assert model_file(folder, name) == folder / name
        assert model_file(tmp_path / "link", name) == tmp_path / "link" / name
    for name in ("gone.txt", "folder", "pipe", "x" * 300, "a\0b"):
        assert model_file(folder, name) is None
    with pytest.raises(InputError, match=r"other\.txt: is a link to a file outside its folder"):
        model_file(folder, "other.txt")
    elsewhere = tmp_path / "models--a--b" / "mine" / "0f3c"  # not a snapshot: it has no blobs
    elsewhere.mkdir(parents=True)
    (elsewhere / "vocab.txt").symlink_to("../../blobs/5e9a")
    with pytest.raises(InputError, match="is a link to a file outside its folder"):
        model_file(elsewhere, "vocab.txt")


def test_an_error_is_one_line_with_control_characters_escaped():
    said = str(InputError("a\nb\x1b[2J\x9b\u202e" + "long" * 1000))
    assert said.startswith(r"a\nb\x1b[2J\x9b\u202elong") and len(said) == 1000


def test_the_error_for_a_missing_json_file_names_it(tmp_path):
    with pytest.raises(InputError, match=r"a.json: cannot be read \(No such file or directory\)"):
        read_json(tmp_path / "a.json")


def test_a_pipe_is_not_replaced_and_a_link_stays_while_its_target_is_replaced(tmp_path):
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="pipe: is not a regular file"):
        write_text(pipe, "x")
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink() and target.read_text() == "new"
