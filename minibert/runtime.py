"""Where and in which numbers a run computes, with the reason."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from minibert.errors import InputError

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.int8,  # for answers only
}


@dataclass(frozen=True)
class Runtime:
    """A device, the type that matrix products are done in, and why that type."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    why: str = "as asked"
    packed: bool = False  # the model itself is in that type

    def autocast(self) -> torch.autocast:
        """Return the context for forward passes; it does nothing in fp32 or for a packed model."""
        enabled = self.dtype != torch.float32 and not self.packed
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled)

    def scaler(self) -> torch.amp.GradScaler:
        """Return the loss scaler that fp16's small range needs; it does nothing otherwise."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    @property
    def precision(self) -> str:
        """The type's short name, as --precision takes it."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    def __str__(self) -> str:
        return f"precision: {self.precision} ({self.why}); device: {describe_device(self.device)}"


def choose_runtime(device: str, precision: str) -> Runtime:
    """Return what --device and --precision ask for; raises InputError for a device not here."""
    found = choose_device(device)
    return Runtime(found, *choose_precision(precision, found))


def choose_device(name: str) -> torch.device:
    """Return the device of a name; `auto` takes a GPU where there is one."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" and the like cannot
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"--device {name}: not on this machine ({reason})") from None
    return device


def choose_precision(name: str, device: torch.device) -> tuple[torch.dtype, str]:
    """Return the type that matrix products are done in, and why."""
    if name == "int8" and device.type != "cpu":
        raise InputError(f"--precision int8 is for a CPU, not for {device.type}; add --device cpu")
    if name != "auto":
        return DTYPES[name], "as asked"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "this GPU computes it natively"
        return torch.float16, "this GPU has no bf16; the loss is scaled"
    if device.type == "cpu":
        if torch.cpu._is_avx512_bf16_supported():
            return torch.bfloat16, "this processor has bf16 instructions"
        return torch.float32, "this processor has no bf16 instructions"
    return torch.float32, f"not measured on {device.type} in less"


def describe_device(device: torch.device) -> str:
    """Return a device as a person names it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' if threads > 1 else ''}"


@contextmanager
def memory_advice(advice: Callable[[], str]) -> Iterator[None]:
    """Turn running out of memory into an InputError that says at what, and what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not told and "DefaultCPUAllocator" not in str(error):  # a CPU's has no type of its own
            raise
        raise InputError(f"out of memory, {advice()}") from None
