"""`minibert export`: the graph computes what PyTorch does, in the folder that others read.

Run: pytest tests/test_export.py
"""

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import NATIVE
from helpers import ROOT, WORDS, write_checkpoint
from models import TOLERANCE, make_batch

import minibert
from minibert.commands import export, train
from minibert.commands.arguments import parse_export, parse_train
from minibert.errors import InputError
from minibert.export.graph import for_export, write_graph
from minibert.export.onnx_runtime import OnnxModel, quantize
from minibert.inference.text_classifier import TextClassifier
from minibert.model.config import HeadConfig, LongTexts

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CLASSES = ("bad", "good", "odd")
TEXTS = ("a good film", "the soup was cold and the staff rude", "never again", "soup " * 40)
PAIRS = [(TEXTS[0], TEXTS[1]), (TEXTS[3], TEXTS[2]), (TEXTS[1], TEXTS[3]), (TEXTS[3], TEXTS[3])]
FILES = [
    *("config.json", "example.py", "onnx", "special_tokens_map.json", "tokenizer.json"),
    "tokenizer_config.json",
]


def classifier(
    folder: Path, family: str = "bert", kind: str = "mlp", task: str = "single-label", **more: Any
) -> TextClassifier:
    """A tiny classifier with random weights, which `folder` stores too."""
    pooling = {"mlp": "mean", "linear": "cls", "relu": "cls", "native": NATIVE[family].pooling}
    if kind == "relu" and family in ("bert", "roberta"):
        pooling["relu"] = "pooler"
    if task != "regression":
        more.setdefault("temperature", 1.7)
    head = HeadConfig(kind, pooling[kind], more.pop("labels", CLASSES), 15, task, **more)
    loaded = TextClassifier.from_folder(write_checkpoint(folder, family, head))
    for parameter in loaded.model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    loaded.save(folder)
    return loaded


@pytest.mark.parametrize("task", ["single-label", "multi-label", "regression"])
@pytest.mark.parametrize("kind", ["mlp", "relu", "linear", "native"])
@torch.no_grad()
def test_the_graph_gives_pytorchs_logits_over_the_temperature(
    family: str, kind: str, task: str, tmp_path: Path
) -> None:
    ours = classifier(tmp_path, family, kind, task)
    if task == "regression":  # as in training: the logits stay the same
        ours.model.head.set_unit(torch.tensor([3.0, -4.0, 0.5]), torch.tensor([2.0, 0.7, 0.1]))
    write_graph(tmp_path / "model.onnx", for_export(ours))
    graph = OnnxModel(tmp_path / "model.onnx")
    for lengths in ((1,), (9, 1, 6, 4), (3, 15)):
        batch = make_batch(family, lengths)
        expected = ours.model(**batch) / ours.checkpoint.head.temperature
        torch.testing.assert_close(graph(**batch), expected, **TOLERANCE)


def test_the_inputs_are_int64_and_token_types_are_berts(family: str, tmp_path: Path) -> None:
    write_graph(tmp_path / "model.onnx", for_export(classifier(tmp_path, family)))
    inputs = OnnxModel(tmp_path / "model.onnx").session.get_inputs()
    typed = ["token_type_ids"] * (family in ("bert", "electra"))
    assert [x.name for x in inputs] == ["input_ids", "attention_mask", *typed]
    assert all(x.type == "tensor(int64)" for x in inputs)
    assert all(x.shape == ["batch_size", "sequence_length"] for x in inputs)


