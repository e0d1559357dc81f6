"""Files that are complete or not there (written under a temporary name, synced, renamed), locks,
and the files of a model folder."""

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from minibert.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

JSON_LIMIT = 16 * 2**20  # bytes; parsed JSON takes many times its size, and no real file is larger

# The files of a model folder. Of the four forms of weights, the first that is there is read: the
# file itself, or an index and the pattern of its shards.
WEIGHT_FILES = (
    ("model.safetensors",),
    ("model.safetensors.index.json", "model-*.safetensors"),
    ("pytorch_model.bin",),
    ("pytorch_model.bin.index.json", "pytorch_model-*.bin"),
)
SMALL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file temporary `path`, then put it in the place of `path` in one step."""
    path = Path(os.path.realpath(path))  # a link stays, what it leads to is replaced
    check_replaceable(path)
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)  # what a killed process left, with its rights
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        write(temporary)
        os.chmod(temporary, mode)  # safetensors makes files that only their owner can read
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path}: cannot be written ({reason}); what stood there before is intact"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Let a new name last through a power cut, before the older file that it follows goes."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # some network file systems sync files, but no folders
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def open_without_links(name: str, flags: int) -> int:
    """Open or make a file, as an `opener`; a link that somebody planted under its name is none."""
    return os.open(name, flags | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)


def lock(file: IO[Any]) -> bool:
    """Lock an open file until it is closed; false where another process has it locked.

    Where there are no locks (Windows, some network file systems), nobody is kept out.
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
    """Say whether an open file still has this name, which another process may have moved on."""
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path))


def check_replaceable(path: Path) -> None:
    """Raise InputError for a pipe, a device or a folder, which no file may take the place of."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a regular file; give another name")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomic(path, lambda temporary: _write_utf8(temporary, text))


def write_json(path: Path, data: Any) -> None:
    """Write readable JSON atomically."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def model_file(folder: Path, name: str) -> Path | None:
    """Return a model folder's file, or none where it has none.

    Raises InputError for a link that leads out: a folder from elsewhere must not have minibert read
    and copy its reader's own files. The hub's cache links its snapshots to its blobs.
    """
    path, home = folder / name, folder.resolve()
    if not os.path.isfile(path):
        return None
    homes = [home]
    if home.parent.name == "snapshots":
        homes.append((home.parent.parent / "blobs").resolve())
    if not any(path.resolve().is_relative_to(home) for home in homes):
        raise InputError(f"{path}: is a link out of its folder; put the file itself there")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object; anything else is an InputError."""
    try:
        with open(path, "rb") as file:
            content = file.read(JSON_LIMIT + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > JSON_LIMIT:
        raise InputError(f"{path}: is over {JSON_LIMIT >> 20} MB; fetch or write it again")
    try:
        data = parse_json(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error}); fetch or write the file again") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds a {type(data).__name__}, not a JSON object")
    return data


def parse_json(content: bytes) -> Any:
    """Parse UTF-8 JSON; raises ValueError or RecursionError, also for an object's key twice."""
    return json.loads(content.decode("utf-8"), object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        raise ValueError("a key stands in one object twice")
    return data


def _write_utf8(path: Path, text: str) -> None:
    # A file name that is not UTF-8 is written as an escape, which JSON reads back.
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
