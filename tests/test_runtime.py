"""Proves how device and numbers are chosen, and that what cannot be had is said.

Run: pytest tests/test_runtime.py
"""

import pytest
import torch
from torch import nn

from minibert.errors import InputError
from minibert.runtime import (
    DTYPES,
    autocast,
    choose_device,
    choose_precision,
    describe_device,
    device_of,
    gradient_scaler,
    precision_name,
)

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


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_a_named_precision_is_taken_and_has_its_name_back(name):
    dtype, why = choose_precision(name, CPU)
    assert dtype == DTYPES[name] and why == "as asked"
    assert precision_name(dtype) == name


@pytest.mark.parametrize(("has", "name"), [(True, "bf16"), (False, "fp32")])
def test_a_processor_takes_bf16_only_where_it_has_instructions_for_it(monkeypatch, has, name):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    dtype, why = choose_precision("auto", CPU)
    assert precision_name(dtype) == name and "bf16 instructions" in why


@pytest.mark.parametrize(("native", "name"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_takes_bf16_only_where_it_is_native(monkeypatch, native, name):
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: native or including_emulation,
    )
    assert precision_name(choose_precision("auto", torch.device("cuda"))[0]) == name


def test_mps_takes_fp32():
    assert choose_precision("auto", torch.device("mps"))[0] == torch.float32


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_autocast_computes_products_in_the_chosen_numbers(name):
    with autocast(CPU, DTYPES[name]):
        assert (torch.ones(2, 3) @ torch.ones(3, 1)).dtype == DTYPES[name]


def test_only_fp16_scales_its_loss():
    enabled = {name: gradient_scaler(CPU, dtype).is_enabled() for name, dtype in DTYPES.items()}
    assert enabled == {"fp32": False, "bf16": False, "fp16": True}


def test_a_device_is_described_and_found_from_a_module(monkeypatch):
    assert device_of(nn.Linear(2, 3)) == CPU
    for count, text in ((1, "cpu, 1 thread"), (3, "cpu, 3 threads")):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        assert describe_device(CPU) == text
