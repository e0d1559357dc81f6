"""How device and precision are chosen; what this machine does not have is an error.

Run: pytest tests/test_device.py
"""

import warnings
from pathlib import Path

import pytest
import torch

from minibert.commands.arguments import TrainArguments
from minibert.commands.options import Settings
from minibert.commands.session import Session
from minibert.data.columns import Columns
from minibert.device import (
    DTYPES,
    Compute,
    choose_compute,
    choose_device,
    choose_precision,
    cpu_has_bf16,
    describe,
    memory_advice,
)
from minibert.errors import InputError
from minibert.processes import ONE_PROCESS, Processes, check_gpus
from minibert.runs import Metadata, RunFolder

CPU = torch.device("cpu")


def pretend_bf16(monkeypatch: pytest.MonkeyPatch, has_bf16: bool) -> None:
    """Let PyTorch report a processor with or without bf16 instructions."""
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_bf16}, raising=False
    )


# Device


@pytest.mark.parametrize(
    ("cuda", "mps", "device"), [(1, 1, "cuda"), (1, 0, "cuda"), (0, 1, "mps"), (0, 0, "cpu")]
)
def test_auto_is_a_gpu_if_there_is_one(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: int, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: bool(mps))
    assert choose_device("auto").type == device


@pytest.mark.parametrize("name", ["cpu", "cpu:0"])
def test_a_named_device_is_used(name: str) -> None:
    assert choose_device(name) == torch.device(name)


@pytest.mark.parametrize("name", ["banana", "cuda:99", "xpu", "meta", "vulkan", ""])
def test_the_error_for_a_device_that_is_not_there_names_it(name: str) -> None:
    with pytest.raises(InputError, match=f"--device {name}: not on this machine"):
        choose_device(name)


@pytest.mark.parametrize(("threads", "text"), [(1, "cpu, 1 thread"), (3, "cpu, 3 threads")])
def test_a_cpu_is_described_by_its_threads(
    monkeypatch: pytest.MonkeyPatch, threads: int, text: str
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert describe(CPU) == text


# Precision


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16", "int8"])
def test_a_named_precision_is_used(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pretend_bf16(monkeypatch, True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_precision(name, CPU) == (name, "as requested")


def test_bf16_without_bf16_instructions_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_bf16(monkeypatch, False)
    with pytest.warns(UserWarning, match="bf16 is emulated .* several times slower"):
        compute = choose_compute("cpu", "bf16")
    assert (compute.precision, compute.reason) == ("bf16", "as requested")


def test_a_new_and_a_resumed_run_without_bf16_instructions_warn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_bf16(monkeypatch, False)
    settings = Settings.from_dict({"device": "cpu", "precision": "bf16"})
    with pytest.warns(UserWarning, match="bf16 is emulated"):
        Session(TrainArguments(settings, out=tmp_path / "new", resume=None))
    saved = Metadata(Columns("text"), {}, {})
    run = RunFolder.create(tmp_path / "run", settings.to_dict(), saved)
    with pytest.warns(UserWarning, match="bf16 is emulated"):
        Session(TrainArguments(settings, out=None, resume=run.path))


@pytest.mark.parametrize("name", ["auto", "fp32", "fp16", "int8"])
def test_other_precisions_without_bf16_instructions_do_not_warn(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pretend_bf16(monkeypatch, False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose_compute("cpu", name)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "meta"])
def test_int8_is_only_for_a_cpu(device: str) -> None:
    kind = device.partition(":")[0]
    with pytest.raises(InputError, match=f"--precision int8 is for a CPU, not for {kind}; add --d"):
        choose_precision("int8", torch.device(device))


@pytest.mark.parametrize(("has_bf16", "name"), [(True, "bf16"), (False, "fp32")])
def test_auto_on_a_cpu_is_bf16_if_it_has_the_instructions(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, name: str
) -> None:
    pretend_bf16(monkeypatch, has_bf16)
    precision, reason = choose_precision("auto", CPU)
    assert precision == name and "bf16 instructions" in reason


@pytest.mark.parametrize("has_bf16", [True, False])
def test_an_older_pytorch_is_asked_for_bf16_in_its_way(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16, raising=False)
    assert cpu_has_bf16() == has_bf16


def test_a_pytorch_that_does_not_tell_has_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert not cpu_has_bf16()


@pytest.mark.parametrize(("native", "name"), [(True, "bf16"), (False, "fp16")])
def test_auto_on_a_gpu_is_bf16_if_it_is_native(
    monkeypatch: pytest.MonkeyPatch, native: bool, name: str
) -> None:
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: native or including_emulation,
    )
    assert choose_precision("auto", torch.device("cuda"))[0] == name


def test_auto_on_mps_is_fp32() -> None:
    assert choose_precision("auto", torch.device("mps"))[0] == "fp32"


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_autocast_computes_products_in_the_precision(name: str) -> None:
    with Compute(CPU, name).autocast():
        assert (torch.ones(2, 3) @ torch.ones(3, 1)).dtype == DTYPES[name]


def test_only_fp16_scales_its_loss() -> None:
    enabled = {name: Compute(CPU, name).scaler().is_enabled() for name in DTYPES}
    assert enabled == {"fp32": False, "bf16": False, "fp16": True, "int8": False}


def test_the_choice_is_printed_with_its_reason() -> None:
    compute = choose_compute("cpu", "fp32")
    assert str(compute).startswith("precision: fp32 (as requested); device: cpu, ")


# Memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"),
    ],
)
def test_running_out_of_memory_is_an_error_with_advice(error: Exception) -> None:
    with (
        pytest.raises(InputError, match="out of memory, use smaller batches"),
        memory_advice(lambda: "use smaller batches"),
    ):
        raise error


def test_other_errors_are_not_out_of_memory() -> None:
    with pytest.raises(RuntimeError, match="a bug"), memory_advice(lambda: "advice"):
        raise RuntimeError("a bug")


def test_each_of_several_processes_needs_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    several = Processes(rank=1, size=3)
    check_gpus(torch.device("cpu"), several)
    check_gpus(torch.device("cuda:1"), ONE_PROCESS)
    for name in ("cuda:1", "mps"):
        with pytest.raises(InputError, match=f"--device {name}: is for one process; give cuda"):
            check_gpus(torch.device(name), several)
    with pytest.raises(InputError, match="3 processes on a machine with 2 GPUs"):
        check_gpus(torch.device("cuda"), several)
