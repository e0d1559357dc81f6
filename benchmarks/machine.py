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
SQUARE = 8192  # rows and columns of matrices that keep all of a GPU busy
CALLS = 50  # that are timed together on a GPU
PRECISIONS = ("fp32", "bf16")
COPIED = 2**28  # bytes
SECONDS = 1.0  # of measuring each limit
PEERS = ("transformers", "accelerate", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Limits:
    """What the machine reaches: operations a second by shape and precision, bytes copied a second.

    `products` has a dictionary of precisions for each shape.
    """

    products: dict[str, dict[str, float]]
    copied: float

    def operations(self, precision: str) -> float | None:
        """Return the highest rate of all shapes; None if the precision was not measured."""
        return max((r[precision] for r in self.products.values() if precision in r), default=None)

    def __str__(self) -> str:
        lines = []
        for shape, rates in self.products.items():
            found = ", ".join(f"{rate / 1e9:,.0f} in {name}" for name, rate in rates.items())
            lines.append(f"matrix product {shape}: {found} GFLOP/s; ")
        return f"{''.join(lines)}copy: {self.copied / 1e9:.1f} GB/s read and written"


@functools.cache
def measure_limits(config: EncoderConfig, device: str) -> Limits:
    """Measure the product of a layer's largest matrix, forward, and a copy.

    On a GPU, which a batch of short texts does not fill, also a product that does.
    """
    shapes = [(TOKENS, config.width, config.feed_forward)]
    if device == "cuda":
        shapes.append((SQUARE, SQUARE, SQUARE))
    rates = {
        "x".join(map(str, shape)): {name: product_rate(shape, name, device) for name in PRECISIONS}
        for shape in shapes
    }
    source = torch.arange(COPIED // 8, device=device)  # int64
    target = torch.empty_like(source)
    return Limits(rates, 2 * COPIED / fastest(lambda: target.copy_(source), device))


def product_rate(shape: tuple[int, int, int], precision: str, device: str) -> float:
    """Return the operations a second of (rows, inputs) times (inputs, outputs)."""
    rows, inputs, outputs = shape
    x = torch.randn(rows, inputs, device=device, dtype=DTYPES[precision])
    weight = torch.randn(outputs, inputs, device=device, dtype=DTYPES[precision])
    with torch.no_grad():
        seconds = min(fastest(product, device) for product in products(x, weight))
    return 2.0 * rows * inputs * outputs / seconds


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
    timed = seconds_on_gpu if device == "cuda" else seconds_on_cpu
    timed(function)  # the warm-up
    best, end = timed(function), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        best = min(best, timed(function))
    return best


def seconds_on_cpu(function: Callable[[], Tensor]) -> float:
    """Return the seconds of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def seconds_on_gpu(function: Callable[[], Tensor]) -> float:
    """Return the seconds of a call, on average of many: one alone is shorter than its launch."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(CALLS):
        function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / CALLS  # elapsed_time is in milliseconds


def describe_machine(device: str, threads: int) -> str:
    """Name the processor or GPU, the threads, and the versions of all that takes part."""
    name = processor()
    if device == "cuda":
        name = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}; {name}"
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
