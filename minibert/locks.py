"""The lock of a run's folder: one process trains in it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from minibert.errors import InputError
from minibert.files import is_same_file, lock, open_without_links

LOCK = "run.lock"


@contextmanager
def locked(folder: Path, flag: str) -> Iterator[None]:
    """Hold a run's lock. Raises InputError with the process that holds it.

    The kernel frees a dead process's lock, so the file that it left is no obstacle.
    """
    try:
        stream, holder = _open_lock(folder / LOCK)
    except OSError as error:
        raise InputError(f"{flag} {folder}: cannot be written ({error.strerror})") from None
    with stream:
        if holder is not None:
            raise InputError(
                f"{flag} {folder}: process {holder} is training in it; wait for it or stop it"
            )
        stream.truncate(0)
        print(os.getpid(), file=stream, flush=True)
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)


def _open_lock(file: Path) -> tuple[IO[str], str | None]:
    """Open and lock a file; if another process has locked it, return what that process wrote."""
    while True:
        stream = open(file, "a+", encoding="utf-8", opener=open_without_links)  # noqa: SIM115
        if not lock(stream):
            stream.seek(0)
            return stream, stream.read().strip()
        if is_same_file(stream, file):
            return stream, None
        stream.close()  # its holder removed this very file after it was opened here
