"""Run folders: a Hugging Face folder plus what evaluating and resuming need.

config.json model.safetensors tokenizer.json ...   the best epoch so far
settings.json       the options, and digests of the data
history.csv         a line an epoch
resume-<finished steps>.safetensors   the newest states to go on from; gone when the run is done
run.lock            the id of the process that trains here; of a dead one it does not count
metrics.json        the figures; written last, so that its presence means "finished"
test_predictions.jsonl
"""

import csv
import io
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from minibert.data import Columns
from minibert.errors import InputError
from minibert.files import is_at, lock, open_here, read_json, write_json, write_text
from minibert.settings import RunSettings
from minibert.states import Learner, Progress, drop_states, load_state, save_state, state_files

RUNS = Path("runs")
LOCK = "run.lock"
# What settings.json says beside the options: the columns read, digests of the parts, what computed.
FACTS = ("columns", "digests", "environment")


class RunFolder:
    """One run's folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def history_file(self) -> Path:
        """Where the figures of each finished epoch are."""
        return self.path / "history.csv"

    @property
    def metrics_file(self) -> Path:
        """Where the figures of a finished run are."""
        return self.path / "metrics.json"

    @property
    def predictions_file(self) -> Path:
        """Where a finished run's test part and its predictions are."""
        return self.path / "test_predictions.jsonl"

    @classmethod
    def create(
        cls, out: Path | None, settings: RunSettings, facts: Mapping[str, Any]
    ) -> "RunFolder":
        """Make `out`, or a folder under runs/ named by time, model and data; write the settings."""
        words = (Path(settings.model).name, Path(settings.data.removeprefix("hub:")).stem)
        stem = "-".join([datetime.now().strftime("%Y%m%d-%H%M%S"), *words])
        path = RUNS / stem if out is None else out
        for number in itertools.count(2):
            try:
                # Of two runs that begin in one second, one takes the next name.
                path.mkdir(parents=True, exist_ok=out is not None)
                break
            except FileExistsError:
                if out is not None:
                    raise InputError(f"--out {out}: is a file; give a new folder") from None
                path = RUNS / f"{stem}-{number}"
            except OSError as error:
                flag = "--out " if out is not None else ""
                raise InputError(f"{flag}{path}: cannot be made ({error.strerror})") from None
        options = settings.to_json()
        for name in ("model", "data", "validation", "test"):
            if options[name] and Path(options[name]).exists():
                options[name] = str(
                    Path(options[name]).resolve()
                )  # --resume may come from elsewhere
        with locked(path, "--out"):
            _check_empty(path)
            write_json(path / "settings.json", {**options, **facts})
        return cls(path)

    def read_settings(self) -> tuple[RunSettings, dict[str, Any]]:
        """Read the settings and the facts that `create` wrote; InputError if it cannot go on."""
        if not self.path.is_dir():
            raise InputError(f"--resume {self.path}: no such folder")
        file = self.path / "settings.json"
        if not file.is_file():
            raise InputError(f"--resume {self.path}: is not a run of minibert (no settings.json)")
        links = [file.name for file in self.path.iterdir() if file.is_symlink()]
        if links:  # what a run writes stays in its folder, also where that is a stranger's
            raise InputError(
                f"--resume {self.path}: {links[0]} is a link; put the file itself there"
            )
        self.check_unfinished()
        with locked(self.path, "--resume"):
            pass  # refused now, not after the data is read
        if self.history_file.exists() and not (self.path / "model.safetensors").exists():
            raise self._damaged("model.safetensors, the best epoch, is missing")
        data = read_json(file)
        facts = {name: data.pop(name, None) for name in FACTS}
        if not all(isinstance(fact, dict) for fact in facts.values()):
            raise InputError(f"{file}: is damaged (it lacks {' or '.join(FACTS)}); start a new run")
        return RunSettings.from_json(data, where=str(file)), facts

    def check_unfinished(self) -> None:
        """Raise InputError where there is nothing to go on with."""
        if self.metrics_file.exists():
            drop_states(self.path, keep=0)  # it may have died right before doing so
            raise InputError(f"--resume {self.path}: the run is finished; python eval.py scores it")

    def columns(self) -> Columns | None:
        """Return the columns of the data that the run was trained on, where it says."""
        file = self.path / "settings.json"
        columns = read_json(file).get("columns") if file.is_file() else None
        try:
            return None if columns is None else Columns(**columns)
        except TypeError:
            raise InputError(f"{file}: the entry columns is damaged") from None

    def save_state(self, progress: Progress, learner: Learner, *, keep: int = 1) -> None:
        """Save the state of a run; then drop all states but the newest."""
        save_state(self.path, progress, learner)
        drop_states(self.path, keep=keep)
        self._write_history(progress)

    def load_state(self, learner: Learner) -> Progress:
        """Read the newest state back; a run stopped before its first one starts anew."""
        files = state_files(self.path)
        if not files:
            if self.history_file.exists():
                raise self._damaged("no resume-*.safetensors is there")
            return Progress()
        progress = load_state(files[-1], learner)
        self._write_history(progress)  # its last line is lost where a run dies before writing it
        return progress

    def finish(self, metrics: dict[str, Any], predictions: Sequence[dict[str, Any]]) -> None:
        """Write the test part's predictions and then the figures; drop the state for resuming."""
        if predictions:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)
            write_text(self.predictions_file, "".join(lines))
        write_json(self.metrics_file, metrics)
        drop_states(self.path, keep=0)

    def _write_history(self, progress: Progress) -> None:
        if progress.history:
            write_text(self.history_file, _csv(progress.history))

    def _damaged(self, reason: str) -> InputError:
        return InputError(
            f"--resume {self.path}: the saved state is damaged ({reason}); start a new run"
        )


@contextmanager
def locked(folder: Path, flag: str) -> Iterator[None]:
    """Hold a run's lock; InputError names the process that has it.

    The kernel frees the lock of a process that dies, so what a dead one left is no obstacle.
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
    """Open and lock a file; where another process has locked it, return what that wrote."""
    while True:
        stream = open(file, "a+", encoding="utf-8", opener=open_here)  # noqa: SIM115
        if not lock(stream):
            stream.seek(0)
            return stream, stream.read().strip()
        if is_at(stream, file):
            return stream, None
        stream.close()  # whoever held it removed this very file after it was opened here


def check_new(path: Path) -> None:
    """Raise InputError where a run cannot be written without touching what is there."""
    if path.is_file():
        raise InputError(f"--out {path}: is a file; give a new folder")
    if (path / "settings.json").is_file():
        with locked(path, "--out"):
            pass  # refused with the process's id where one is at work
    if path.is_dir():
        _check_empty(path)


def _check_empty(path: Path) -> None:
    if any(name != LOCK and not name.endswith(".new") for name in os.listdir(path)):
        resume = f", or go on with it: --resume {path}" if (path / "settings.json").exists() else ""
        raise InputError(f"--out {path}: is not empty; give a new folder{resume}")


def newest_run() -> Path:
    """Return the run under runs/ that finished last."""
    finished = sorted(RUNS.glob("*/metrics.json"), key=lambda file: file.stat().st_mtime)
    if not finished:
        raise InputError(
            f"no finished run in {RUNS.resolve()}; train one (python train.py) or give --model"
        )
    return finished[-1].parent


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
