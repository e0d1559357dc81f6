"""The story of a run: from a pretrained encoder and labelled texts to a classifier in a folder."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minibert.checkpoint.config_file import read_encoder_config, read_head_config, write_config
from minibert.checkpoint.families import FAMILIES
from minibert.checkpoint.load import load_classifier
from minibert.commands.arguments import TrainArguments
from minibert.commands.options import RunOptions, Settings
from minibert.commands.probabilities import fit_probabilities, tell_probabilities
from minibert.commands.session import RunCallback, Session
from minibert.data.batches import Dataset
from minibert.data.classes import output_names
from minibert.data.datasets import TokenizedSplits, build_datasets, tokenize_splits
from minibert.data.examples import Examples
from minibert.data.splits import Splits, describe_splits, read_splits
from minibert.data.tokenizer import Tokenizer
from minibert.data.windows import encoded_rows
from minibert.device import Compute, cpu_has_bf16, memory_advice
from minibert.errors import InputError
from minibert.hub import find_model
from minibert.inference.batched import InferenceModel, prepare_for_inference
from minibert.inference.text_classifier import TextClassifier
from minibert.model.config import EncoderConfig, HeadConfig
from minibert.tasks.choice import task_of
from minibert.tasks.multi_label import MultiLabel
from minibert.tasks.single_label import SingleLabel
from minibert.tasks.task import Task, check_finite
from minibert.training.frozen import check_layers
from minibert.training.loop import fit
from minibert.training.options import TrainingOptions


def main(arguments: TrainArguments) -> None:
    """Train a classifier, or continue a run that was stopped."""
    session = Session(arguments)
    settings, compute = session.settings, session.compute

    # The model's files, and the data
    folder = find_model(settings.run.model, revision=settings.run.revision)
    config = read_encoder_config(folder)
    check_layers(settings.training, config.layers)
    tokenizer = Tokenizer.from_folder(folder, config)
    stored = read_head_config(folder)
    splits = read_splits(settings.data, model_task=stored.task if stored else None)
    print(describe_splits(splits))
    tokenized = tokenize_splits(
        *(splits, tokenizer),
        max_length=settings.data.max_length,
        positions=config.max_tokens,
        long_texts=settings.data.shortening(),
        max_windows=settings.data.max_windows,
    )
    print(tokenized.report)

    # The classifier, and the datasets for its classes
    torch.manual_seed(settings.training.seed)
    head = choose_head(stored, config, splits.train, settings.run, tokenized)
    check_options(task_of(head), settings)
    classifier = TextClassifier(load_classifier(folder, head), tokenizer)
    datasets = build_datasets(tokenized, splits, classifier.task.targets, config)
    print(*session.notes(classifier), compute, sep="\n")

    with session.open(classifier, splits, folder) as run:
        tokenizer.save(run.folder.path, wordpiece_class=FAMILIES[config.family].wordpiece_class)
        write_config(run.folder.path, config, head)
        training = train(classifier, datasets, settings.training, compute, run)
        best = prepare_for_inference(load_classifier(run.folder.path).model, compute)
        logits = scored_logits(best, datasets, settings.training)
        targets = datasets["validation"].labels
        head = fit_probabilities(head, logits["validation"], targets, settings.run)
        write_config(run.folder.path, config, head)
        figures, predictions = evaluate(task_of(head), logits, datasets, splits)
        run.folder.finish({**figures, "training": training}, predictions)


def choose_head(
    stored: HeadConfig | None,
    config: EncoderConfig,
    train: Examples,
    options: RunOptions,
    tokenized: TokenizedSplits,
) -> HeadConfig:
    """Return the head to train. If the checkpoint's has the same classes, their order is kept."""
    names = output_names(train)
    if stored and same_outputs(stored, names, train.task):
        names = stored.labels
    default = FAMILIES[config.family].native_pooling if options.head == "native" else "cls"
    pooling = options.pooling or default
    length, long_texts = tokenized.max_length, tokenized.long_texts
    return HeadConfig(options.head, pooling, names, length, train.task, long_texts=long_texts)