@torch.no_grad()
def test_int8_weights_are_close(tmp_path: Path) -> None:
    ours = classifier(tmp_path)
    write_graph(tmp_path / "model.onnx", for_export(ours))
    quantize(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    batch = make_batch("bert")
    expected = ours.model(**batch) / 1.7
    difference = (OnnxModel(tmp_path / "int8.onnx")(**batch) - expected).abs().max()
    assert 0 < difference < 0.05 * expected.abs().max()
    assert sorted(x.name for x in tmp_path.glob("*.onnx")) == ["int8.onnx", "model.onnx"]


def run_export(*argv: str | Path) -> None:
    export.main(parse_export([str(x) for x in argv]))


def run_example(folder: Path, run: Callable[..., Any], *words: str) -> Any:
    """Run example.py as a process that has neither minibert nor torch; return what it prints.

    Without words, return what its `predict` says of TEXTS and PAIRS, in one padded batch.
    """
    texts = [*TEXTS, *PAIRS]
    code = f"""import json, runpy, sys
sys.modules.update(torch=None, minibert=None, transformers=None)
module = runpy.run_path({str(folder / "example.py")!r}, run_name={"__main__" if words else "e"!r})
if len(sys.argv) == 1:
    print(json.dumps(module["predict"]({texts!r})))
"""
    done = run(["-c", code], *words, fresh=True)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("task", "more"),
    [
        ("single-label", {}),
        ("single-label", {"labels": ("no", "yes"), "thresholds": (0.9, 0.1)}),
        ("single-label", {"labels": ("no", "yes"), "thresholds": (0.1, 0.9)}),
        ("multi-label", {"thresholds": (0.99, 0.01, 0.5)}),
        ("multi-label", {}),
        ("regression", {"labels": ("stars",)}),
    ],
)
def test_the_example_says_what_predict_says(
    task: str, more: dict[str, Any], tmp_path: Path, run_script: Callable[..., Any]
) -> None:
    classifier(tmp_path / "model", task=task, **more)
    run_export(tmp_path / "model", "--out", tmp_path / "out")
    predictor = minibert.load(str(tmp_path / "model"), device="cpu", precision="fp32")
    expected = predictor.task.records(predictor.logits(TEXTS))
    first, second = zip(*PAIRS, strict=True)
    expected += predictor.task.records(predictor.logits(first, second))
    found = run_example(tmp_path / "out", run_script)
    for ours, theirs in zip(expected, found, strict=True):
        if task == "regression":
            assert theirs == {"stars": pytest.approx(ours["value"], rel=1e-4)}
            continue
        assert theirs["label"] == ours["labels" if task == "multi-label" else "label"]
        assert theirs["probabilities"] == pytest.approx(ours["probabilities"], abs=1e-4)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_transformers_cuts_texts_as_minibert_does(family: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours = classifier(tmp_path / "model", family)
    run_export(tmp_path / "model", "--out", tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    found = theirs(list(TEXTS), truncation=True, padding=True)
    ids, mask, _ = ours.dataset(TEXTS).batch(range(len(TEXTS))).inputs
    assert ids.shape[1] == 15
    np.testing.assert_array_equal(found["input_ids"], ids)
    np.testing.assert_array_equal(found["attention_mask"], mask)


def train_run(folder: Path, checkpoint: Path, data: Path) -> Path:
    """Train a native head for an epoch."""
    options = ("--model", checkpoint, "--data", data, "--out", folder, "--head", "native")
    quick = ("--max-length", "20", "--epochs", "1", "--no-baseline")
    machine = ("--device", "cpu", "--precision", "fp32")
    train.main(parse_train([str(x) for x in (*options, *quick, *machine)]))
    return folder


@pytest.fixture
def run_folder(checkpoint: Path, reviews: Path, tmp_path: Path) -> Path:
    """A finished run of two classes."""
    return train_run(tmp_path / "run", checkpoint, reviews)


@pytest.mark.parametrize(
    ("labels", "figure"),
    [([["a"], ["b"], ["a", "b"]], "mAP"), ([1.5, 2.5, -40.0], "RMSE")],
    ids=["several labels", "numbers"],
)
def test_pairs_of_every_task_are_scored_as_the_run_was(
    labels: list[Any], figure: str, checkpoint: Path, tmp_path: Path, capsys: Any
) -> None:
    words = [*WORDS, *WORDS[::-1]]
    rows = [
        {"text": f"the {word} {i}", "text_pair": f"a {word}", "label": labels[i % 3]}
        for i, word in enumerate(words)
    ]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = train_run(tmp_path / "run", checkpoint, data)
    capsys.readouterr()
    run_export(run, "--out", tmp_path / "out")
    scored = [line for line in capsys.readouterr().out.splitlines() if " texts/s; " in line]
    assert len(scored) == 2 and all(figure in line for line in scored)
    metrics = json.loads((run / "metrics.json").read_text())["validation"]
    assert f", {metrics['texts']} texts" in scored[1]


def test_a_run_is_exported_checked_and_scored(
    run_folder: Path, run_script: Callable[..., Any]
) -> None:
    done = run_script(["-m", "minibert", "export"], run_folder, "--int8")
    assert (done.returncode, done.stderr) == (0, "")
    out = run_script.place / "run-onnx"
    assert [x.name for x in run_script.place.iterdir()] == ["run-onnx"]
    assert sorted(x.name for x in out.iterdir()) == [*FILES, "vocab.txt"]
    graphs = sorted(x.name for x in (out / "onnx").iterdir())
    assert graphs == ["model.onnx", "model_quantized.onnx"]
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["DistilBertForSequenceClassification"]
    assert (config["hidden_size"], config["num_hidden_layers"]) == (12, 3)
    assert "temperature" not in config["minibert"]
    lines = done.stdout.splitlines()
    assert lines[0].startswith("checked on 9 texts of the validation split of ")
    metrics = json.loads((run_folder / "metrics.json").read_text())
    scored = [line for line in lines if " texts/s; accuracy " in line]
    assert len(scored) == 3  # PyTorch, and both graphs
    accuracy = f"accuracy {metrics['validation']['accuracy']:.1%} (95% interval "
    assert accuracy in scored[0] and accuracy in scored[1]
    assert any("no Attention" in line for line in lines)
    assert lines[-1] == "exported: run-onnx (python run-onnx/example.py TEXT)"
    predicted = run_script(
        "predict.py", "--model", run_folder, "--precision", "fp32", "a good film"
    )
    label = json.loads(predicted.stdout)["label"]
    assert run_example(out, run_script, "a good film")["label"] == label
    assert run_example(out, run_script, "a good film", "cold soup").keys() == {
        "label",
        "probabilities",
    }


def test_without_the_validation_split_fixed_texts_are_compared(
    run_folder: Path, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reviews.write_text(reviews.read_text().replace("soup", "film"))
    run_export(run_folder, "--out", tmp_path / "changed")
    reviews.unlink()
    run_export(run_folder, "--out", tmp_path / "missing")
    (run_folder / "settings.json").unlink()
    run_export(run_folder, "--out", tmp_path / "no-run")
    lines = capsys.readouterr().out.splitlines()
    reasons = [line for line in lines if line.startswith("no validation split: ")]
    assert "has changed since the run was trained" in reasons[0]
    assert "reviews.csv: no such file" in reasons[1]
    assert "is not a run of minibert" in reasons[2]
    assert sum(line == "checked on pairs of fixed texts" for line in lines) == 3
    assert not any("accuracy" in line for line in lines)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"long_texts": LongTexts("windows")}, "texts over 15 tokens: cut in the figures above"),
        ({"thresholds": (0.1, 0.9), "labels": ("no", "yes")}, "thresholds: example.py applies"),
        ({"min_probability": 0.8}, "rejected texts: only minibert marks them"),
        ({"task": "regression"}, "the logits are the numbers; "),
    ],
)
def test_what_readers_do_otherwise_is_said(
    more: dict[str, Any], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier(tmp_path / "model", **more)
    run_export(tmp_path / "model", "--out", tmp_path / "out")
    printed = capsys.readouterr().out
    assert f"\n{line}" in printed
    assert "\nthe mlp head is in the graph: " in printed


def refused(pattern: str, *argv: str | Path) -> None:
    """Assert that an export raises an InputError, and leaves nothing beside what was there."""
    place = Path(argv[-1]).parent
    before = sorted(place.rglob("*"))
    with pytest.raises(InputError, match=pattern):
        run_export(*argv)
    assert sorted(place.rglob("*")) == before


def test_mistakes_write_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    refused("no classification head; train a new head", checkpoint, "--out", out)
    refused("holds no checkpoint", tmp_path, "--out", out)
    classifier(tmp_path / "model")
    refused("model: exists; give a new folder", tmp_path / "model", "--out", tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        refused("needs the extra onnx", tmp_path / "model", "--out", out)
    monkeypatch.setattr(export, "OnnxModel", lambda graph: lambda *inputs: torch.ones(4, 3))
    refused(
        "logits differ from PyTorch's by up to .*; nothing is", tmp_path / "model", "--out", out
    )


@pytest.mark.faults
@pytest.mark.parametrize("size", [1000, 30_000])  # tokenizer.json, model.onnx
def test_a_full_disk_leaves_nothing(
    size: int, tmp_path: Path, run_script: Callable[..., Any]
) -> None:
    classifier(tmp_path / "model")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    argv = ("export", tmp_path / "model", "--out", tmp_path / "out")
    done = run_script(["-m", "minibert"], *argv, preexec_fn=limit)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "cannot be written (File too large)" in done.stderr
    assert [x.name for x in tmp_path.iterdir() if "out" in x.name] == []


def test_the_page_names_what_the_command_writes() -> None:
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    for name in (*FILES[:2], *FILES[3:], export.GRAPH, "onnx/model_quantized.onnx"):
        assert f"`{name}`" in page
