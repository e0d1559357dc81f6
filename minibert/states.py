"""The states of an unfinished run: all that its next step depends on, in one file each.

resume-<finished steps>.safetensors holds weights, optimizer and random state; its metadata the
progress and fp16's loss scale. The newest is gone on from.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from minibert.errors import InputError
from minibert.files import write_atomic
from minibert.runtime import Runtime


@dataclass(frozen=True)
class Learner:
    """What trains, and by what: a step depends on these, the random state and the progress."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    runtime: Runtime


@dataclass
class Progress:
    """What a run has done: finished epochs and steps, the best epoch, and the epochs' figures."""

    epoch: int = 0
    step: int = 0  # of all epochs
    # Of the steps since the last whole epoch: the weighted losses, the labels' weights, the time.
    loss_sum: float = 0.0
    weight_sum: float = 0.0
    epoch_seconds: float = 0.0
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


def state_files(folder: Path) -> list[Path]:
    """Return a run's states, the newest last."""
    return sorted(folder.glob(f"resume-{8 * '[0-9]'}*.safetensors"))


def save_state(folder: Path, progress: Progress, learner: Learner) -> None:
    """Write all that the next step depends on into one file, whole or not at all."""
    tensors = {f"model.{name}": x for name, x in learner.module.state_dict().items()}
    for number, state in learner.optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"optimizer.{number}.{name}"] = torch.as_tensor(value)
    tensors["random.cpu"] = torch.get_rng_state()
    if learner.runtime.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(learner.runtime.device)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {
        "progress": json.dumps(asdict(progress)),
        "scaler": json.dumps(learner.scaler.state_dict()),
    }
    file = folder / f"resume-{progress.step:08d}.safetensors"
    write_atomic(file, lambda beside: save_file(tensors, beside, metadata))


def load_state(file: Path, learner: Learner) -> Progress:
    """Read back what `save_state` wrote; InputError says what is left where it is damaged."""
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        progress = Progress(**json.loads(metadata["progress"]))
        learner.module.load_state_dict(_part(tensors, "model."))
        _load_optimizer(learner.optimizer, _part(tensors, "optimizer."))
        learner.scaler.load_state_dict(json.loads(metadata["scaler"]))
        torch.set_rng_state(tensors["random.cpu"])
        if learner.runtime.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], learner.runtime.device)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from None
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        older = [other.name for other in state_files(file.parent) if other < file]
        remedy = f"delete it to go on from {older[-1]}" if older else "start a new run"
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"--resume {file.parent}: the state {file.name} is damaged ({reason}); {remedy}"
        ) from None
    return progress


def drop_states(folder: Path, *, keep: int) -> None:
    """Remove all but the newest `keep` states, and what killed processes left half-written."""
    files = state_files(folder)
    for file in [*files[: max(0, len(files) - keep)], *folder.glob(".resume-*.new")]:
        file.unlink(missing_ok=True)


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
