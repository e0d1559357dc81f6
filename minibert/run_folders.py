"""Which folder a run has: a new one, or the one that finished last."""

import itertools
import os
import shlex
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from minibert.errors import InputError, command_line
from minibert.files import WEIGHT_FILES
from minibert.locks import LOCK, locked

RUNS = Path("runs")
# Files that only a folder of a model or run has. Any project may have a settings.json.
SIGNS = (*(names[0] for names in WEIGHT_FILES), LOCK, "test_predictions.jsonl", "out_of_fold.jsonl")


def make_folder(out: Path | None, settings: Mapping[str, Any]) -> Path:
    """Make `out`, or a folder under runs/ named by time, model and data; return its path."""
    if out is None:
        return _new_folder(settings)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror})") from None
    return out


def check_new(path: Path) -> None:
    """Raise InputError if `path` is not new or empty."""
    if path.is_file():
        raise InputError(f"--out {path}: is a file; give a new folder")
    if (path / "settings.json").is_file():
        with locked(path, "--out"):
            pass  # if a process trains in it, the error names it
    if path.is_dir():
        check_empty(path)


def check_empty(path: Path) -> None:
    """Raise InputError if a folder has other files than a lock and half-written ones."""
    if any(name != LOCK and not name.endswith(".new") for name in os.listdir(path)):
        is_run = (path / "settings.json").exists()
        resume = f", or resume it: --resume {shlex.quote(str(path))}" if is_run else ""
        raise InputError(f"--out {path}: is not empty; give a new folder{resume}")


def check_output(flag: str, file: Path) -> None:
    """Raise InputError for an output that could replace a file of a model or run."""
    folder = file.resolve().parent
    is_model = any((folder / name).exists() for name in SIGNS)
    if is_model and (file.exists() or file.suffix == ".json"):
        raise InputError(
            f"{flag} {file}: could replace a file of the model or run in this folder; choose "
            "another folder"
        )


def newest_run() -> Path:
    """Return the run under runs/ that finished last."""
    files = RUNS.glob("*/metrics.json")  # a cross-validation has no model
    models = [file for file in files if (file.parent / "model.safetensors").exists()]
    finished = sorted(models, key=lambda file: file.stat().st_mtime)
    if not finished:
        where = RUNS.resolve()
        raise InputError(
            f"no finished run in {where}; train one ({command_line('train')}) or give --model"
        )
    return finished[-1].parent


def _new_folder(settings: Mapping[str, Any]) -> Path:
    names = (Path(settings["model"]).name, Path(settings["data"].removeprefix("hub:")).stem)
    stem = "-".join([datetime.now().strftime("%Y%m%d-%H%M%S"), *names])
    path = RUNS / stem
    for number in itertools.count(2):
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:  # of two runs that start in one second, one takes the next name
            path = RUNS / f"{stem}-{number}"
        except OSError as error:
            raise InputError(f"{path}: cannot be made ({error.strerror})") from None
    return path
