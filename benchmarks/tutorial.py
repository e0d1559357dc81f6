"""Fine-tuning as tutorials write it: transformers' model, a plain loop, fp32, padding to 128."""

import time
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
)

from benchmarks.task import EPOCHS, LONGEST, Repetition, Task


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
    """Train a head on an encoder that reads every text in every epoch; tuned: once, EPOCHS on."""
    dtype = torch.bfloat16 if task.precision == "bf16" else torch.float32
    encoder = AutoModel.from_pretrained(task.folder, dtype=dtype).to(task.device)
    width, classes = encoder.config.hidden_size, encoder.config.num_labels
    head = nn.Sequential(
        nn.Linear(width, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, classes)
    ).to(task.device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)

    def first_vectors(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        with torch.no_grad():
            return encoder(input_ids=input_ids, attention_mask=attention_mask)[0][:, 0].float()

    def train_head(batches: Iterable[Sequence[Tensor]]) -> None:
        for features, labels in batches:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(head(features), labels)
            loss.backward()
            optimizer.step()
            loss.item()

    def encode_each_epoch(count: int) -> Repetition:
        loader = padded_batches(task, count)
        started = time.perf_counter()
        train_head(
            (first_vectors(input_ids, attention_mask), labels)
            for input_ids, attention_mask, labels in on_device(loader, task.device)
        )
        wait(task.device)
        return Repetition(time.perf_counter() - started, count)

    def encode_once(count: int) -> Repetition:
        batches = sorted_batches(task, count)
        started = time.perf_counter()
        parts = [(first_vectors(*inputs), labels) for *inputs, labels in batches]
        data = TensorDataset(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        for _ in range(EPOCHS):
            train_head(DataLoader(data, batch_size=task.batch, shuffle=True))
        wait(task.device)
        return Repetition(time.perf_counter() - started, EPOCHS * count)

    return encode_once if task.tuned else encode_each_epoch


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
    return DataLoader(data, batch_size=task.batch, shuffle=True)


def sorted_batches(task: Task, count: int) -> list[Sequence[Tensor]]:
    """Tokenize the first texts of the task, in batches of like length on the device."""
    tokenizer = AutoTokenizer.from_pretrained(task.folder)
    ids = tokenizer(task.texts[:count], truncation=True, max_length=LONGEST)["input_ids"]
    order = sorted(range(count), key=lambda i: len(ids[i]), reverse=True)
    batches = []
    for start in range(0, count, task.batch):
        rows = order[start : start + task.batch]
        padded = tokenizer.pad({"input_ids": [ids[i] for i in rows]}, return_tensors="pt")
        labels = torch.tensor([task.labels[i] for i in rows])
        batches.append((padded["input_ids"], padded["attention_mask"], labels))
    return list(on_device(batches, task.device))


def on_device(loader: Iterable[Sequence[Tensor]], device: str) -> Iterable[list[Tensor]]:
    """Yield the batches, moved to the device."""
    for batch in loader:
        yield [tensor.to(device) for tensor in batch]


def wait(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
