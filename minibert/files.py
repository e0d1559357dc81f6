"""Atomic writes (a temporary file, synced, then renamed), locks, a model folder's files, JSON."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from minibert.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

JSON_LIMIT = 16 * 2**20  # bytes; parsed JSON takes many times its size, and no real file is larger
NESTING_LIMIT = 100  # levels; Python's own limit differs by version, and for reading and writing

# The files of a model folder. Of the four forms of weights the first that exists is read. A form is
# one file, or an index and the pattern of its shards.
WEIGHT_FILES = (
    ("model.safetensors",),
    ("model.safetensors.index.json", "model-*.safetensors"),
    ("pytorch_model.bin",),
    ("pytorch_model.bin.index.json", "pytorch_model-*.bin"),
)
SMALL_FILES = (
    *("config.json", "tokenizer.json", "tokenizer_config.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json"),
)

# Files that only some saved classifiers have. They are removed when another one takes the folder.
OPTIONAL_FILES = ("vocab.txt", "modules.json", "1_Pooling/config.json")


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, then rename that file to `path`.

    Raises InputError if the file cannot be written; the old file is then unchanged.
    """
    path = Path(os.path.realpath(path))  # replaces the target of a link, not the link
    check_replaceable(path)
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)  # left by a killed process, with its permissions
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        write(temporary)
        os.chmod(temporary, mode)  # safetensors writes files that only their owner can read
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path}: cannot be written ({reason}); the old file is unchanged"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`, to be filled, which then becomes `path`.

    Raises InputError if `path` is not new or empty, or cannot be made. After any error nothing of
    the folder is left.
    """
    path = Path(os.path.realpath(path))
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise InputError(f"{path}: exists; give a new folder")
    temporary = path.with_name(f".{path.name}.new")
    try:
        if temporary.exists():  # left by a killed process
            shutil.rmtree(temporary)
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sync_folder(path.parent)


@contextmanager
def replace_model(folder: Path) -> Iterator[Path]:
    """Yield an empty folder, to be filled with a model, whose files then replace those of `folder`.

    Old and new files are never read together: `folder` is unchanged until all new files are
    written, and has no config.json until all are in place. Raises InputError if it cannot be
    written.
    """
    complete = folder / ".complete"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(complete, ignore_errors=True)  # left by a killed process
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror})") from None
    with new_folder(complete) as temporary:
        yield temporary
    config = complete / "config.json"
    files = [file for file in complete.rglob("*") if file.is_file() and file != config]
    places = {file: folder / file.relative_to(complete) for file in (*files, config)}
    for place in places.values():
        check_replaceable(place)
    try:
        for name in ("config.json", *OPTIONAL_FILES):
            (folder / name).unlink(missing_ok=True)
        for file, place in places.items():
            place.parent.mkdir(exist_ok=True)
            os.replace(file, place)
        shutil.rmtree(complete)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from None
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Sync a folder, so that a power cut after this call does not undo the renaming."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # some network file systems sync files but not folders
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def open_without_links(name: str, flags: int) -> int:
    """Open or create a file, as an `opener` for `open`. Raises OSError for a symbolic link."""
    return os.open(name, flags | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)


def lock(file: IO[Any]) -> bool:
    """Lock an open file until it is closed. Returns False if another process has locked it.

    On systems without locks (Windows, some network file systems) it returns True.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                raise
    return True


def is_same_file(file: IO[Any], path: Path) -> bool:
    """Return whether an open file is still the one at `path`; another process may have moved it."""
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path))


def check_replaceable(path: Path) -> None:
    """Raise InputError if `path` is a pipe, a device or a folder, which a file must not replace."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a regular file; give another name")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomic(path, lambda temporary: _write_utf8(temporary, text))


def write_json(path: Path, data: Any) -> None:
    """Write readable JSON atomically."""
    write_text(path, json_text(data, indent=2) + "\n")


def json_text(data: Any, indent: int | None = None) -> str:
    """Return strict JSON. Raises ValueError for NaN and infinity, which JSON does not have."""
    return json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False)


def model_file(folder: Path, name: str) -> Path | None:
    """Return the path of a model folder's file, or None if the folder does not have it.

    Raises InputError for a link to a file outside the folder: a downloaded folder must not make
    minibert read and copy its user's files. Links from the hub's snapshots to its blobs are fine.
    """
    path, root = folder / name, folder.resolve()
    if not os.path.isfile(path):
        return None
    allowed = [root]
    if root.parent.name == "snapshots":
        allowed.append((root.parent.parent / "blobs").resolve())
    if not any(path.resolve().is_relative_to(place) for place in allowed):
        raise InputError(f"{path}: is a link to a file outside its folder; replace it by the file")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object. Raises InputError for any other content."""
    try:
        with open(path, "rb") as file:
            content = file.read(JSON_LIMIT + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > JSON_LIMIT:
        raise InputError(
            f"{path}: is larger than {JSON_LIMIT >> 20} MB; restore it or fetch it again"
        )
    try:
        data = parse_json(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error}); restore it or fetch it again") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds a {type(data).__name__}, not a JSON object")
    return data


def parse_json(content: bytes) -> Any:
    """Parse UTF-8 JSON. Raises ValueError or RecursionError, also for a repeated key."""
    data = json.loads(content.decode("utf-8"), object_pairs_hook=_object)
    if is_deeply_nested(data):
        raise ValueError(f"is nested over {NESTING_LIMIT} levels deep")
    return data


def is_deeply_nested(value: Any) -> bool:
    """Return whether over NESTING_LIMIT arrays and objects of parsed JSON are inside each other."""
    level = [value]
    for _ in range(NESTING_LIMIT + 1):
        level = [x for x in level if isinstance(x, dict | list)]
        if not level:
            return False
        level = [y for x in level for y in (x.values() if isinstance(x, dict) else x)]
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        raise ValueError("an object has a key twice")
    return data


def _write_utf8(path: Path, text: str) -> None:
    # A file name that is not UTF-8 is written as an escape, which JSON reads back.
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
