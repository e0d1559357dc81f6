"""The device and the precision of a run, each with the reason for the choice."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from minibert.errors import InputError
from minibert.processes import ONE_PROCESS, Processes, check_gpus

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.int8,  # inference only
}


@dataclass(frozen=True)
class Compute:
    """A device, the precision of matrix products on it, the reason for it, and the processes."""

    device: torch.device
    precision: str = "fp32"  # a key of DTYPES
    reason: str = "as requested"
    processes: Processes = ONE_PROCESS  # that share the work

    def autocast(self) -> torch.autocast:
        """Return the context for forward passes of a float32 model. In fp32 it does nothing."""
        enabled = self.precision != "fp32"
        return torch.autocast(self.device.type, dtype=DTYPES[self.precision], enabled=enabled)

    def scaler(self) -> torch.amp.GradScaler:
        """Return the loss scaler, which fp16's small range needs. Otherwise it does nothing."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def __str__(self) -> str:
        others = f"; {self.processes.size} processes" if self.processes.size > 1 else ""
        device = describe(self.device)
        return f"precision: {self.precision} ({self.reason}); device: {device}{others}"


def choose_compute(
    device: str = "auto", precision: str = "auto", *, processes: Processes = ONE_PROCESS
) -> Compute:
    """Return the device and precision for the options --device and --precision.

    Each of several processes has a GPU of its own. Raises InputError for a device or precision
    that this machine does not have.

    Example:
        >>> print(choose_compute("cpu", "fp32"))
        precision: fp32 (as requested); device: cpu, ...
    """
    if precision not in ("auto", *DTYPES):
        raise InputError(f"--precision {precision}: is not one of auto, {', '.join(DTYPES)}")
    chosen = choose_device(device)
    check_gpus(chosen, processes)
    return Compute(chosen, *choose_precision(precision, chosen), processes)


def choose_device(name: str) -> torch.device:
    """Return the device of this name. `auto` is a GPU if there is one."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # fails on "meta" and the like
    except (RuntimeError, AssertionError, ImportError) as error:
        cause = str(error).partition("\n")[0]
        raise InputError(f"--device {name}: not on this machine ({cause})") from None
    return device


def choose_precision(name: str, device: torch.device) -> tuple[str, str]:
    """Return the precision of matrix products, and the reason.

    Warns if bf16 is requested on a processor without bf16 instructions. Raises InputError for int8
    on another device than a CPU.
    """
    if name == "int8" and device.type != "cpu":
        raise InputError(f"--precision int8 is for a CPU, not for {device.type}; add --device cpu")
    if name == "bf16" and device.type == "cpu" and not cpu_has_bf16():
        warnings.warn(
            "bf16 is emulated on this processor, which is several times slower than fp32",
            stacklevel=4,
        )
    if name != "auto":
        return name, "as requested"
    if device.type == "cuda":
        with torch.cuda.device(-1 if device.index is None else device.index):  # -1: the current one
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        if native:
            return "bf16", "this GPU computes it natively"
        return "fp16", "this GPU has no bf16; the loss is scaled"
    if device.type == "cpu":
        if cpu_has_bf16():
            return "bf16", "this processor has bf16 instructions"
        return "fp32", "this processor has no bf16 instructions"
    return "fp32", f"lower precision has not been benchmarked on {device.type}"


def cpu_has_bf16() -> bool:
    """Return whether the processor multiplies bf16 (AVX512-BF16), as far as PyTorch tells."""
    try:
        return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    except AttributeError:  # before torch 2.10
        return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def describe(device: torch.device) -> str:
    """Return a device's name for a person."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' if threads > 1 else ''}"


@contextmanager
def memory_advice(advice: Callable[[], str]) -> Iterator[None]:
    """Turn an out-of-memory error into an InputError with this advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"out of memory, {advice()}") from None


def is_out_of_memory(error: Exception) -> bool:
    """Return whether there was too little memory. On a CPU and MPS it is a RuntimeError."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "DefaultCPUAllocator" in str(error) or "MPS backend out of memory" in str(error)
