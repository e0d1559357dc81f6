"""The state of a training run: all that its next step depends on, and its file.

resume-<finished steps>.safetensors holds the weights and the optimizer; its metadata holds the
counters, fp16's loss scale, and the options of the run. Random numbers are functions of the
options and the counters.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from minibert.device import is_out_of_memory
from minibert.errors import InputError
from minibert.files import write_atomic
from minibert.tasks.prior import Prior
from minibert.tasks.task import Scores, Task, figures_of
from minibert.training.history import EpochRecord, TrainResult, clipping
from minibert.training.options import TrainingOptions

FORMAT = "7"  # of the state file
COUNTERS = (
    *("epoch", "step", "texts", "epoch_seconds", "seconds", "lr", "best_epoch", "best_figure"),
)


@dataclass
class TrainState:
    """Model, optimizer, scaler, counters: all that a step depends on."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    task: Task
    options: TrainingOptions
    texts_per_epoch: int
    steps_per_epoch: int
    prior: Prior
    epoch: int = 0  # finished epochs
    step: int = 0  # finished optimizer steps of all epochs
    texts: int = 0  # of the current epoch, trained on so far
    epoch_seconds: float = 0.0  # of the current epoch's steps
    seconds: float = 0.0  # of all steps
    lr: float = 0.0  # the highest learning rate of the last step
    best_epoch: int = 0
    best_figure: float = float("-inf")
    history: list[EpochRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Of the current epoch: the sum of the losses of its texts, and the norms of its steps'
        # gradients. On the device, so that no step waits for them.
        self.loss_sum = torch.zeros((), device=self.device)
        self.norms = torch.zeros(self.steps_per_epoch, device=self.device)
        self._clock = time.perf_counter()

    def start_clock(self) -> None:
        """Start measuring the time of the next step."""
        self._clock = time.perf_counter()

    def count_step(self, loss: Tensor, norm: float | Tensor, *, texts: int, lr: float) -> None:
        """Count a step with this mean loss, gradient norm, and texts."""
        self.lr = lr
        self.norms[self.step - self.epoch * self.steps_per_epoch] = norm
        self.loss_sum += loss * texts
        self.step += 1
        self.texts += texts
        self.count_time()

    def count_time(self) -> None:
        """Add the time since the last call to the epoch's."""
        now = time.perf_counter()
        self.epoch_seconds += now - self._clock
        self.seconds += now - self._clock
        self._clock = now

    def wait_for(self, loss: Tensor) -> float:
        """Return a loss as a number. On a GPU its step ends only then, so the wait counts."""
        value = float(loss)
        self.count_time()
        return value

    def end_epoch(self, scores: Scores) -> bool:
        """Record an epoch and its validation; return whether it is the best so far."""
        gradient_norm, clipped_steps = clipping(self.norms, self.options.clip)
        self.epoch += 1
        self.history.append(
            EpochRecord(
                epoch=self.epoch,
                train_loss=float(self.loss_sum) / self.texts,
                learning_rate=self.lr,
                validation=figures_of(scores, self.task.figures),
                seconds=round(self.epoch_seconds, 3),
                texts_per_second=round(self.texts / self.epoch_seconds, 1),
                predicted_classes=scores.predicted_classes,
                gradient_norm=gradient_norm,
                clipped_steps=clipped_steps,
            )
        )
        self.loss_sum.zero_()
        self.texts, self.epoch_seconds = 0, 0.0
        figure = scores.figure(self.task.selects(self.options.select))
        best = figure > self.best_figure or not self.best_epoch
        if best:
            self.best_epoch, self.best_figure = self.epoch, figure
        return best

    def result(self, encoding_seconds: float) -> TrainResult:
        """Return what `fit` returns."""
        history = tuple(self.history)
        return TrainResult(history, self.best_epoch, self.step, self.seconds, encoding_seconds)

    def counters(self) -> dict[str, Any]:
        """Return the numbers that the state file has."""
        return {name: getattr(self, name) for name in COUNTERS}


def state_files(folder: Path) -> list[Path]:
    """Return a run's state files, the newest last."""
    return sorted(folder.glob(f"resume-{8 * '[0-9]'}*.safetensors"))


def save_state(folder: Path, state: TrainState, settings: Mapping[str, Any] | None = None) -> None:
    """Write a state file, complete or not at all.

    `settings` are the options of the run, which `saved_settings` returns. Raises InputError for
    weights that are not finite: a run could not be continued from them.
    """
    check_finite_weights(state)
    tensors = {f"model.{name}": x for name, x in state.module.state_dict().items()}
    for number, values in state.optimizer.state_dict()["state"].items():
        for name, value in values.items():
            tensors[f"optimizer.{number}.{name}"] = torch.as_tensor(value)
    tensors["loss_sum"], tensors["norms"] = state.loss_sum, state.norms
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {
        "format": FORMAT,
        "counters": json.dumps(state.counters()),
        "history": json.dumps([asdict(record) for record in state.history]),
        "scaler": json.dumps(state.scaler.state_dict()),
        "settings": json.dumps(settings or {}),
    }
    file = folder / f"resume-{state.step:08d}.safetensors"
    write_atomic(file, lambda temporary: save_file(tensors, temporary, metadata))


def saved_settings(file: Path) -> dict[str, Any]:
    """Return the options that a state was saved with. Raises InputError as `load_state` does."""
    with _reading(file), safe_open(file, "pt") as opened:
        return dict(json.loads(_metadata(opened, file)["settings"]))


def load_state(file: Path, state: TrainState) -> None:
    """Set `state` to the one in a file.

    Raises InputError for a damaged file, naming an older state if there is one, and for a file of
    another version.
    """
    with _reading(file):
        with safe_open(file, "pt") as opened:
            metadata = _metadata(opened, file)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        counters = json.loads(metadata["counters"])
        for name in COUNTERS:
            setattr(state, name, type(getattr(state, name))(counters[name]))
        in_epoch = state.step - state.epoch * state.steps_per_epoch
        if state.epoch < 0 or not 0 <= in_epoch <= state.steps_per_epoch:
            raise ValueError("its steps do not fit the batches that settings.json asks for")
        state.history = [EpochRecord(**record) for record in json.loads(metadata["history"])]
        _load_module(state.module, _with_prefix(tensors, "model."))
        _load_optimizer(state.optimizer, _with_prefix(tensors, "optimizer."))
        state.scaler.load_state_dict(json.loads(metadata["scaler"]))
        state.loss_sum.copy_(tensors["loss_sum"])
        state.norms[:in_epoch] = tensors["norms"][:in_epoch]


def _metadata(opened: Any, file: Path) -> dict[str, str]:
    metadata = dict(opened.metadata() or {})
    if metadata.get("format") != FORMAT and metadata.keys() & {"format", "progress"}:
        raise InputError(
            f"--resume {file.parent}: the state {file.name} is of another version of minibert; "
            "start a new run"
        )
    return metadata


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Raise one InputError for whatever is wrong with a state file."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from None
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        older = [other.name for other in state_files(file.parent) if other < file]
        remedy = f"delete it to continue from {older[-1]}" if older else "start a new run"
        cause = str(error).partition("\n")[0]
        raise InputError(
            f"--resume {file.parent}: the state {file.name} is damaged ({cause}); {remedy}"
        ) from None


def drop_states(folder: Path, *, keep: int) -> None:
    """Remove all but the newest `keep` state files, and what killed processes left half-written."""
    files = state_files(folder)
    left = [*folder.glob(".resume-*.new"), *folder.glob(".tmp??????")]  # safetensors' own names
    for file in [*files[: max(0, len(files) - keep)], *left]:
        file.unlink(missing_ok=True)


def check_finite_weights(state: TrainState) -> None:
    """Raise InputError if a parameter is NaN or infinite."""
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    # A sum is NaN or infinite where any element is.
    if not torch.stack([p.detach().sum() for p in parameters]).isfinite().all():
        raise InputError(
            f"after step {state.step}: the weights are not finite; lower --encoder-lr and "
            "--head-lr, or set --clip"
        )


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}


def _load_module(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError:  # its message has a line per tensor
        raise ValueError("its weights do not fit the model that settings.json asks for") from None


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
