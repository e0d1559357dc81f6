"""Fine-tuning as tutorials write it: transformers' model, a plain loop, fp32, padding to 128."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
)

from benchmarks.task import BATCH, LONGEST, Repetition, Task


def training(task: Task) -> Callable[[int], Repetition]:
    """Train the whole model."""
    model = AutoModelForSequenceClassification.from_pretrained(task.folder).to(task.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    model.train()

    def repeat(count: int) -> Repetition:
        loader = padded_batches(task, count)
        scheduler = get_linear_schedule_with_warmup(optimizer, len(loader) // 10, len(loader))
        started = time.perf_counter()
        for input_ids, attention_mask, labels in on_device(loader, task.device):
            optimizer.zero_grad()
            loss = model(input_ids=input_ids, attention_mask=attention_mask, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            loss.item()
        wait(task.device)
        return Repetition(time.perf_counter() - started, count)

    return repeat


def frozen(task: Task) -> Callable[[int], Repetition]:
    """Train a head on an encoder without gradients, which reads every text in every epoch."""
    encoder = AutoModel.from_pretrained(task.folder).to(task.device)
    width, classes = encoder.config.hidden_size, encoder.config.num_labels
    head = nn.Sequential(
        nn.Linear(width, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, classes)
    ).to(task.device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)

    def repeat(count: int) -> Repetition:
        loader = padded_batches(task, count)
        started = time.perf_counter()
        for input_ids, attention_mask, labels in on_device(loader, task.device):
            with torch.no_grad():
                hidden = encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(head(hidden[:, 0]), labels)
            loss.backward()
            optimizer.step()
            loss.item()
        wait(task.device)
        return Repetition(time.perf_counter() - started, count)

    return repeat


def padded_batches(task: Task, count: int) -> DataLoader:
    """Tokenize the first texts of the task, all to one length."""
    tokenizer = AutoTokenizer.from_pretrained(task.folder)
    encoded = tokenizer(
        task.texts[:count],
        padding="max_length",
        truncation=True,
        max_length=LONGEST,
        return_tensors="pt",
    )
    labels = torch.tensor(task.labels[:count])
    data = TensorDataset(encoded["input_ids"], encoded["attention_mask"], labels)
    return DataLoader(data, batch_size=BATCH, shuffle=True)


def on_device(loader: DataLoader, device: str) -> Iterable[Any]:
    """Yield the batches, moved to the device."""
    for batch in loader:
        yield [tensor.to(device) for tensor in batch]


def wait(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
