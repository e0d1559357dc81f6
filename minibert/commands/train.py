"""The story of a run: from a pretrained encoder and labelled texts to a classifier in a folder."""

from functools import partial
from typing import Any

import torch

from minibert.checkpoint.config_file import read_encoder_config, read_head_config, write_config
from minibert.checkpoint.load import load_classifier
from minibert.commands.agreement import check_processes
from minibert.commands.arguments import TrainArguments
from minibert.commands.baselines import score_baselines
from minibert.commands.final_scores import evaluate, scored_logits
from minibert.commands.new_head import check_options, choose_head
from minibert.commands.options import Settings
from minibert.commands.probabilities import fit_probabilities
from minibert.commands.report import try_report
from minibert.commands.run_callback import RunCallback
from minibert.commands.series import runs_of_series, series_settings, train_series
from minibert.commands.session import Session
from minibert.commands.text_figures import data_figures
from minibert.data.batches import Dataset
from minibert.data.check import check_data, check_splits
from minibert.data.datasets import TokenizedSplits, build_datasets, tokenize_splits
from minibert.data.options import DataOptions
from minibert.data.report import DataReport
from minibert.data.splits import Splits, read_splits
from minibert.data.token_report import unknown_warning
from minibert.data.tokenizer import Tokenizer
from minibert.data.windows import WindowDataset, encoded_rows
from minibert.device import Compute, cpu_has_bf16, memory_advice
from minibert.hub import find_model
from minibert.inference.batched import prepare_for_inference
from minibert.inference.text_classifier import TextClassifier
from minibert.processes import ONE_PROCESS, Processes, check_single
from minibert.tasks.choice import task_of
from minibert.training.features import SharedFeatures
from minibert.training.frozen import check_layers
from minibert.training.history import TrainResult
from minibert.training.logistic import fit_logistic, suggest_logistic
from minibert.training.loop import fit
from minibert.training.options import TrainingOptions

# Standard deviations over 10 seeds of BERT-large on SST-2 and MRPC, from NVIDIA's README of BERT.
SEED_NOISE = (
    "this is one seed; over 10 seeds of BERT-large the standard deviation of accuracy was 0.4 "
    "points on SST-2 (67,349 training texts) and 1.2 on MRPC (3,668): docs/results.md"
)


def main(arguments: TrainArguments, processes: Processes = ONE_PROCESS) -> None:
    """Train a classifier, or a series of them; or continue what was stopped."""
    settings = series_settings(arguments)
    if settings:
        check_single(processes, "a series of runs (--seeds, --folds, --learning-curve)")
        train_series(arguments, settings, partial(train_one, features=SharedFeatures()))
    else:
        train_one(arguments, processes, features=SharedFeatures())


