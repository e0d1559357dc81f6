"""train.py learns, prints what it does, and resumes after kill -9 to the same bytes.

Run: pytest tests/test_train_command.py
"""

import csv
import json
import math
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from helpers import (
    WORDS,
    random_texts,
    start_script,
    strict_json,
    tiny_classifier,
    tiny_config,
    write_checkpoint,
)
from safetensors.torch import load_file

from minibert import load
from minibert.commands.arguments import parse_train
from minibert.commands.train import main, smaller_batches
from minibert.device import Compute, memory_advice
from minibert.errors import InputError
from minibert.model.classifier import Head
from minibert.model.config import HeadConfig
from minibert.training.loop import fit
from minibert.training.options import TrainingOptions

FP32 = Compute(torch.device("cpu"))

EPOCHS, ROWS = 12, 80  # rows: 56 to train on, 12 to validate, 12 to test
DATA = ("--data", "reviews.csv", "--device", "cpu")
RATES = ("--batch-size", 4, "--encoder-lr", 0.01, "--head-lr", 0.01)
PLAIN = (
    *(*DATA, *RATES, "--model", "distilbert", "--epochs", EPOCHS),
    *("--max-length", "auto", "--precision", "fp32"),
)
NATIVE = (
    *(*DATA, *RATES, "--model", "bert", "--epochs", EPOCHS, "--max-length", 40),
    *("--precision", "bf16", "--head", "native", "--accumulate", 3),
    *("--freeze-layers", 1, "--freeze-embeddings"),
)
PROGRESS = r"[\d,]+ texts/s, \d+:\d\d left, loss \d+\.\d{4}, lr \d\.\d\de-\d\d"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The folder the runs start in: two bare checkpoints and a CSV that a tiny model can learn."""
    folder = tmp_path_factory.mktemp("train")
    for family in ("bert", "distilbert"):
        write_checkpoint(folder / family, family)
    lines = ["text,label"]
    for i in range(ROWS // 2):
        a, b = WORDS[5 + i % 20], WORDS[5 + (7 * i + 3) % 20]
        lines += [f"the {a} was good {b} {i},positive", f"the {b} was bad awful {a} {i},negative"]
    (folder / "reviews.csv").write_text("\n".join(lines) + "\n")
    return folder


def train(place: Path, *words: str | Path | float) -> tuple[str, str]:
    """Run train.py to its end; return its standard output and standard error."""
    process = start_script("train.py", *map(str, words), cwd=place)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output, errors


def metrics(run: Path) -> dict:
    return strict_json((run / "metrics.json").read_text())


def history(run: Path) -> list[dict[str, str]]:
    """The lines of history.csv without what a clock says."""
    with open(run / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "texts_per_second")} for row in rows
    ]


def assert_same_run(one: Path, other: Path) -> None:
    """Same weights to the byte, same history, same figures, same predictions."""
    for name in ("model.safetensors", "config.json", "test_predictions.jsonl"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert history(one) == history(other)
    for part in ("validation", "test"):
        assert metrics(one)[part] == metrics(other)[part]


@pytest.fixture(scope="module")
def plain(place) -> tuple[Path, str, str]:
    """A run without a terminal: its folder and what it said."""
    return place / "plain", *train(place, *PLAIN, "--out", "plain")


@pytest.fixture(scope="module")
def native(place) -> tuple[Path, str, str]:
    """A bf16 run of the head that transformers has too, the lower layers frozen."""
    return place / "native", *train(place, *NATIVE, "--out", "native")


# What a finished run leaves


def test_a_finished_run_folder_holds_exactly_these_files(plain):
    run, output, _ = plain
    assert {file.name for file in run.iterdir()} == {
        *("config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"),
        *("settings.json", "history.csv", "metrics.json", "test_predictions.jsonl"),
        "report.html",
    }
    assert "finished: plain" in output


def test_it_says_how_much_seeds_alone_move_the_figure(plain):
    output = plain[1]
    (line,) = [x for x in output.splitlines() if x.startswith("this is one seed; ")]
    assert "standard deviation of accuracy was 0.4 points on SST-2" in line
    assert output.index("test: accuracy ") < output.index(line)


def test_metrics_json_has_the_figures_of_both_splits_and_of_the_training(plain):
    figures = metrics(plain[0])
    assert set(figures) == {"validation", "test", "baselines", "data", "training"}
    for part in ("validation", "test"):
        assert {"accuracy", "macro_f1", "loss", "per_class", "texts"} <= figures[part].keys()
        classes = figures[part]["per_class"]
        assert list(classes) == ["negative", "positive"]
        for values in classes.values():
            assert set(values) == {
                *("precision", "precision_95", "recall", "recall_95", "f1", "f1_95", "support"),
            }
        assert sum(values["support"] for values in classes.values()) == figures[part]["texts"] == 12
        assert figures[part]["macro_f1"] == pytest.approx(
            sum(values["f1"] for values in classes.values()) / 2
        )
    training = figures["training"]
    assert training["epochs"] == EPOCHS
    assert training["texts_per_second"] == pytest.approx(
        EPOCHS * 56 / training["seconds"], rel=0.01
    )


def test_it_learns_the_easy_data(plain):
    run = plain[0]
    assert metrics(run)["test"]["accuracy"] >= 0.9
    losses = [float(row["train_loss"]) for row in history(run)]
    assert losses[-1] < losses[0] / 4


def test_the_saved_epoch_is_the_best_one_and_not_the_last(plain):
    run = plain[0]
    rows = history(run)
    assert [row["epoch"] for row in rows] == [str(number + 1) for number in range(EPOCHS)]
    accuracies = [float(row["validation_accuracy"]) for row in rows]
    best = accuracies.index(max(accuracies))
    figures = metrics(run)
    assert figures["training"]["best_epoch"] == best + 1 < EPOCHS
    # No two epochs have the same loss, so it tells which epoch's weights were saved.
    assert figures["validation"]["loss"] == pytest.approx(float(rows[best]["validation_loss"]))
    assert figures["validation"]["loss"] != pytest.approx(float(rows[-1]["validation_loss"]))


def test_the_test_split_and_its_predictions_are_kept(place, plain):
    run = plain[0]
    rows = [strict_json(line) for line in (run / "test_predictions.jsonl").open()]
    with open(place / "reviews.csv", newline="") as file:
        labels = {row["text"]: row["label"] for row in csv.DictReader(file)}
    assert all(labels[row["text"]] == row["label"] for row in rows)
    assert all(0.5 <= row["probability"] <= 1 for row in rows)
    right = sum(row["prediction"] == row["label"] for row in rows)
    assert len({row["text"] for row in rows}) == 12
    assert right / 12 == metrics(run)["test"]["accuracy"]


# What a run prints


def test_the_histogram_counts_every_training_text_and_auto_cuts_at_most_a_hundredth(plain):
    run, output, _ = plain
    bars = re.findall(r"^ +\d+-\d+ +#* +([\d,]+)(?:  cut)?$", output, re.MULTILINE)
    assert sum(map(int, bars)) == 56
    longest = json.loads((run / "config.json").read_text())["minibert"]["max_length"]
    assert f"train: 0 of 56 texts cut at {longest} tokens" in output
    tokens = load(str(run), device="cpu").classifier.tokenizer.encode(
        [line.partition(",")[0] for line in (run.parent / "reviews.csv").read_text().split("\n")]
    )
    assert longest == max(map(len, tokens)) < 40


def test_without_a_terminal_progress_is_plain_lines(plain):
    errors = plain[2]
    lines = errors.splitlines()
    assert "\r" not in errors and "\x1b" not in errors
    assert all(
        re.fullmatch(rf"epoch \d+/{EPOCHS}, step \d+/14: {PROGRESS}", line) for line in lines
    )
    assert 5 <= len(lines) <= 10


def test_the_precision_is_named_with_the_reason(place, plain, monkeypatch, capsys):
    assert "precision: fp32 (as requested); device: cpu" in plain[1]
    monkeypatch.chdir(place)
    train_here(*DATA, "--model", "bert", "--epochs", 1, "--max-length", 40, "--out", "auto")
    found = re.search(
        r"^precision: (fp32|bf16) \((.+)\); device: cpu", capsys.readouterr().out, re.M
    )
    assert found and "this processor has" in found[2]


# The same again


def test_the_same_seed_gives_the_same_bytes(place, plain, monkeypatch):
    monkeypatch.chdir(place)
    train_here(*PLAIN, "--out", "again")
    assert_same_run(plain[0], place / "again")


@pytest.mark.parametrize(("reference", "words"), [("plain", PLAIN), ("native", NATIVE)])
def test_a_killed_run_resumes_to_the_same_bytes(place, request, reference, words):
    """In fp32 and in bf16, with dropout drawn in every step and rates that fall to the end.

    The killed process orders its sets otherwise, by another hash seed.
    """
    whole = request.getfixturevalue(reference)[0]
    run = place / f"{reference}-killed"
    seed = {"PYTHONHASHSEED": "1"}
    process = start_script("train.py", *map(str, words), "--out", run, cwd=place, env=seed)
    while not (run / "history.csv").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (run / "metrics.json").exists()
    done = len(history(run))
    assert 1 <= done < EPOCHS

    output, _ = train(place, "--resume", run)
    resumed = sorted({int(number) for number in re.findall(r"^epoch (\d+)/", output, re.MULTILINE)})
    # The state of an epoch is on disk before its line of history.csv.
    assert resumed[0] in (done + 1, done + 2) and resumed[-1] == EPOCHS
    assert_same_run(run, whole)
    assert {file.name for file in run.iterdir()} == {file.name for file in whole.iterdir()}


def test_a_loss_that_is_not_finite_keeps_the_best_epoch_and_the_last_state(place, monkeypatch):
    """The machine is switched off after epoch 2, and the resumed run's rate is too high."""
    monkeypatch.chdir(place)
    run, finished, replace = place / "spoiled", [], os.replace

    def switch_off(source, target):
        finished.extend([target] if Path(target).name == "history.csv" else [])
        if len(finished) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", switch_off)
    with pytest.raises(KeyboardInterrupt):
        train_here(*PLAIN, "--out", run)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr("minibert.training.loop.learning_rate_factor", lambda *_, **__: 1e34)
    kept = {file.name: file.read_bytes() for file in run.glob("*.safetensors")}
    assert kept.keys() == {"model.safetensors", "resume-00000028.safetensors"}

    message = r"step \d+: the (loss|gradient's norm) is \S+, on \S+reviews.csv, line \d+, \S+"
    with pytest.raises(InputError, match=message):
        train_here("--resume", run)
    for name, content in kept.items():
        assert (run / name).read_bytes() == content
    assert not (run / "run.lock").exists()


