"""Train a text classifier on a BERT or DistilBERT: `python train.py --help`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minibert.errors import InputError, run_command
from minibert.settings import Flags, RunSettings, add_options

DESCRIPTION = """Train a classifier: a pretrained BERT or DistilBERT and labelled texts in, a run folder
out (the model, its settings, history.csv, metrics.json, the predictions on the test part)."""


def main(argv: Sequence[str]) -> None:
    """Run one training from the command line's words."""
    settings, out, resumed, expected = read_flags(argv)

    # Imported here so that --help and a mistyped flag answer at once.
    import torch

    from minibert import hf, hub, pipeline
    from minibert.runs import RunFolder, check_new, new_run_path
    from minibert.runtime import choose_device, choose_precision, describe_device, precision_name
    from minibert.tokenizer import Tokenizer
    from minibert.training import fit

    run = RunFolder(out or new_run_path(settings))
    if not resumed:
        check_new(run.path)
    device = choose_device(settings.device)
    dtype, why = choose_precision(settings.precision, device)

    folder = hub.find_model(settings.model, revision=settings.revision)
    config = hf.read_encoder_config(folder)
    tokenizer = Tokenizer.from_folder(folder, config)
    parts = pipeline.read_parts(settings)
    pipeline.describe_parts(parts)
    pipeline.check_unchanged(parts, expected, run.path)

    max_length, rows = pipeline.tokenize(parts, tokenizer, settings, config)
    torch.manual_seed(settings.seed)
    checkpoint = hf.load_classifier(
        folder, pipeline.head_of(folder, config, parts.train, settings, max_length)
    )
    print(*checkpoint.notes, sep="\n")
    classes = checkpoint.head.labels
    texts = pipeline.label(rows, parts, classes, config)
    pipeline.freeze_layers(checkpoint.model, settings)
    model = checkpoint.model.to(device)
    print(f"precision: {precision_name(dtype)} ({why}); device: {describe_device(device)}")

    if not resumed:
        run.create(settings, pipeline.run_facts(parts))
    print(f"run: {run.path}")
    if not resumed or not (run.path / "tokenizer.json").exists():
        tokenizer.save(run.path)
        hf.save_config(run.path, config, checkpoint.head)
    encoding = pipeline.Stopwatch()
    train, validation = texts["train"], texts["validation"]
    if settings.freeze:
        with encoding:
            train = pipeline.encode(model, texts["train"], settings, device, dtype)
            validation = pipeline.encode(model, texts["validation"], settings, device, dtype)
        count = len(parts.train) + len(parts.validation)
        print(f"frozen encoder: {count:,} texts to features in {encoding.seconds:.1f} s, once")
    progress = fit(
        model,
        train,
        validation,
        settings,
        classes=classes,
        run=run,
        save_best=lambda: hf.save_weights(run.path, model, config, checkpoint.head),
        device=device,
        dtype=dtype,
    )

    best = hf.load_classifier(run.path).model.to(device)
    evaluation = pipeline.evaluate(best, texts, parts, settings, classes, device, dtype)
    training = pipeline.training_figures(progress, parts, settings, encoding.seconds)
    run.finish({**evaluation.figures, "training": training}, evaluation.predictions)
    print(evaluation.summary)
    print(f"finished: {run.path}  (python eval.py; python predict.py TEXT)")


def read_flags(
    argv: Sequence[str],
) -> tuple[RunSettings, Path | None, bool, dict[str, Any] | None]:
    """Return the settings, the folder if one is named, whether it is resumed, and its data's digests."""
    parser = Flags(prog="train.py", description=DESCRIPTION)
    where = parser.add_argument_group("run folder")
    where.add_argument(
        "--out", type=Path, metavar="DIR", help="new folder (default: one under runs/, by time)"
    )
    where.add_argument(
        "--resume", type=Path, metavar="DIR", help="go on with a stopped run, with its own settings"
    )
    add_options(parser)
    given: dict[str, Any] = vars(parser.parse_args(argv))
    out, resume = given.pop("out"), given.pop("resume")
    if resume is None:
        return RunSettings(**given), out, False, None
    if given or out:
        names = ["--" + name.replace("_", "-") for name in given] + (["--out"] if out else [])
        raise InputError(f"--resume takes the run's own settings; leave out {', '.join(names)}")
    from minibert.runs import RunFolder

    settings, facts = RunFolder(resume).read_settings(["columns", "digests"])
    return settings, resume, True, facts["digests"] or {}


if __name__ == "__main__":
    sys.exit(run_command(main))
