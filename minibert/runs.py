"""Run folders: a Hugging Face folder plus what evaluating and resuming need.

config.json model.safetensors tokenizer.json ...   the best epoch so far
settings.json       the options, and digests of the data
history.csv         a line an epoch
resume.safetensors  weights, optimizer, random state after the last epoch; gone when the run is done
metrics.json        the figures; written last, so that its presence means "finished"
test_predictions.jsonl
"""

import csv
import io
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from minibert.data import Columns
from minibert.errors import InputError
from minibert.files import read_json, write_atomic, write_json, write_text
from minibert.settings import RunSettings

RUNS = Path("runs")
# What settings.json says beside the options: the columns read, digests of the parts, what computed.
FACTS = ("columns", "digests", "environment")


@dataclass
class Progress:
    """What a run has done: finished epochs, the best of them, and their figures."""

    epoch: int = 0
    best_epoch: int = 0
    best_figure: float = float("-inf")
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    def figures(self, texts: int) -> dict[str, Any]:
        """Return what metrics.json says of the training on so many texts, without evaluation."""
        return {
            "epochs": self.epoch,
            "best_epoch": self.best_epoch,
            "seconds": round(self.seconds, 3),
            "texts_per_second": round(self.epoch * texts / self.seconds, 1),
        }


class RunFolder:
    """One run's folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def resume_file(self) -> Path:
        """Where the state of an unfinished run is."""
        return self.path / "resume.safetensors"

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
        check_new(path)
        options = settings.to_json()
        for name in ("model", "data", "validation", "test"):
            if options[name] and Path(options[name]).exists():
                options[name] = str(
                    Path(options[name]).resolve()
                )  # --resume may come from elsewhere
        write_json(path / "settings.json", {**options, **facts})
        return cls(path)

    def read_settings(self) -> tuple[RunSettings, dict[str, Any]]:
        """Read the settings and the facts that `create` wrote; InputError if it cannot go on."""
        if not self.path.is_dir():
            raise InputError(f"--resume {self.path}: no such folder")
        file = self.path / "settings.json"
        if not file.is_file():
            raise InputError(f"--resume {self.path}: is not a run of minibert (no settings.json)")
        if self.metrics_file.exists():
            raise InputError(f"--resume {self.path}: the run is finished; python eval.py scores it")
        if self.resume_file.exists() and not (self.path / "model.safetensors").exists():
            raise self._damaged("model.safetensors, the best epoch, is missing")
        data = read_json(file)
        facts = {name: data.pop(name, None) for name in FACTS}
        if not all(isinstance(fact, dict) for fact in facts.values()):
            raise InputError(f"{file}: is damaged (it lacks {' or '.join(FACTS)}); start a new run")
        return RunSettings.from_json(data, where=str(file)), facts

    def columns(self) -> Columns | None:
        """Return the columns of the data that the run was trained on, where it says."""
        file = self.path / "settings.json"
        columns = read_json(file).get("columns") if file.is_file() else None
        try:
            return None if columns is None else Columns(**columns)
        except TypeError:
            raise InputError(f"{file}: the entry columns is damaged") from None

    def save_state(
        self,
        progress: Progress,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        device: torch.device,
    ) -> None:
        """Write all that the next epoch depends on into one file, whole or not at all."""
        tensors = {f"model.{name}": tensor for name, tensor in module.state_dict().items()}
        for number, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer.{number}.{name}"] = torch.as_tensor(value)
        tensors["random.cpu"] = torch.get_rng_state()
        if device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(device)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {
            "progress": json.dumps(asdict(progress)),
            "scaler": json.dumps(scaler.state_dict()),
        }
        write_atomic(self.resume_file, lambda beside: save_file(tensors, beside, metadata))
        write_text(self.path / "history.csv", _csv(progress.history))

    def load_state(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        device: torch.device,
    ) -> Progress:
        """Read back what `save_state` wrote; a run stopped in its first epoch starts anew."""
        if not self.resume_file.exists():
            if (self.path / "history.csv").exists():
                raise self._damaged("resume.safetensors is missing")
            return Progress()
        try:
            with safe_open(self.resume_file, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            progress = Progress(**json.loads(metadata["progress"]))
            module.load_state_dict(_part(tensors, "model."))
            _load_optimizer(optimizer, _part(tensors, "optimizer."))
            scaler.load_state_dict(json.loads(metadata["scaler"]))
            torch.set_rng_state(tensors["random.cpu"])
            if device.type == "cuda":
                torch.cuda.set_rng_state(tensors["random.cuda"], device)
            if progress.history:  # its last line is lost where a run dies right before writing it
                write_text(self.path / "history.csv", _csv(progress.history))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise self._damaged(str(error).partition("\n")[0]) from None
        return progress

    def finish(self, metrics: dict[str, Any], predictions: Sequence[dict[str, Any]]) -> None:
        """Write the test part's predictions and then the figures; drop the state for resuming."""
        if predictions:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)
            write_text(self.predictions_file, "".join(lines))
        write_json(self.metrics_file, metrics)
        self.resume_file.unlink(missing_ok=True)

    def _damaged(self, reason: str) -> InputError:
        return InputError(
            f"--resume {self.path}: the saved state is damaged ({reason}); start a new run"
        )


def check_new(path: Path) -> None:
    """Raise InputError where a run cannot be written without touching what is there."""
    if path.is_file():
        raise InputError(f"--out {path}: is a file; give a new folder")
    if path.is_dir() and any(not name.endswith(".new") for name in os.listdir(path)):
        raise InputError(
            f"--out {path}: is not empty; give a new folder, or go on with it: --resume {path}"
        )


def newest_run() -> Path:
    """Return the run under runs/ that finished last."""
    finished = sorted(RUNS.glob("*/metrics.json"), key=lambda file: file.stat().st_mtime)
    if not finished:
        raise InputError(
            f"no finished run in {RUNS.resolve()}; train one (python train.py) or give --model"
        )
    return finished[-1].parent


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, values in optimizer.state.items():
        if values["exp_avg"].shape != parameter.shape:
            raise ValueError("the optimizer's state is of other parameters")


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
