"""`minibert push`: a run becomes a model of the hub, and is loaded from there.

The hub is a server of the tests on 127.0.0.1 (hub_server.py).

Run: pytest tests/test_push.py
"""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import finish_script, write_checkpoint
from hub_server import Handler, Hub

from minibert.commands import train
from minibert.commands.arguments import parse_push, parse_train
from minibert.commands.push import main
from minibert.errors import InputError

Answer = subprocess.CompletedProcess[str]
PUSH = """
import sys
from minibert.commands.process import run_script
sys.exit(run_script("push"))
"""
SENT = {
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"),
    *("special_tokens_map.json", "modules.json", "1_Pooling/config.json"),
    *("README.md", "metrics.json"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `secret` with a finished run, its data file and its checkpoint.

    The run `pooler` has neither a pooling that sentence-transformers knows nor a vocab.txt.
    """
    place = tmp_path_factory.mktemp("push")
    write_checkpoint(place / "secret" / "tiny-bert", "bert")
    rows = [f"whisper {i} {('good', 'bad')[i % 2]},{('yes', 'no')[i % 2]}" for i in range(40)]
    data = place / "secret" / "reviews.csv"
    data.write_text("\n".join(["text,label", *rows]) + "\n")
    model = ["--model", str(place / "secret" / "tiny-bert"), "--data", str(data), "--freeze"]
    shape = ["--epochs", "1", "--max-length", "20", "--device", "cpu", "--no-baseline"]
    train.main(parse_train([*model, *shape, "--out", str(place / "secret" / "run")]))
    pooler = place / "secret" / "pooler"
    train.main(parse_train([*model, *shape, "--pooling", "pooler", "--out", str(pooler)]))
    (pooler / "vocab.txt").unlink()
    return place / "secret"


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    server.owners = {"a-token": "me"}
    yield server
    server.stop()


@pytest.fixture
def push(hub: Hub, place: Path, tmp_path: Path) -> Callable[..., Answer]:
    """Push the run as a process, which reads the hub's place and the token once."""

    def run(*words: str, run: str = "run", **changes: str) -> Answer:
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf_home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_TOKEN": "a-token",
            **changes,
        }
        return finish_script(["-c", PUSH, run, *words], cwd=place, env=environment)

    return run


def error_line(answer: Answer) -> str:
    assert answer.returncode == 2, answer
    assert answer.stderr.startswith("error: ") and answer.stderr.count("\n") == 1
    return answer.stderr


def test_a_run_is_published_in_one_commit_and_loaded_from_the_hub(hub, push, place, tmp_path):
    done = push("me/reviews")
    assert (done.returncode, done.stderr) == (0, "")
    files = hub.repositories["model", "me/reviews"]["main"]
    assert files.keys() == SENT
    assert sum("/commit/" in line for line in hub.log) == 1
    assert "me/reviews" not in hub.private
    assert done.stdout.startswith(f"{hub.url}/me/reviews/commit/")
    assert files["metrics.json"] == (place / "run" / "metrics.json").read_bytes()
    assert list(hub.large.values()) == [files["model.safetensors"]]

    def predict(model: str) -> str:
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        words = ["--model", model, "--precision", "fp32", "good film", "bad soup"]
        return finish_script("predict.py", *words, cwd=place, env=environment).stdout

    assert predict("me/reviews") == predict("run") != ""


@pytest.mark.parametrize("branch", ["main", "draft"])
def test_files_of_an_earlier_model_are_deleted_in_the_same_commit(hub, push, branch):
    old = dict.fromkeys(("modules.json", "1_Pooling/config.json", "vocab.txt"), b"old")
    mine = {".gitattributes": b"mine", "notes/vocab.txt": b"mine"}
    hub.add("model", "me/reviews", {**old, **mine}, branch)
    done = push("me/reviews", "--revision", branch, run="pooler")
    assert (done.returncode, done.stderr) == (0, "")
    assert sum("/commit/" in line for line in hub.log) == 1
    files = hub.repositories["model", "me/reviews"][branch]
    assert files.keys() == SENT - old.keys() | mine.keys()


def test_no_text_no_path_and_no_state_leaves_the_computer(hub, push, place):
    assert push("me/reviews").returncode == 0
    assert "whisper" in (place / "run" / "test_predictions.jsonl").read_text()
    for name, content in hub.repositories["model", "me/reviews"]["main"].items():
        assert b"whisper" not in content, name
        assert str(place).encode() not in content and b"secret" not in content, name


def test_a_private_model_on_a_branch(hub, push):
    assert push("me/reviews", "--private", "--revision", "v2/draft").returncode == 0
    assert hub.private == {"me/reviews"}
    revisions = hub.repositories["model", "me/reviews"]
    assert revisions["v2/draft"].keys() == SENT and revisions["main"] == {}


def test_a_public_model_does_not_become_private_so_nothing_is_sent(hub, push):
    hub.add("model", "me/reviews", {"README.md": b"public"})
    line = error_line(push("me/reviews", "--private"))
    assert "me/reviews: is there already and public; drop --private" in line
    assert hub.repositories["model", "me/reviews"]["main"] == {"README.md": b"public"}


def test_a_dry_run_writes_what_is_sent_and_sends_nothing(hub, push, tmp_path):
    folder = tmp_path / "what"
    done = push("me/reviews", "--dry-run", str(folder), HF_TOKEN="")
    assert (done.returncode, done.stderr) == (0, "")
    found = {str(x.relative_to(folder)) for x in folder.rglob("*") if x.is_file()}
    assert found == SENT and hub.log == []
    again = push("me/reviews", "--dry-run", str(folder))
    assert "exists; give a new folder" in error_line(again)


def test_the_runs_own_readme_is_the_card(hub, push, place):
    card = place / "run" / "README.md"
    card.write_text("---\nlicense: mit\n---\nMine.\n")
    try:
        assert push("me/reviews").returncode == 0
        sent = hub.repositories["model", "me/reviews"]["main"]["README.md"]
        card.write_text("---\nnot: valid: YAML\n---\n")
        refused = error_line(push("me/reviews"))
    finally:
        card.unlink()
    assert sent == b"---\nlicense: mit\n---\nMine.\n"
    assert "README.md: its header is not YAML" in refused


@pytest.mark.parametrize(
    ("target", "content", "says"),
    [
        ("reviews.csv", None, "README.md: is a link to a file outside its folder"),
        ("nothing", None, "README.md: is not a file; remove it"),
        (None, "Café".encode("latin-1"), "README.md: is not UTF-8; save it as UTF-8"),
    ],
)
def test_a_card_that_cannot_be_sent_makes_no_model(hub, push, place, target, content, says):
    """And leaves no half of a dry run."""
    card, dry = place / "run" / "README.md", place / "dry"
    if target:
        card.symlink_to(place / target)
    else:
        card.write_bytes(content)
    try:
        lines = [error_line(push("me/reviews", *words)) for words in ((), ("--dry-run", str(dry)))]
    finally:
        card.unlink()
    assert all(says in line for line in lines)
    assert hub.log == [] and not dry.exists()


@pytest.mark.parametrize(
    ("name", "token", "says"),
    [
        (
            "me/reviews",
            "",
            "push needs a token that may write there; hf auth login, or set HF_TOKEN",
        ),
        ("me/reviews", "unknown", "is not published; check the owner's name, and that the token"),
        ("others/reviews", "a-token", "is not published; check the owner's name, and that the tok"),
        ("me/a--b", "a-token", "is not published; the hub refuses it (Cannot have -- or .. in re"),
        ("reviews", "a-token", "reviews: a model on the hub is written owner/name"),
    ],
)
def test_a_name_or_token_that_may_not_write_is_one_line(hub, push, name, token, says):
    assert says in error_line(push(name, HF_TOKEN=token))
    assert hub.repositories == {}


def test_a_network_that_is_lost_is_one_line_and_publishes_nothing(hub, push):
    def lose(handler: Handler, request: str, _: bytes) -> bool:
        if request == "PUT":
            handler.answer(403, b"")
        return request == "PUT"

    hub.fault = lose
    line = error_line(push("me/reviews"))
    assert "me/reviews: is not published; push again (Error while uploading" in line
    assert hub.repositories["model", "me/reviews"]["main"] == {}
    hub.stop()
    assert "is not published; push again (" in error_line(push("me/reviews"))


@pytest.mark.parametrize("missing", ["metrics.json", "settings.json", "config.json"])
def test_a_folder_that_is_no_finished_run_is_refused(place, tmp_path, missing):
    for file in (place / "run").iterdir():
        if file.is_file() and file.name != missing:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match=r"is not a finished run of train.py|holds no checkpoint"):
        main(parse_push([str(tmp_path), "me/reviews"]))


def test_the_door_runs_push(place):
    done = finish_script(["-m", "minibert", "push", "--help"], cwd=place)
    assert done.returncode == 0 and "OWNER/NAME" in done.stdout
