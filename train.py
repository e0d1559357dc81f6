"""Train a text classifier on a BERT or DistilBERT: `python train.py --help`."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from minibert.batches import Part, Texts
from minibert.config import EncoderConfig, HeadConfig, native_pooling, read_head
from minibert.data import Examples, class_ids, class_names
from minibert.errors import InputError, run_command
from minibert.files import read_json
from minibert.hf import Checkpoint, load_classifier, read_encoder_config, save_config, save_weights
from minibert.hub import find_model
from minibert.lengths import tokenize
from minibert.metrics import report, score
from minibert.model import Classifier
from minibert.parts import Parts, check_unchanged, describe_parts, read_parts, run_facts
from minibert.predictor import encode_features, in_length_order
from minibert.runs import RunFolder, check_new, new_run_path
from minibert.runtime import Runtime, choose_runtime
from minibert.settings import Flags, RunSettings, add_options
from minibert.tokenizer import TokenIds, Tokenizer
from minibert.training import fit, freeze_layers

DESCRIPTION = """Train a classifier: a pretrained BERT or DistilBERT and labelled texts in, a run
folder out (the model, its settings, history.csv, metrics.json, the test part's predictions)."""


def main(argv: Sequence[str]) -> None:
    """Run one training from the command line's words."""
    settings, run, began_with = read_flags(argv)
    resumed = began_with is not None
    if not resumed:
        check_new(run.path)
    runtime = choose_runtime(settings.device, settings.precision)

    folder = find_model(settings.model, revision=settings.revision)
    config = read_encoder_config(folder)
    tokenizer = Tokenizer.from_folder(folder, config)
    parts = read_parts(settings)
    describe_parts(parts)
    if resumed:
        check_unchanged(parts, began_with, run.path)
    max_length, rows = tokenize(
        parts, tokenizer, longest=settings.max_length, positions=config.positions
    )

    torch.manual_seed(settings.seed)
    wanted = choose_head(folder, config, parts.train, settings, max_length)
    checkpoint = load_classifier(folder, wanted)
    texts = labelled(rows, parts, checkpoint)
    freeze_layers(
        checkpoint.model, layers=settings.freeze_layers, embeddings=settings.freeze_embeddings
    )
    print(*checkpoint.notes, sep="\n")
    print(runtime)

    if not resumed:
        run.create(settings, run_facts(parts))
    print(f"run: {run.path}")
    tokenizer.save(run.path)
    save_config(run.path, config, checkpoint.head)
    training = train(checkpoint, texts, settings, run, runtime)

    best = load_classifier(run.path).model.to(runtime.device)
    classes = checkpoint.head.labels
    figures, predictions = evaluate(best, texts, parts, classes, settings, runtime)
    run.finish({**figures, "training": training}, predictions)
    print(f"finished: {run.path} (python eval.py; python predict.py TEXT)")


def read_flags(argv: Sequence[str]) -> tuple[RunSettings, RunFolder, dict[str, str] | None]:
    """Return the settings, the run's folder and, of a resumed run, its data's digests."""
    parser = Flags(prog="train.py", usage="%(prog)s [options]", description=DESCRIPTION)
    add = parser.add_argument_group("run folder").add_argument
    add("--out", type=Path, metavar="DIR", help="new folder (default: one under runs/, by time)")
    add("--resume", type=Path, metavar="DIR", help="go on with a stopped run, as it was set")
    add_options(parser)
    given: dict[str, Any] = vars(parser.parse_args(argv))
    out, resume = given.pop("out"), given.pop("resume")
    if resume is None:
        settings = RunSettings(**given)
        return settings, RunFolder(out or new_run_path(settings)), None
    if given or out:
        names = ["--" + name.replace("_", "-") for name in given] + (["--out"] if out else [])
        raise InputError(f"--resume takes the run's own settings; leave out {', '.join(names)}")
    run = RunFolder(resume)
    settings, facts = run.read_settings(("columns", "digests"))
    return settings, run, facts["digests"] or {}


def choose_head(
    folder: Path, config: EncoderConfig, train: Examples, settings: RunSettings, max_length: int
) -> HeadConfig:
    """Return the head to train; classes that the checkpoint has too keep its order."""
    classes = class_names(train)
    stored = read_head(read_json(folder / "config.json"), config, where=str(folder))
    if stored is not None and set(stored.labels) == set(classes):
        classes = stored.labels
    own = native_pooling(config.family) if settings.head == "native" else "cls"
    return HeadConfig(settings.head, settings.pooling or own, classes, max_length)


def labelled(
    rows: dict[str, list[TokenIds]], parts: Parts, checkpoint: Checkpoint
) -> dict[str, Texts]:
    """Join each part's token ids and class numbers."""
    config = checkpoint.encoder
    return {
        name: Texts(
            rows[name],
            class_ids(part, checkpoint.head.labels),
            pad_token_id=config.pad_token_id,
            types=config.token_types > 1,
        )
        for name, part in parts.named().items()
    }


def train(
    checkpoint: Checkpoint,
    texts: dict[str, Texts],
    settings: RunSettings,
    run: RunFolder,
    runtime: Runtime,
) -> dict[str, Any]:
    """Train the model, or with --freeze its head on features made once; return the figures."""
    model = checkpoint.model.to(runtime.device)
    inputs: list[Part] = [texts["train"], texts["validation"]]
    started = time.monotonic()
    if settings.freeze:
        size = settings.batch_size
        inputs = [encode_features(model, part, batch_size=size, runtime=runtime) for part in inputs]
    encoding = time.monotonic() - started
    progress = fit(
        model,
        inputs[0],
        inputs[1],
        settings,
        classes=checkpoint.head.labels,
        run=run,
        save_best=lambda: save_weights(run.path, model, checkpoint.encoder, checkpoint.head),
        runtime=runtime,
    )
    figures = progress.figures(len(texts["train"]))
    if settings.freeze:
        count = sum(len(part) for part in inputs)
        print(f"frozen encoder: {count:,} texts encoded once, in {encoding:.1f} s")
        print(f"head: {progress.epoch} epochs in {progress.seconds:.1f} s")
        figures["encoding_seconds"] = round(encoding, 3)
    return figures


def evaluate(
    model: Classifier,
    texts: dict[str, Texts],
    parts: Parts,
    classes: Sequence[str],
    settings: RunSettings,
    runtime: Runtime,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Score validation and test, the latter for the only time; return figures and predictions."""
    figures: dict[str, Any] = {}
    predictions: list[dict[str, Any]] = []
    for name in ("validation", "test"):
        if name not in texts:
            continue
        part = texts[name]
        logits = in_length_order(model, part, batch_size=settings.batch_size, runtime=runtime)
        scores = score(logits, part.labels, classes)
        figures[name] = scores.to_json()
        if name == "test":
            print(report(logits, part.labels, classes))
            predictions = prediction_rows(parts.named()[name], logits, classes)
        print(f"{name}: {scores}")
    return figures, predictions


def prediction_rows(
    part: Examples, logits: torch.Tensor, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one row a text: the text, its label, and what the model says."""
    best, numbers = (x.tolist() for x in torch.softmax(logits, dim=1).max(dim=1))
    truth = class_ids(part, classes)
    rows = []
    for i, text in enumerate(part.texts):
        pair = {} if part.pairs is None else {"pair": part.pairs[i]}
        answer = {"prediction": classes[numbers[i]], "probability": round(best[i], 6)}
        rows.append({"text": text, **pair, "label": classes[truth[i]], **answer})
    return rows


if __name__ == "__main__":
    sys.exit(run_command(main))
