"""Proves how device and numbers are chosen, and that what cannot be had is said.

Run: pytest tests/test_runtime.py
"""

import pytest
import torch

from minibert.device import (
    DTYPES,
    Compute,
    choose_compute,
    choose_device,
    choose_precision,
    describe_device,
)
from minibert.errors import InputError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "device"), [(1, 1, "cuda"), (1, 0, "cuda"), (0, 1, "mps"), (0, 0, "cpu")]
)
def test_auto_takes_a_gpu_where_there_is_one(monkeypatch, cuda, mps, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: bool(mps))
    assert choose_device("auto").type == device


@pytest.mark.parametrize("name", ["cpu", "cpu:0"])
def test_a_named_device_is_taken(name):
    assert choose_device(name) == torch.device(name)


@pytest.mark.parametrize("name", ["banana", "cuda:99", "xpu", "meta", "vulkan", ""])
def test_a_device_that_cannot_be_had_is_named(name):
    with pytest.raises(InputError, match=f"--device {name}: not on this machine"):
        choose_device(name)


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16", "int8"])
def test_a_named_precision_is_taken(name):
    dtype, why = choose_precision(name, CPU)
    assert dtype == DTYPES[name] and why == "as asked"


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "meta"])
def test_int8_is_for_a_cpu(device):
    kind = device.partition(":")[0]
    with pytest.raises(InputError, match=f"--precision int8 is for a CPU, not for {kind}; add --d"):
        choose_precision("int8", torch.device(device))


@pytest.mark.parametrize(("has", "name"), [(True, "bf16"), (False, "fp32")])
def test_a_processor_takes_bf16_only_where_it_has_instructions_for_it(monkeypatch, has, name):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    dtype, why = choose_precision("auto", CPU)
    assert dtype == DTYPES[name] and "bf16 instructions" in why


@pytest.mark.parametrize(("native", "name"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_takes_bf16_only_where_it_is_native(monkeypatch, native, name):
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: native or including_emulation,
    )
    assert choose_precision("auto", torch.device("cuda"))[0] == DTYPES[name]


def test_mps_takes_fp32():
    assert choose_precision("auto", torch.device("mps"))[0] == torch.float32


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_autocast_computes_products_in_the_chosen_numbers(name):
    with Compute(CPU, DTYPES[name]).autocast():
        assert (torch.ones(2, 3) @ torch.ones(3, 1)).dtype == DTYPES[name]


@pytest.mark.parametrize("name", ["bf16", "int8"])
def test_a_packed_model_is_in_its_numbers_already(name):
    with Compute(CPU, DTYPES[name], packed=True).autocast():
        assert (torch.ones(2, 3) @ torch.ones(3, 1)).dtype == torch.float32


def test_only_fp16_scales_its_loss():
    enabled = {name: Compute(CPU, dtype).scaler().is_enabled() for name, dtype in DTYPES.items()}
    assert enabled == {"fp32": False, "bf16": False, "fp16": True, "int8": False}


def test_a_runtime_says_what_it_chose_and_why():
    chosen = choose_compute("cpu", "bf16")
    assert str(chosen).startswith("precision: bf16 (as asked); device: cpu, ")


def test_a_processor_is_described_by_its_threads(monkeypatch):
    for count, text in ((1, "cpu, 1 thread"), (3, "cpu, 3 threads")):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        assert describe_device(CPU) == text