def test_a_rate_too_high_is_one_line_with_files_and_lines(place):
    words = (*DATA, "--model", "distilbert", "--epochs", 3, "--head-lr", 1e30, "--max-length", 40)
    process = start_script("train.py", *map(str, words), cwd=place)
    _, errors = process.communicate(timeout=120)
    line = errors.splitlines()[-1]
    assert process.returncode == 2 and "Traceback" not in errors
    places = r"reviews\.csv, line \d+"
    assert re.match(rf"error: step \d+: the .* is (nan|inf), on {places}, {places}, {places}", line)
    assert "--head-lr 1e+30" in line
    lines = [int(number) for number in re.findall(r"csv, line (\d+)", line)]
    assert all(2 <= number <= ROWS + 1 for number in lines)  # line 1 is the header


# Out of memory


class Hungry(Head):
    """A head that runs out of memory, as a CPU's allocator, Python or a GPU says it."""

    def __init__(self, head: HeadConfig, error: Exception | None) -> None:
        super().__init__(tiny_config("bert"), head)
        self.error = error

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self.error is None:
            return torch.empty(2**50)
        raise self.error


@pytest.mark.parametrize(
    "error", [None, MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to")]
)
def test_out_of_memory_says_what_to_change(error):
    model, texts = tiny_classifier(), random_texts(7)
    model.head = Hungry(model.head.config, error)
    options = TrainingOptions(batch_size=4)
    with (
        pytest.raises(InputError) as raised,
        memory_advice(lambda: smaller_batches(texts, options, FP32)),
    ):
        fit(model, texts, texts, options, compute=FP32)
    assert str(raised.value).startswith(
        f"out of memory, training on 4 texts per batch, the longest of {texts.lengths.max()} "
        "tokens; start a new run with --batch-size 2 --accumulate 2 (the same steps) or "
    )


@pytest.mark.parametrize(
    ("size", "accumulate", "pair"),
    [
        (3, 2, (1, 6)),
        (4, 1, (2, 2)),
        (5, 3, (1, 15)),
        (6, 1, (3, 2)),
        (7, 2, (2, 7)),
        (9, 2, (3, 6)),
    ],
)
def test_the_advised_batches_make_the_same_steps(size, accumulate, pair):
    options = TrainingOptions(batch_size=size, accumulate=accumulate)
    advice = smaller_batches(random_texts(7), options, FP32)
    (found,) = re.findall(r"--batch-size (\d+) --accumulate (\d+) \(the same steps\)", advice)
    assert tuple(map(int, found)) == pair
    assert pair[0] * pair[1] == size * accumulate and pair[0] <= size / 2


def test_memory_advice_names_only_what_helps(monkeypatch):
    texts = random_texts(7)
    for has_bf16 in (True, False):
        monkeypatch.setattr("minibert.commands.train.cpu_has_bf16", lambda x=has_bf16: x)
        plain = smaller_batches(texts, TrainingOptions(), FP32)
        assert f"--max-length below {texts.lengths.max()}" in plain
        assert ("--precision bf16" in plain) == has_bf16
        frozen = smaller_batches(texts, TrainingOptions(freeze=True), FP32)
        assert "--max-length" not in frozen and "--precision" not in frozen
        bf16 = smaller_batches(texts, TrainingOptions(), Compute(FP32.device, "bf16"))
        assert "--precision" not in bf16
        on_gpu = smaller_batches(texts, TrainingOptions(), Compute(torch.device("cuda"), "fp32"))
        assert on_gpu.endswith("--precision bf16")
    one = smaller_batches(texts, TrainingOptions(batch_size=1, freeze=True), FP32)
    assert one.endswith("start a new run with fewer texts")


# Options. From here on main() is called in this process, which saves the start.


def train_here(*words: str | Path | float) -> None:
    main(parse_train([str(word) for word in words]))


def test_accumulated_batches_make_one_step(native):
    batches = math.ceil(56 / 4)
    assert re.search(rf"step \d/{math.ceil(batches / 3)}:", native[2])


def test_frozen_layers_and_embeddings_are_saved_bit_for_bit(place, native):
    before = load_file(place / "bert" / "model.safetensors")
    after = load_file(native[0] / "model.safetensors")
    frozen = ("embeddings.", "encoder.layer.0.")
    encoder = [name for name in before if not name.startswith("minibert_head")]
    assert len(encoder) == 5 + 16 * 3 + 2
    for name in encoder:
        same = torch.equal(before[name], after[f"bert.{name}"])
        if name.startswith(frozen):
            assert same, name
        elif before[name].ndim == 2:
            assert not same, name


def test_a_frozen_encoder_stays_and_its_head_learns(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    words = ("--head", "relu", "--pooling", "mean", "--epochs", 20, "--max-length", 40)
    train_here(*DATA, *RATES, *words, "--model", "bert", "--freeze", "--out", "frozen")
    assert "texts encoded once in" in capsys.readouterr().out
    before = load_file(place / "bert" / "model.safetensors")
    after = load_file(place / "frozen" / "model.safetensors")
    encoder = [name for name in before if not name.startswith("minibert_head")]
    assert encoder and all(torch.equal(before[name], after[name]) for name in encoder)
    assert metrics(place / "frozen")["test"]["accuracy"] >= 0.75
    assert metrics(place / "frozen")["training"]["encoding_seconds"] > 0


@pytest.mark.parametrize(
    ("head", "pooling", "shapes"),
    [
        ("mlp", "mean", {"dense": (6, 12), "out": (2, 6)}),
        ("relu", "cls", {"dense": (512, 12), "out": (2, 512)}),
        ("linear", "pooler", {"out": (2, 12)}),
    ],
)
def test_heads_and_poolings_are_saved_as_requested(place, monkeypatch, head, pooling, shapes):
    monkeypatch.chdir(place)
    run = place / f"{head}-{pooling}"
    words = ("--head", head, "--pooling", pooling, "--epochs", 1, "--max-length", 40)
    train_here(*DATA, *RATES, *words, "--model", "bert", "--out", run)
    saved = load_file(run / "model.safetensors")
    start = "minibert_head."
    assert shapes == {
        name.removeprefix(start).removesuffix(".weight"): tuple(saved[name].shape)
        for name in saved
        if name.startswith(start) and name.endswith(".weight")
    }
    kept = json.loads((run / "config.json").read_text())["minibert"]
    assert (kept["head"], kept["pooling"]) == (head, pooling)
    before = load_file(place / "bert" / "model.safetensors")["pooler.dense.weight"]
    assert torch.equal(saved["pooler.dense.weight"], before) == (pooling != "pooler")


def test_balanced_weights_make_up_for_a_rare_class(place, monkeypatch):
    """Where the text says nothing of the label, a model predicts the frequencies of the classes."""
    monkeypatch.chdir(place)
    pairs = [(WORDS[i % 30], WORDS[(11 * i + i // 30) % 30]) for i in range(160)]
    lines = [f"{a} {b},{'rare' if i % 4 == 0 else 'common'}" for i, (a, b) in enumerate(pairs)]
    (place / "noise.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    words = ("--data", "noise.csv", "--model", "distilbert", "--max-length", 40, "--freeze")
    words += ("--head", "linear", "--head-lr", 0.01, "--epochs", 20, "--select", "loss")
    probabilities = {}
    for kind in ("none", "balanced"):
        run = place / f"weights-{kind}"
        train_here(*words, "--class-weights", kind, "--device", "cpu", "--out", run)
        rows = [strict_json(line) for line in (run / "test_predictions.jsonl").open()]
        rare = [
            row["probability"] if row["prediction"] == "rare" else 1 - row["probability"]
            for row in rows
        ]
        probabilities[kind] = sum(rare) / len(rare)
    assert probabilities == pytest.approx({"none": 0.25, "balanced": 0.5}, abs=0.1)


def test_training_continues_from_a_finished_run_with_its_head(place, plain, monkeypatch, capsys):
    """At a learning rate of 0 nothing may change, the head included."""
    monkeypatch.chdir(place)
    words = ("--encoder-lr", 0, "--head-lr", 0, "--epochs", 1, "--max-length", 40)
    train_here(*DATA, *words, "--model", plain[0], "--out", "continued")
    assert "head: mlp, 2 classes, from the checkpoint" in capsys.readouterr().out
    before = load_file(plain[0] / "model.safetensors")
    after = load_file(place / "continued" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_other_classes_get_a_new_head(place, plain, monkeypatch, capsys):
    monkeypatch.chdir(place)
    data = (place / "reviews.csv").read_text()
    (place / "renamed.csv").write_text(data.replace("positive", "fine"))
    words = ("--data", "renamed.csv", "--epochs", 1, "--max-length", 40)
    train_here(*words, "--device", "cpu", "--model", plain[0], "--out", "renamed")
    output = capsys.readouterr().out
    assert "head: mlp, 2 classes, new" in output and "from the checkpoint" not in output
    labels = json.loads((place / "renamed" / "config.json").read_text())["id2label"]
    assert labels == {"0": "fine", "1": "negative"}


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_transformers_opens_the_run_and_gives_the_same_logits(place, native, monkeypatch, family):
    transformers = pytest.importorskip("transformers")
    run = native[0]
    if family == "distilbert":
        monkeypatch.chdir(place)
        run = place / "native-distilbert"
        words = ("--head", "native", "--epochs", 2, "--max-length", 40, "--precision", "fp32")
        train_here(*DATA, *RATES, *words, "--model", family, "--out", run)
    texts = [strict_json(line)["text"] for line in (run / "test_predictions.jsonl").open()]
    ours = load(str(run), device="cpu", precision="fp32").logits(texts)

    theirs, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
        run, output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert theirs.config.id2label == {0: "negative", 1: "positive"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(run)
    with torch.no_grad():
        logits = theirs.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    torch.testing.assert_close(ours, logits, atol=1e-5, rtol=1e-5)
