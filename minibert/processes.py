"""The processes of one command: what each computes, and what they tell each other.

torchrun starts them. Without it a command is one process, for which all of this does nothing.
"""

import importlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from minibert.errors import InputError, Interrupted, ProcessLost, Silent

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process and the others of its command. The first one prints and writes files.

    All processes call the same methods in the same order; each call waits for the others. They
    raise ProcessLost if one of the others has ended.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes files."""
        return self.rank == 0

    def deal(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's items: every `size`-th, from the one numbered `rank`."""
        return items[self.rank :: self.size]

    def add_up(self, values: Tensor) -> None:
        """Add a tensor up over all processes, in place. All get the same bits."""
        if self.size > 1:
            with _lost_process():
                dist.all_reduce(values)

    def complete(self, values: Tensor) -> None:
        """Fill in what the others computed: each element is zero in all processes but one.

        Bytes are added up, so that each element stays as it was computed, in every type.
        """
        self.add_up(values.view(torch.uint8))

    def largest(self, number: int) -> int:
        """Return the largest number of all processes."""
        if self.size == 1:
            return number
        values = torch.tensor(number)
        with _lost_process():
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return int(values)

    def call_first(self, function: Callable[[], T]) -> T:
        """Call a function in the first process alone; return its result in all processes."""
        result = [function() if self.is_first else None]
        if self.size > 1:
            with _lost_process():
                dist.broadcast_object_list(result)
        return result[0]  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank, in the first process; [] in the others."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size if self.is_first else []
        with _lost_process():
            dist.gather_object(value, values or None)
        return values


ONE_PROCESS = Processes()


@contextmanager
def process_group() -> Iterator[Processes]:
    """Join the processes that torchrun started: by gloo on CPUs, by NCCL on GPUs.

    An error's line is printed by one process: it is raised in that one, and Silent in the others.
    """
    local = int(os.environ["LOCAL_RANK"])
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)  # the GPU that the name "cuda" stands for
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _ended_by_signals():
        # The first optimizer imports this module. If a group exists by then, it becomes the default
        # of the module's arguments and is never freed: its threads go on while Python ends, and one
        # that frees a tensor aborts the process.
        importlib.import_module("torch.distributed.nn.functional")
        store, rank, size = next(dist.rendezvous("env://"))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    failed = True
    try:
        yield Processes(rank, size)
        failed = False
    except (InputError, OSError) as error:
        if not _prints(store, rank):
            raise Silent(2) from error
        raise
    except Interrupted as error:  # the first process says how to continue
        if rank > 0 or not _prints(store, rank):
            raise Silent(128 + error.number) from error
        raise
    finally:
        if backend == "gloo" or not failed:  # NCCL may wait for processes that have ended
            dist.destroy_process_group()


def check_single(processes: Processes, what: str) -> None:
    """Raise InputError for work that several processes cannot share."""
    if processes.size > 1:
        raise InputError(f"{what}: is for one process; start it with python, without torchrun")


def check_gpus(device: torch.device, processes: Processes) -> None:
    """Raise InputError if not each of several processes has a GPU of its own, or a CPU."""
    if processes.size == 1 or device.type == "cpu":
        return
    if device.type != "cuda" or device.index is not None:
        raise InputError(
            f"--device {device}: is for one process; give cuda, for a GPU each, or cpu"
        )
    here, gpus = os.environ["LOCAL_WORLD_SIZE"], torch.cuda.device_count()
    if int(here) > gpus:
        raise InputError(
            f"--device cuda: {here} processes on a machine with {gpus} GPUs; start one for each, "
            "or give --device cpu"
        )


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End the process at a signal: while it waits for the others, Python's handlers cannot run."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _prints(store: "dist.Store", rank: int) -> bool:
    """Return whether this process is the first of all to ask."""
    try:
        return store.compare_set("printed", "", str(rank)) == str(rank).encode()
    except RuntimeError:  # the store has ended with its process
        return True


@contextmanager
def _lost_process() -> Iterator[None]:
    """Raise ProcessLost for what torch raises if another process has ended."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ProcessLost("another process of this command has ended") from error
