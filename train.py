"""Train a text classifier on a BERT or DistilBERT: `python train.py --help`."""

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from minibert.errors import InputError, begin, printable, run_command

if __name__ == "__main__":
    begin()

import torch

import minibert
from minibert.batches import Part, Texts
from minibert.config import EncoderConfig, HeadConfig, native_pooling, read_head
from minibert.data import Examples, class_names
from minibert.files import read_json
from minibert.hf import Checkpoint, load_classifier, read_encoder_config, save_config, save_weights
from minibert.hub import find_model
from minibert.inputs import labelled, tokenize
from minibert.metrics import report, score
from minibert.model import Classifier
from minibert.parts import Parts, describe_parts, digests, read_parts
from minibert.predictor import encode_features, in_length_order, ready_to_answer
from minibert.runs import RunFolder, check_new, locked
from minibert.runtime import Runtime, choose_runtime
from minibert.settings import Flags, RunSettings, add_options
from minibert.stopping import Stopped
from minibert.tokenizer import Tokenizer
from minibert.training import fit, freeze_layers
from minibert.weights import fingerprint

DESCRIPTION = """Train a classifier: a pretrained BERT or DistilBERT and labelled texts in, a run
folder out (the model, its settings, history.csv, metrics.json, the test part's predictions)."""


def main(argv: Sequence[str]) -> None:
    """Run one training from the command line's words."""
    settings, out, resumed = read_flags(argv)
    began: dict[str, Any] = {}
    if resumed:
        settings, began = resumed.read_settings()
        # What was chosen at the beginning holds to the end, also on another machine.
        settings = replace(settings, **began["environment"]["computing"])
    elif out:
        check_new(out)
    runtime = choose_runtime(settings.device, settings.precision)

    folder = find_model(settings.model, revision=settings.revision)
    config = read_encoder_config(folder)
    tokenizer = Tokenizer.from_folder(folder, config)
    parts = read_parts(settings)
    describe_parts(parts)
    found = {**digests(parts), "model": fingerprint(folder)}
    if resumed:
        check_same(resumed, began["digests"], found, settings)
    max_length, rows = tokenize(
        parts, tokenizer, longest=settings.max_length, positions=config.positions
    )

    torch.manual_seed(settings.seed)
    wanted = choose_head(folder, config, parts.train, settings, max_length)
    checkpoint = load_classifier(folder, wanted)
    texts = labelled(rows, parts, wanted.labels, config)
    freeze_layers(
        checkpoint.model, layers=settings.freeze_layers, embeddings=settings.freeze_embeddings
    )
    print(*checkpoint.notes, runtime, sep="\n")

    run = resumed or RunFolder.create(out, settings, facts(parts, found, runtime, folder))
    where = printable(shlex.quote(str(run.path)), 1000)
    print(f"run: {where}")
    try:
        with locked(run.path, "--resume" if resumed else "--out"):
            run.check_unfinished()  # by another process, while this one read its data
            tokenizer.save(run.path)
            save_config(run.path, config, wanted)
            training = train(checkpoint, texts, settings, run, runtime)
            best, answering = ready_to_answer(load_classifier(run.path).model, runtime)
            figures, predictions = evaluate(best, texts, parts, wanted.labels, settings, answering)
            run.finish({**figures, "training": training}, predictions)
    except Stopped as stopped:
        raise Stopped(stopped.number, f"go on with: python train.py --resume {where}") from None
    print(f"finished: {where} (python eval.py; python predict.py TEXT)")


def read_flags(argv: Sequence[str]) -> tuple[RunSettings, Path | None, RunFolder | None]:
    """Return the settings, the new run's folder if named, and the run to resume if any."""
    parser = Flags(prog="train.py", usage="%(prog)s [options]", description=DESCRIPTION)
    add = parser.add_argument_group("run folder").add_argument
    add("--out", type=Path, metavar="DIR", help="new folder (default: one under runs/, by time)")
    add("--resume", type=Path, metavar="DIR", help="go on with a stopped run, as it was set")
    add_options(parser)
    given: dict[str, Any] = vars(parser.parse_args(argv))
    out, resume = given.pop("out"), given.pop("resume")
    if resume and (given or out):
        names = ["--" + name.replace("_", "-") for name in given] + (["--out"] if out else [])
        raise InputError(f"--resume takes the run's own settings; leave out {', '.join(names)}")
    return RunSettings(**given), out, RunFolder(resume) if resume else None


def check_same(
    run: RunFolder, began: dict[str, str], found: dict[str, str], settings: RunSettings
) -> None:
    """Raise InputError where a run that is gone on with would read something else than before."""
    changed = sorted({name for name, _ in began.items() ^ found.items()})
    if changed:
        data = (f"the {name} part of {settings.data}" for name in changed if name != "model")
        named = [f"the model {settings.model}"] * ("model" in changed) + [*data]
        raise InputError(
            f"--resume {run.path}: {' and '.join(named)} has changed since; start a new run"
        )


def facts(parts: Parts, digests: dict[str, str], runtime: Runtime, folder: Path) -> dict[str, Any]:
    """Return what settings.json keeps beside the options: what was read, and what computed."""
    computing = {"device": str(runtime.device), "precision": runtime.precision}
    versions = {"torch": torch.__version__, "minibert": minibert.__version__}
    return {
        "columns": asdict(parts.train.columns),
        "digests": digests,
        "environment": {"computing": computing, "model_folder": str(folder.resolve()), **versions},
    }


def choose_head(
    folder: Path, config: EncoderConfig, train: Examples, settings: RunSettings, max_length: int
) -> HeadConfig:
    """Return the head to train; classes that the checkpoint has too keep its order."""
    classes = class_names(train)
    stored = read_head(read_json(folder / "config.json"), config, where=str(folder))
    if stored and sorted(map(str.lower, stored.labels)) == sorted(map(str.lower, classes)):
        classes = stored.labels
    own = native_pooling(config.family) if settings.head == "native" else "cls"
    return HeadConfig(settings.head, settings.pooling or own, classes, max_length)


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
    started = time.perf_counter()
    if settings.freeze:
        size = settings.batch_size
        inputs = [encode_features(model, part, batch_size=size, runtime=runtime) for part in inputs]
    encoding = time.perf_counter() - started
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
    size = settings.batch_size
    logits = in_length_order(model, texts["validation"], batch_size=size, runtime=runtime)
    scores = score(logits, texts["validation"].labels, classes)
    figures = {"validation": scores.to_json()}
    print(f"validation: {scores}")
    if parts.test is None:
        return figures, []
    labels = texts["test"].labels
    logits = in_length_order(model, texts["test"], batch_size=size, runtime=runtime)
    scores = score(logits, labels, classes)
    print(report(logits, labels, classes))
    print(f"test: {scores}")
    figures["test"] = scores.to_json()
    return figures, prediction_rows(parts.test, labels, logits, classes)


def prediction_rows(
    part: Examples, labels: torch.Tensor, logits: torch.Tensor, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one row a text: the text, its label, and what the model says."""
    best, numbers = (x.tolist() for x in torch.softmax(logits, dim=1).max(dim=1))
    rows = []
    for i, text in enumerate(part.texts):
        pair = {} if part.pairs is None else {"pair": part.pairs[i]}
        answer = {"prediction": classes[numbers[i]], "probability": round(best[i], 6)}
        rows.append({"text": text, **pair, "label": classes[int(labels[i])], **answer})
    return rows


if __name__ == "__main__":
    sys.exit(run_command(main))
