"""Run folders: a Hugging Face folder plus what evaluating and resuming need.

config.json model.safetensors tokenizer.json ...   the best epoch so far
settings.json       the options, and metadata: columns, fingerprints, environment
history.csv         one line per epoch
log.jsonl tensorboard/   figures of the steps, on request
resume-<finished steps>.safetensors   the newest states; removed when the run is finished
run.lock            the id of the process that trains here; a dead process's lock is ignored
metrics.json        the figures; written last, so that a run with it is finished
test_predictions.jsonl
test_looks.jsonl    one line for each time that eval.py scored the test split again
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minibert.data.columns import Columns
from minibert.errors import InputError, command_line
from minibert.files import json_text, read_json, write_json, write_text
from minibert.locks import locked
from minibert.run_folders import check_empty, make_folder
from minibert.training.history import EpochRecord
from minibert.training.state import (
    TrainState,
    drop_states,
    load_state,
    save_state,
    saved_settings,
    state_files,
)

OUT_OF_FOLD = "out_of_fold.jsonl"  # of a cross-validation
NO_MODEL = "a cross-validation has no model; train without --folds to get one"


@dataclass(frozen=True)
class Metadata:
    """What settings.json keeps beside the options, for a resumed run to compare."""

    columns: Columns
    digests: dict[str, str]  # fingerprints of the splits and of the model
    environment: dict[str, str]  # model_folder, versions


class RunFolder:
    """One run's folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def settings_file(self) -> Path:
        """Where the options and the metadata are."""
        return self.path / "settings.json"

    @property
    def log_file(self) -> Path:
        """Where --log-json writes figures while the run trains."""
        return self.path / "log.jsonl"

    @property
    def events(self) -> Path:
        """Where --tensorboard writes event files."""
        return self.path / "tensorboard"

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
        """Where a finished run's test split and its predictions are."""
        return self.path / "test_predictions.jsonl"

    @property
    def looks_file(self) -> Path:
        """Where eval.py notes each further look at the test split."""
        return self.path / "test_looks.jsonl"

    @classmethod
    def create(
        cls, out: Path | None, settings: Mapping[str, Any], metadata: Metadata
    ) -> "RunFolder":
        """Make `out`, or a folder under runs/ named by time, model and data; write the settings."""
        path = make_folder(out, settings)
        options = dict(settings)
        for name in ("model", "data", "validation", "test"):
            if options[name] and Path(options[name]).exists():
                # Absolute: --resume may be started in another folder.
                options[name] = str(Path(options[name]).resolve())
        run = cls(path)
        with locked(path, "--out"):
            check_empty(path)
            write_json(run.settings_file, {**options, **asdict(metadata)})
        return run

    def read_settings(self) -> tuple[dict[str, Any], Metadata]:
        """Return what `create` wrote. Raises InputError if the run cannot be resumed."""
        file = self.settings_file
        if not self.path.is_dir():
            raise InputError(f"--resume {self.path}: no such folder")
        if not file.is_file():
            raise InputError(f"--resume {self.path}: is not a run of minibert (no settings.json)")
        self.check_links()
        self.check_unfinished()
        with locked(self.path, "--resume"):
            pass  # fail now, not after the data is read
        if self.history_file.exists() and not (self.path / "model.safetensors").exists():
            raise self._damaged("model.safetensors, the best epoch, is missing")
        return self.parse_settings()

    def parse_settings(self) -> tuple[dict[str, Any], Metadata]:
        """Return what `create` wrote, of any run. Raises InputError if the file is damaged."""
        file = self.settings_file
        data = read_json(file)
        try:
            metadata = Metadata(
                _columns(data.pop("columns")),
                _strings(data.pop("digests")),
                _strings(data.pop("environment")),
            )
        except (AttributeError, KeyError, TypeError):
            raise InputError(
                f"{file}: columns, digests or environment is not as this version of minibert "
                "writes it; undo the change, or start a new run"
            ) from None
        return data, metadata

    def check_links(self) -> None:
        """Raise InputError for a link: a run writes in its folder alone, also a stranger's run."""
        links = [file.name for file in self.path.iterdir() if file.is_symlink()]
        if links:
            raise InputError(f"--resume {self.path}: {links[0]} is a link; copy the file there")

    @property
    def is_cross_validation(self) -> bool:
        """Whether this is the folder of several folds, which has no model."""
        return (self.path / OUT_OF_FOLD).exists()

    def check_unfinished(self) -> None:
        """Raise InputError if the run is finished."""
        if self.metrics_file.exists():
            drop_states(self.path, keep=0)  # the process may have died before
            use = f"{command_line('eval')} --model {shlex.quote(str(self.path))} scores it"
            if self.is_cross_validation:
                use = NO_MODEL
            raise InputError(f"--resume {self.path}: the run is finished; {use}")

    def columns(self) -> Columns | None:
        """Return the columns of the run's data, or None without settings.json."""
        file = self.settings_file
        columns = read_json(file).get("columns") if file.is_file() else None
        try:
            return None if columns is None else _columns(columns)
        except (AttributeError, TypeError):
            raise InputError(f"{file}: the entry columns is damaged") from None

    def label_separator(self) -> str | None:
        """Return what separates the classes of a row in the run's data, if that was given."""
        file = self.settings_file
        separator = read_json(file).get("label_separator") if file.is_file() else None
        return separator if isinstance(separator, str) else None

    def saved_settings(self) -> dict[str, Any]:
        """Return the options that the newest state was saved with; none without a state."""
        files = state_files(self.path)
        return saved_settings(files[-1]) if files else {}

    def save_state(
        self, state: TrainState, settings: Mapping[str, Any] | None = None, *, keep: int = 1
    ) -> None:
        """Save the state of the run and its history; then drop all states but the newest."""
        save_state(self.path, state, settings)
        drop_states(self.path, keep=keep)
        self.write_history(state.history)

    def load_state(self, state: TrainState, *, repair: bool = True) -> None:
        """Set `state` to the newest saved one. Without one, the run starts from its beginning.

        With `repair`, write the history, which a run loses if it dies before that.
        """
        files = state_files(self.path)
        if files:
            load_state(files[-1], state)
            if repair:
                self.write_history(state.history)
        elif self.history_file.exists():
            raise self._damaged("no resume-*.safetensors is there")

    def finish(self, metrics: dict[str, Any], predictions: Sequence[dict[str, Any]]) -> None:
        """Write the test split's predictions, then the figures; drop the states."""
        if predictions:
            lines = (json_text(row) + "\n" for row in predictions)
            write_text(self.predictions_file, "".join(lines))
        write_json(self.metrics_file, metrics)
        drop_states(self.path, keep=0)

    def write_history(self, history: Sequence[EpochRecord]) -> None:
        """Write history.csv, if an epoch is finished."""
        if history:
            rows = [record.to_row() for record in history]
            lines: list[list[Any]] = [list(rows[0]), *(list(row.values()) for row in rows)]
            cells = [["" if x is None else str(x) for x in line] for line in lines]
            write_text(self.history_file, "".join(",".join(line) + "\n" for line in cells))

    def _damaged(self, reason: str) -> InputError:
        return InputError(
            f"--resume {self.path}: the saved state is damaged ({reason}); start a new run"
        )


def _columns(value: Any) -> Columns:
    columns = Columns(**{**value, "labels": tuple(value.get("labels", ()))})
    names = [getattr(columns, x) for x in ("text", "pair", "label", "label_name")]
    if not all(x is None or isinstance(x, str) for x in (*names, *columns.labels)):
        raise TypeError("not the names of columns")
    return columns


def _strings(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(x, str) for x in value.values()):
        raise TypeError("not an object of strings")
    return value
