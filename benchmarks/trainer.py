"""transformers' Trainer in the race: with its default arguments, and at its best."""

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.task import Repetition, Task


class Clock(TrainerCallback):
    """Takes the time from the first step's begin to the last step's end."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Forget the last training."""
        self.started = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start, at the first step."""
        self.started = self.started or time.perf_counter()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Stop; an epoch is all that each training is long."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self.started


def training(task: Task) -> Callable[[int], Repetition]:
    """Train the whole model; a repetition is one more call of train()."""
    # Plain matrix products are the faster attention for training in bf16 on a CPU.
    eager = task.tuned and task.precision == "bf16" and task.device == "cpu"
    attention = {"attn_implementation": "eager"} if eager else {}
    model = AutoModelForSequenceClassification.from_pretrained(task.folder, **attention)
    tokenizer = AutoTokenizer.from_pretrained(task.folder)
    clock = Clock()
    trainer = Trainer(
        model,
        arguments(task),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        callbacks=[clock],
    )

    def repeat(count: int) -> Repetition:
        encoded = tokenizer(task.texts[:count])
        trainer.train_dataset = [
            {"input_ids": ids, "attention_mask": mask, "label": label}
            for ids, mask, label in zip(
                encoded["input_ids"], encoded["attention_mask"], task.labels, strict=False
            )
        ]
        trainer.train()
        return Repetition(clock.seconds, count)

    return repeat


def arguments(task: Task) -> TrainingArguments:
    """Return one epoch's arguments; tuned: texts of like length together, in `task.precision`."""
    tuned: dict[str, Any] = {}
    if task.tuned:
        tuned = {
            "bf16": task.precision == "bf16",
            "train_sampling_strategy": "group_by_length",
            "optim": "adamw_torch_fused",
            "logging_strategy": "no",
            "logging_nan_inf_filter": False,
            "disable_tqdm": True,
            # A GPU must not wait for batches; on a CPU these processes would take its cores.
            "dataloader_num_workers": 2 if task.device == "cuda" else 0,
        }
    return TrainingArguments(
        output_dir=f"{task.folder}/trainer",
        per_device_train_batch_size=task.batch,
        num_train_epochs=1,
        save_strategy="no",
        report_to="none",
        use_cpu=task.device == "cpu",
        **tuned,
    )
