"""Hidden states of frozen layers: kept for every token, given back in padded batches.

Run: pytest tests/test_hidden.py
"""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import random_texts
from hypothesis import given
from hypothesis import strategies as st

from minibert.data import hidden
from minibert.data.batches import TextDataset, TokenIds
from minibert.data.hidden import HiddenDataset, allocate
from minibert.errors import InputError
from minibert.processes import Processes


def numbered(text: int, length: int) -> torch.Tensor:
    """The vectors (S, 2) of a text: its number, and the place of each token."""
    return torch.tensor([[text + 1, place + 1] for place in range(length)], dtype=torch.float32)


def texts_of(lengths: list[int]) -> TextDataset:
    rows = [TokenIds(np.full(length, 7), length) for length in lengths]
    labels = np.arange(len(lengths)) % 3
    return TextDataset(rows, labels, pad_token_id=0, token_types=False)


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=7),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    data=st.data(),
)
def test_each_batch_has_the_vectors_of_its_texts_and_zeros_for_padding(lengths, dtype, data):
    texts = texts_of(lengths)
    kept = HiddenDataset(texts, allocate(texts, 2, dtype))
    for rows in np.array_split(data.draw(st.permutations(range(len(lengths)))), 2):
        if len(rows):  # a batch of other texts than those below
            padded = [numbered(row, lengths[row]) for row in rows]
            values = torch.nn.utils.rnn.pad_sequence(padded, batch_first=True, padding_value=99)
            kept.put(rows, values)
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, unique=True))
    (values, mask, _), labels = kept.batch(rows).inputs, kept.batch(rows).labels
    expected = [numbered(row, lengths[row]) for row in rows]
    expected = torch.nn.utils.rnn.pad_sequence(expected, batch_first=True)
    assert values.dtype == dtype
    assert values.float().tolist() == expected.tolist()
    assert (expected[:, :, 0] > 0).tolist() == (
        torch.ones(values.shape[:2]).bool() if mask is None else mask
    ).tolist()
    assert labels.tolist() == [row % 3 for row in rows]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_arrays_are_in_a_file_that_has_no_name(tmp_path, monkeypatch, dtype):
    texts = random_texts(7)
    size = (int(texts.lengths.sum()) + 1) * 12 * dtype.itemsize
    monkeypatch.setattr(hidden, "LARGE", size - 1)
    kept = HiddenDataset(texts, allocate(texts, 12, dtype, folder=tmp_path))
    assert hidden.in_file(kept.values)
    assert os.listdir(tmp_path) == []
    values = torch.randn(3, int(texts.lengths[[4, 0, 6]].max()), 12).to(dtype)
    kept.put([4, 0, 6], values)
    found, mask, _ = kept.batch([4, 0, 6]).inputs
    assert torch.equal(found, values * (1 if mask is None else mask[:, :, None]))


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def no_room(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(hidden, "LARGE", 0)
    monkeypatch.setattr(os, "posix_fallocate", no_room)
    with pytest.raises(InputError, match=r"no room for the .* GB .*No space left on device"):
        allocate(random_texts(7), 12, torch.float32, folder=tmp_path)
    with pytest.raises(InputError, match=r"missing: no room .*No such file"):
        allocate(random_texts(7), 12, torch.float32, folder=Path("missing"))
    assert os.listdir(tmp_path) == []


def test_arrays_are_on_a_gpu_if_a_quarter_of_its_free_memory_holds_them(monkeypatch):
    """The device `meta` stands for a GPU."""
    texts, meta = random_texts(7), torch.device("meta")
    size = (int(texts.lengths.sum()) + 1) * 12 * 4
    places = []
    for free in (4 * size, 4 * size - 1):
        monkeypatch.setattr(hidden, "free_gpu_memory", lambda _, free=free: free)
        places.append(allocate(texts, 12, torch.float32, device=meta).device.type)
    assert places == ["meta", "cpu"]


def test_the_arrays_of_several_processes_are_all_on_gpus_or_none_is(monkeypatch):
    class Others(Processes):
        def largest(self, number: int) -> int:
            return 1  # another process has no room on its GPU

    monkeypatch.setattr(hidden, "free_gpu_memory", lambda _: 10**12)
    options = {"device": torch.device("meta"), "processes": Others(0, 2)}
    assert allocate(random_texts(7), 12, torch.float32, **options).device.type == "cpu"


def test_an_array_on_a_gpu_is_not_in_a_file(monkeypatch):
    monkeypatch.setattr(hidden, "LARGE", 3)
    assert hidden.in_file(torch.zeros(1))
    assert not hidden.in_file(torch.zeros(1, device="meta"))


def test_a_cpu_has_no_gpu_memory():
    assert hidden.free_gpu_memory(torch.device("cpu")) == 0