def same_outputs(stored: HeadConfig, names: Sequence[str], task: str) -> bool:
    """Return whether a head has the outputs of the data; the name of a single number may differ."""
    if stored.task != task:
        return False
    if task == "regression" and len(stored.labels) == len(names) == 1:
        return True
    return sorted(map(str.lower, stored.labels)) == sorted(map(str.lower, names))


def check_options(task: Task, settings: Settings) -> None:
    """Raise InputError for options of another task, before there is a run."""
    task.check_options(settings.training)
    task.selects(settings.training.select)
    if settings.run.thresholds != RunOptions().thresholds and not isinstance(task, MultiLabel):
        raise InputError("--thresholds is for several labels; drop it")
    if settings.run.target_accuracy is not None and not isinstance(task, SingleLabel):
        raise InputError("--target-accuracy is for one class per text; drop it")


def train(
    classifier: TextClassifier,
    datasets: dict[str, Dataset],
    options: TrainingOptions,
    compute: Compute,
    run: RunCallback,
) -> dict[str, Any]:
    """Train the classifier; return the figures of the training. The best epoch is in the folder."""
    train, validation = datasets["train"], datasets["validation"]
    with memory_advice(lambda: smaller_batches(train, options, compute)):
        result = fit(
            classifier.model,
            train,
            validation,
            options,
            compute=compute,
            callback=run,
            keep_best=False,  # the run's folder has it
        )
    epochs = len(result.history)
    figures: dict[str, Any] = {
        "epochs": epochs,
        "best_epoch": result.best_epoch,
        "seconds": round(result.seconds, 3),
        "texts_per_second": round(epochs * len(train) / result.seconds, 1),
    }
    if result.encoding_seconds:
        print(f"above the frozen layers: {epochs} epochs in {result.seconds:.1f} s")
        figures["encoding_seconds"] = round(result.encoding_seconds, 3)
    return figures


def smaller_batches(train: Dataset, options: TrainingOptions, compute: Compute) -> str:
    """Return what to change if a training step needs too much memory."""
    size, rows = options.batch_size, options.batch_size * options.accumulate
    longest = int(encoded_rows(train).lengths.max())
    advice = []
    if size > 1:
        # The largest batch of at most half the size that fills the same optimizer steps.
        half = next(n for n in range(size // 2, 0, -1) if rows % n == 0)
        advice.append(f"--batch-size {half} --accumulate {rows // half} (the same steps)")
    if not options.freeze:
        advice.append(f"--max-length below {longest}")
        if compute.precision == "fp32" and (compute.device.type == "cuda" or cpu_has_bf16()):
            advice.append("--precision bf16")
    return (
        f"training on {size} texts per batch, the longest of {longest} tokens; start a new run "
        f"with {' or '.join(advice or ['fewer texts'])}"
    )


def scored_logits(
    model: InferenceModel, datasets: dict[str, Dataset], options: TrainingOptions
) -> dict[str, Tensor]:
    """Return the logits of the validation split and of the test split, if there is one."""
    names = [name for name in ("validation", "test") if name in datasets]
    return {name: model.logits(datasets[name], batch_size=options.batch_size) for name in names}


def evaluate(
    task: Task, logits: dict[str, Tensor], datasets: dict[str, Dataset], splits: Splits
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Score validation and, for the only time, test; return figures and the test's predictions."""
    figures = {}
    for name, values in logits.items():
        labels = datasets[name].labels
        scores = task.score(values, labels)
        check_finite(scores)
        if name == "test":
            print(task.report(values, labels))
        print(f"{name}: {scores}")
        probabilities = tell_probabilities(task, values, labels, start=f"{name}: ")
        figures[name] = {**scores.to_json(), **probabilities}
    if splits.test is None:
        return figures, []
    return figures, prediction_rows(splits.test, task, labels, logits["test"])


def prediction_rows(
    test: Examples, task: Task, labels: Tensor, logits: Tensor
) -> list[dict[str, Any]]:
    """Return one row per text: the text, its label, the prediction and a class's probability."""
    rows = []
    results = zip(task.labels(labels), task.records(logits), strict=True)
    for i, (label, record) in enumerate(results):
        row = {"text": test.texts[i], "label": label, "prediction": record[task.keys[0]]}
        if test.pairs is not None:
            row["pair"] = test.pairs[i]
        if "probability" in record:
            row["probability"] = record["probability"]
        rows.append(row)
    return rows