def train_one(
    arguments: TrainArguments, processes: Processes = ONE_PROCESS, *, features: SharedFeatures
) -> None:
    """Train a classifier, or continue a run that was stopped.

    Runs of a series share features. Several processes share the steps and the predictions; the
    first one writes the files.
    """
    session = Session(arguments, processes)
    settings, compute = session.settings, session.compute

    # The model's files, and the data
    folder = find_model(settings.run.model, revision=settings.run.revision)
    config = read_encoder_config(folder)
    check_layers(settings.training, config.layers)
    tokenizer = Tokenizer.from_folder(folder, config)
    stored = read_head_config(folder)
    model_task = stored.task if stored else None
    if arguments.check_data:
        print(check_data(settings.data, tokenizer, model_task=model_task))
        return
    splits, tokenized, data_report = read_texts(settings.data, tokenizer, model_task)

    # The classifier, and the datasets for its classes
    torch.manual_seed(settings.training.seed)
    head = choose_head(stored, config, splits.train, settings.run, tokenized)
    check_options(head, settings)
    classifier = TextClassifier(load_classifier(folder, head), tokenizer)
    datasets = build_datasets(tokenized, splits, classifier.task.targets, config)
    print(*session.notes(classifier), compute, *check_processes(processes, settings), sep="\n")
    if not (session.resumed or settings.training.freeze or settings.run.head == "logistic"):
        for line in suggest_logistic(head, datasets["train"].labels):
            print(line)

    with session.open(classifier, splits, folder) as run:
        # Again if the run was stopped before its first epoch: its settings may have been edited.
        if processes.is_first and not run.folder.history_file.exists():
            classifier.save_settings(run.folder.path, head)
        options, logistic = settings.training, settings.run.head == "logistic"
        if options.freeze or logistic:
            datasets = features.encode(classifier, tokenized, datasets, options, compute, run)
        train_model = train_logistic if logistic else train
        training = train_model(classifier, datasets, options, compute, run)
        best = prepare_for_inference(load_classifier(run.folder.path).model, compute)
        logits = scored_logits(best, datasets, options)
        if not processes.is_first:
            return
        targets = datasets["validation"].labels
        tuned = fit_probabilities(head, logits["validation"], targets, settings.run)
        write_config(run.folder.path, config, tuned)
        figures, predictions = evaluate(task_of(tuned), logits, datasets, splits, tokenized)
        if head.task == "single-label" and "test" in logits and is_one_seed(settings):
            print(SEED_NOISE)
        if not settings.run.no_baseline:
            thresholds = settings.run.thresholds
            figures["baselines"] = score_baselines(splits, head, thresholds=thresholds)
        figures["data"] = data_figures(data_report, tokenized)
        figures["training"] = {"texts": len(splits.train), **training, **features.cost()}
        run.folder.finish(figures, predictions)
    try_report(run.folder.path)


def read_texts(
    options: DataOptions, tokenizer: Tokenizer, model_task: str | None
) -> tuple[Splits, TokenizedSplits, DataReport]:
    """Read and tokenize the splits, and print what is in them."""
    splits = read_splits(options, model_task=model_task)
    report = check_splits(splits)
    print(report)
    tokenized = tokenize_splits(splits, tokenizer, options)
    print(tokenized.report, *unknown_warning(tokenized.texts["train"].rows, tokenizer), sep="\n")
    return splits, tokenized, report


def is_one_seed(settings: Settings) -> bool:
    """Return whether another seed would give another model, and no other one is trained."""
    return settings.run.head != "logistic" and not runs_of_series(settings)


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
    if result.encoding_seconds:
        epochs = len(result.history)
        print(f"above the frozen layers: {epochs} epochs in {result.seconds:.1f} s")
    return training_figures(result, len(train))


def train_logistic(
    classifier: TextClassifier,
    datasets: dict[str, Dataset],
    options: TrainingOptions,
    compute: Compute,
    run: RunCallback,
) -> dict[str, Any]:
    """Fit a logistic regression; the weights are in the folder. A killed run starts again."""
    train, validation = datasets["train"], datasets["validation"]
    result = fit_logistic(
        classifier.model, train, validation, options, compute=compute, callback=run
    )
    run.folder.write_history(result.history)
    print(result)
    return {**training_figures(result, len(train)), "c": result.c, "folds": result.folds}


def training_figures(result: TrainResult, texts: int) -> dict[str, Any]:
    """Return the figures of the training as metrics.json has them."""
    epochs = len(result.history)
    figures: dict[str, Any] = {
        "epochs": epochs,
        "best_epoch": result.best_epoch,
        "seconds": round(result.seconds, 3),
        "texts_per_second": round(epochs * texts / result.seconds, 1),
    }
    if result.encoding_seconds:
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
        if isinstance(train, WindowDataset) and train.counts.max() > size // 2:
            advice.append(f"--max-windows below {train.counts.max()}")
        if compute.precision == "fp32" and (compute.device.type == "cuda" or cpu_has_bf16()):
            advice.append("--precision bf16")
    return (
        f"training on {size} texts per batch, the longest of {longest} tokens; start a new run "
        f"with {' or '.join(advice or ['fewer texts'])}"
    )
