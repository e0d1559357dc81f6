"""Files that are whole or not there at all: written beside, synced, then renamed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from minibert.errors import InputError


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in the place of `path` in one step."""
    path = Path(os.path.realpath(path))  # a link stays, what it leads to is replaced
    check_replaceable(path)
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.touch()
        mode = beside.stat().st_mode
        write(beside)
        os.chmod(beside, mode)  # safetensors makes files that only their owner can read
        with open(beside, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path}: cannot be written ({reason}); what stood there before is intact"
        ) from None
    finally:
        beside.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Let a new name last through a power cut, before the older file that it follows goes."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_replaceable(path: Path) -> None:
    """Raise InputError for a pipe, a device or a folder, which no file may take the place of."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a regular file; give another name")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomic(path, lambda beside: _write_utf8(beside, text))


def write_json(path: Path, data: Any) -> None:
    """Write readable JSON atomically."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object; anything else is an InputError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error}); fetch or write the file again") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds a {type(data).__name__}, not a JSON object")
    return data


def _write_utf8(path: Path, text: str) -> None:
    # A file name that is not UTF-8 is written as an escape, which JSON reads back.
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
