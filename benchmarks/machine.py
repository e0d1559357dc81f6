"""What a table must say of the machine: its processor, its threads, and how fast it can be."""

import functools
import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from minibert.device import DTYPES, cpu_has_bf16
from minibert.model.config import EncoderConfig

TOKENS = 416  # of a batch of 32 texts of 13 tokens, SST-2's mean
PRECISIONS = ("fp32", "bf16")
COPIED = 2**28  # bytes
SECONDS = 1.0  # of measuring each limit
PEERS = ("transformers", "accelerate", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Limits:
    """What the machine reaches: operations a second by precision, bytes copied a second."""

    shape: str
    operations: dict[str, float]
    copied: float

    def __str__(self) -> str:
        rates = ", ".join(f"{rate / 1e9:,.0f} in {name}" for name, rate in self.operations.items())
        return (
            f"matrix product {self.shape}: {rates} GFLOP/s; "
            f"copy: {self.copied / 1e9:.1f} GB/s read and written"
        )


@functools.cache
def measure_limits(config: EncoderConfig, device: str) -> Limits:
    """Measure the product of a layer's largest matrix, forward, and a copy."""
    shape = (TOKENS, config.width, config.feed_forward)
    work = 2.0 * TOKENS * config.width * config.feed_forward
    rates = {}
    for name in PRECISIONS:
        x = torch.randn(shape[0], shape[1], device=device, dtype=DTYPES[name])
        weight = torch.randn(shape[2], shape[1], device=device, dtype=DTYPES[name])
        with torch.no_grad():
            rates[name] = work / min(fastest(product, device) for product in products(x, weight))
    source = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = 2 * COPIED / fastest(lambda: target.copy_(source), device)
    return Limits("x".join(map(str, shape)), rates, copied)


def products(x: Tensor, weight: Tensor) -> list[Callable[[], Tensor]]:
    """Return the ways in which PyTorch multiplies; on a CPU oneDNN's own may be the faster."""
    ways: list[Callable[[], Tensor]] = [lambda: F.linear(x, weight)]
    has_kernel = x.dtype == torch.float32 or cpu_has_bf16()
    if x.device.type == "cpu" and torch.backends.mkldnn.is_available() and has_kernel:
        linear = torch.ops.mkldnn._linear_pointwise
        ways.append(lambda: linear(x, weight, None, "none", [], ""))
    return ways


def fastest(function: Callable[[], Tensor], device: str) -> float:
    """Return the least seconds of a call; what is in its way only ever makes it slower."""
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        started = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def describe_machine(device: str, threads: int) -> str:
    """Name the processor or GPU, the threads, and the versions of all that takes part."""
    name = torch.cuda.get_device_name() if device == "cuda" else processor()
    versions = [f"torch {torch.__version__}"]
    for package in PEERS:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}; {', '.join(versions)}"


def processor() -> str:
    """Return the processor's name."""
    file = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", file.read_text()) if file.exists() else None
    return found[1] if found else platform.processor() or platform.machine()
