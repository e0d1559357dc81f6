"""The model card: the hub reads its header, Markdown shows names as they are, its code runs.

Run: pytest tests/test_card.py
"""

import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import WORDS, write_checkpoint
from huggingface_hub import ModelCard

from minibert.commands import train
from minibert.commands.arguments import parse_train
from minibert.errors import InputError
from minibert.report.card import model_card

HOSTILE = ["---", "a|b `c`", "<script>alert(1)</script> &amp;", "[x](http://evil.org) *b* @me"]
KINDS = {
    "classes": (),
    "native": ("--data", "classes.csv", "--head", "native"),
    "pairs": ("--pair-column", "other", "--head", "native"),
    "sets": ("--task", "multi-label", "--label-separator", ";"),
    "numbers": ("--task", "regression", "--head", "native"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each kind. In `classes` the names of classes are markup."""
    place = tmp_path_factory.mktemp("cards")
    write_checkpoint(place / "model")
    words = [f"the {WORDS[5 + i % 30]} {i}" for i in range(60)]
    labels = {
        "classes": [HOSTILE[i % 4] for i in range(60)],
        "sets": [("a;b", "b", "a;c", "")[i % 4] for i in range(60)],
        "numbers": [f"{i / 7:.3f}" for i in range(60)],
    }
    runs = {}
    for kind, flags in KINDS.items():
        column = labels.get(kind, labels["classes"])
        data = place / f"{kind}.csv"
        rows = [f"{word},{word} too,{x}" for word, x in zip(words, column, strict=True)]
        if kind != "pairs":
            rows = [f"{word},{x}" for word, x in zip(words, column, strict=True)]
        head = "text,other,label" if kind == "pairs" else "text,label"
        data.write_text("\n".join([head, *rows]) + "\n")
        flags = tuple(str(place / x) if x.endswith(".csv") else x for x in flags)
        argv = ["--model", str(place / "model"), "--data", str(data), "--max-length", "20"]
        argv += ["--freeze", "--epochs", "1", "--device", "cpu", *flags, "--out", str(place / kind)]
        train.main(parse_train(argv))
        runs[kind] = place / kind
    return runs


def changed(run: Path, folder: Path, **settings: Any) -> Path:
    """A copy of a run with other settings."""
    shutil.copytree(run, folder, dirs_exist_ok=True)
    file = folder / "settings.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return folder


def header(card: str) -> dict[str, Any]:
    """What the hub reads."""
    return dict(ModelCard(card).data.to_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_the_header_has_the_figures_of_the_test_split(runs, kind):
    found = header(model_card(runs[kind], "me/reviews"))
    assert found["pipeline_tag"] == "text-classification"
    library = "minibert" if kind in ("classes", "sets") else "transformers"
    assert (found["library_name"], found["tags"]) == (library, ["minibert", "distilbert"])
    (model,) = found["model-index"]
    (result,) = model["results"]
    assert (model["name"], result["dataset"]["split"]) == ("reviews", "test")
    scores = json.loads((runs[kind] / "metrics.json").read_text())["test"]
    values = [x for x in scores.values() if isinstance(x, float)]
    assert [metric["value"] for metric in result["metrics"]] == values


def test_an_interval_is_beside_its_figure(runs):
    (model,) = header(model_card(runs["classes"], "me/reviews"))["model-index"]
    low, high = json.loads((runs["classes"] / "metrics.json").read_text())["test"]["accuracy_95"]
    name = f"accuracy (95% interval {100 * low:.1f}% to {100 * high:.1f}%)"
    assert model["results"][0]["metrics"][0]["name"] == name


@pytest.mark.parametrize(
    ("model", "data", "base", "datasets"),
    [
        ("distilbert-base-uncased", "sst2", "distilbert-base-uncased", ["SetFit/sst2"]),
        ("all-MiniLM-L6-v2", "hub:a/b/c", "sentence-transformers/all-MiniLM-L6-v2", ["a/b"]),
        ("/home/me/bert", "/home/me/my.csv", None, None),
        (r"C:\home\me\Jane Doe\bert", r"C:\home\me\my.csv", None, None),
        ("../me/bert", "../me/my.csv", None, None),
    ],
)
def test_names_of_the_hub_are_linked_and_paths_are_not_told(
    runs, tmp_path, model, data, base, datasets
):
    card = model_card(changed(runs["classes"], tmp_path, model=model, data=data), "me/reviews")
    found = header(card)
    assert (found.get("base_model"), found.get("datasets")) == (base, datasets)
    assert not re.search(r"home|Jane|me[/\\](bert|my)", card)
    if base is None:
        assert "minibert trained it from bert on my.csv" in card


def test_a_folder_here_is_not_taken_for_a_model_of_the_hub(runs, tmp_path, monkeypatch):
    (tmp_path / "here" / "secret" / "bert").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    card = model_card(changed(runs["classes"], tmp_path / "run", model="secret/bert"), "me/reviews")
    assert "secret" not in card


def options(card: str) -> dict[str, str]:
    """The table of options."""
    table = card.partition("## Training")[2].partition("## Limits")[0]
    return dict(re.findall(r"^\| (.+?) \| (.+?) \|$", table.replace("\\", ""), re.MULTILINE))


SPLITTING = {"split": "70:15:15", "split seed": "2021"}


@pytest.mark.parametrize(
    ("settings", "has", "has_not"),
    [
        ({}, {**SPLITTING, "epochs": "1", "head lr": "0.0001"}, ("encoder lr", "fold", "clip")),
        ({"freeze": False}, {"encoder lr": "2e-05"}, ("freeze",)),
        (
            {"head": "logistic", "class_weights": "balanced"},
            {"head": "logistic", "class weights": "balanced", "seed": "0"},
            ("epochs", "head lr", "encoder lr", "warmup"),
        ),
        ({"data": "hub:a/b"}, {}, SPLITTING),
        ({"validation": "v.csv", "test": "t.csv"}, {}, SPLITTING),
        ({"validation": "v.csv"}, {}, SPLITTING),
        ({"validation": "v.csv", "fold": [1, 5]}, {"split seed": "2021"}, ("split",)),
        ({"test": "t.csv"}, SPLITTING, ()),
        ({"fold": [1, 5]}, {**SPLITTING, "fold": "1/5"}, ()),
        ({"train_percent": 10}, {"train percent": "10"}, ()),
        ({"patience": 2, "schedule": "cosine"}, {"patience": "2", "schedule": "cosine"}, ()),
    ],
)
def test_the_options_are_those_that_the_run_used(runs, tmp_path, settings, has, has_not):
    found = options(model_card(changed(runs["classes"], tmp_path, **settings), "me/reviews"))
    assert has.items() <= found.items()
    assert not found.keys() & set(has_not)


def test_a_learning_curve_is_a_table(runs, tmp_path):
    folder = changed(runs["classes"], tmp_path)
    file = folder / "metrics.json"
    figures = {n: {"accuracy": n / 100} for n in (10, 40)}
    points = [{"training_texts": n, "validation": x, "test": x} for n, x in figures.items()]
    file.write_text(json.dumps({**json.loads(file.read_text()), "learning_curve": points}))
    card = model_card(folder, "me/reviews")
    curve = card.partition("## Learning curve\n")[2].partition("\n## ")[0]
    assert "accuracy" in curve and "| 40 | 40.0% | 40.0% |" in curve


@pytest.mark.parametrize("kind", KINDS)
def test_every_section_has_content(runs, kind):
    sections = re.split(r"^## ", model_card(runs[kind], "me/reviews"), flags=re.MULTILINE)
    assert all(section.partition("\n")[2].strip() for section in sections)


@pytest.mark.usefixtures("pictures")
def test_no_picture_is_drawn(runs, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("minibert.report.pictures.svg", lambda *_, **__: pytest.fail("drawn"))
    model_card(runs["numbers"], "me/reviews")


def test_a_data_file_may_have_any_name(runs, tmp_path):
    name = 'a: "b" # ---\n---\n[c].csv'
    card = model_card(changed(runs["classes"], tmp_path, data=f"/data/{name}"), "me/reviews")
    shown = header(card)["model-index"][0]["results"][0]["dataset"]["name"]
    assert shown == 'a: "b" # ---\\n---\\n[c].csv'


def test_names_of_classes_are_text_and_not_markup(runs):
    markdown = pytest.importorskip("markdown_it")
    card = ModelCard(model_card(runs["classes"], "me/reviews"))
    tokens = markdown.MarkdownIt("commonmark").enable("table").parse(card.text)
    leaves = [x for token in tokens for x in token.children or [token]]
    assert not {"html_inline", "html_block", "link_open", "em_open", "hr"} & {
        x.type for x in leaves
    }
    cells = {
        "".join(x.content for x in token.children)
        for before, token in itertools.pairwise(tokens)
        if before.type == "td_open"
    }
    assert set(HOSTILE) <= cells


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_of_the_card_runs(runs, kind):
    pytest.importorskip("transformers")
    card = model_card(runs[kind], "me/reviews")
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == (1 if kind in ("classes", "sets") else 2)
    for block in blocks:
        exec(block.replace("me/reviews", str(runs[kind])), {})


def test_without_a_test_split_the_figures_are_of_validation_and_the_card_says_so(runs, tmp_path):
    folder = changed(runs["classes"], tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["test"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    card = model_card(folder, "me/reviews")
    assert "measured on 9 texts of the validation split of the same data" in card
    assert "The run has no test split." in card


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ({"thresholds": [0.2, 0.8]}, "labels follow thresholds in config.json"),
        ({"min_probability": 0.7}, "minibert marks labels below the probability 0.7 as rejected"),
        (
            {"long_texts": {"how": "head-tail"}},
            "Of more than 20 tokens it reads the first and the last.",
        ),
        (
            {"long_texts": {"how": "windows"}},
            "It reads more than 20 tokens in overlapping windows.",
        ),
    ],
)
def test_what_other_libraries_do_not_do_is_a_limit(runs, tmp_path, head, says):
    folder = changed(runs["classes"], tmp_path)
    config = json.loads((folder / "config.json").read_text())
    if "thresholds" in head:
        config["id2label"] = {"0": "a", "1": "b"}
    config["minibert"] |= head
    (folder / "config.json").write_text(json.dumps(config))
    assert says in model_card(folder, "me/reviews")


def test_figures_of_another_version_are_one_line(runs, tmp_path):
    folder = changed(runs["classes"], tmp_path)
    (folder / "metrics.json").write_text('{"test": {}}')
    with pytest.raises(InputError, match=r"metrics.json or history.csv is not as this version"):
        model_card(folder, "me/reviews")
