"""The hub fails in every way: the model is complete or there is one line of error.

The hub is hub_server.py on 127.0.0.1. After each fault the model is requested again: without the
hub an incomplete one must not be used, and when the hub works again it must become complete.

Run: pytest -m faults tests/test_faults_hub.py
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import ROOT, finish_script, write_checkpoint
from hub_server import Handler, Hub, digest, files_of

pytestmark = pytest.mark.faults

MODEL, DATA = "owner/name", "hub:owner/set"
# huggingface_hub waits seconds between its tries; here it waits 10 ms.
FIND = """
import sys, time
pause = time.sleep
time.sleep = lambda seconds: pause(min(seconds, 0.01))
from minibert.commands.process import run_command
from minibert.hub import find_data, find_model

def answer(argv):
    data = argv[0].startswith("hub:")
    print(*(find_data(argv[0]).train if data else [find_model(argv[0])]), sep="\\n")

sys.exit(run_command(answer))
"""
Answer = subprocess.CompletedProcess[str]
Fault = Callable[[Handler, str, bytes], bool]


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.stop()


@pytest.fixture
def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf_home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_ETAG_TIMEOUT": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
    }


@pytest.fixture
def find(environment: dict[str, str], tmp_path: Path) -> Callable[..., Answer]:
    """Find a model or dataset in a new process."""

    def run(name: str, **changes: str) -> Answer:
        return finish_script(["-c", FIND, name], cwd=tmp_path, env={**environment, **changes})

    return run


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """A tiny model with a tokenizer_config.json, which is optional: reading would not miss it."""
    found = files_of(write_checkpoint(tmp_path / "published"))
    return {**found, "tokenizer_config.json": b'{"do_lower_case": false}'}


def is_complete(answer: Answer, files: dict[str, bytes]) -> bool:
    """Return whether a folder was found in which every file has the published bytes."""
    assert answer.returncode == 0, answer.stderr
    folder = Path(answer.stdout.strip())
    found = {name: digest(content) for name, content in files_of(folder).items()}
    return found == {name: digest(content) for name, content in files.items()}


def error_line(answer: Answer) -> str:
    """Return the last line of errors. The lines before it are huggingface_hub's, on its retries."""
    assert answer.returncode == 2, answer
    assert answer.stdout == "" and "Traceback" not in answer.stderr
    *before, last = answer.stderr.splitlines()
    assert last.startswith("error: ") and not any(line.startswith("error: ") for line in before)
    return last


def when(request: str, act: Callable[[Handler, bytes], None], times: int = 10**9) -> Fault:
    """Fail one kind of request, this many times."""
    left = [times]

    def fault(handler: Handler, asked: str, content: bytes) -> bool:
        if asked != request or left[0] == 0:
            return False
        left[0] -= 1
        act(handler, content)
        return True

    return fault


def status(code: int, **headers: str) -> Callable[[Handler, bytes], None]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _: handler.answer(code, b"", named)


def cut(handler: Handler, content: bytes, after: int = 7) -> None:
    """Announce the whole content, send its beginning, close the connection."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[:after])
    handler.close_connection = True


def stall(handler: Handler, content: bytes) -> None:
    """Send the beginning, then nothing for longer than the limit of one second."""
    if handler.command == "GET":
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:7])
    time.sleep(5)
    handler.close_connection = True


def resized(change: int) -> Callable[[Handler, bytes], None]:
    """Send a file that is shorter or longer than HEAD announced, without an error."""
    return lambda handler, content: handler.answer(200, (content + b"longer")[: change or None])


# --- temporary faults


TEMPORARY: dict[str, tuple[str, Callable[[Handler, bytes], None], int]] = {
    "500 twice, then the list": ("tree", status(500), 2),
    "429, then the list": ("tree", status(429, Retry_After="7"), 1),
    "503 twice, then what a file is": ("HEAD config.json", status(503), 2),
    "429, then the file": ("GET model.safetensors", status(429, Retry_After="7"), 1),
    "a file cut off": ("GET model.safetensors", cut, 1),
    "a list cut off": ("tree", cut, 1),
    "a file that stalls": ("GET vocab.txt", stall, 1),
    "a list that stalls": ("tree", stall, 1),
}


@pytest.mark.parametrize("name", TEMPORARY)
def test_a_temporary_fault_ends_in_a_complete_model(
    hub: Hub, find: Callable[..., Answer], files: dict[str, bytes], name: str
) -> None:
    request, act, times = TEMPORARY[name]
    hub.add("model", MODEL, files)
    hub.fault = when(request, act, times)
    answer = find(MODEL)
    assert is_complete(answer, files)
    if "429" in name:
        assert "Waiting 8.0s" in answer.stderr  # one more than Retry-After


def test_a_large_file_is_continued_where_it_was_cut_off(
    hub: Hub, find: Callable[..., Answer], files: dict[str, bytes]
) -> None:
    kept = 10 * 1024**2  # huggingface_hub writes in pieces of this size
    files = {**files, "vocab.txt": bytes(range(251)) * (kept // 251 + 3000)}
    hub.add("model", MODEL, files)
    hub.fault = when("GET vocab.txt", lambda handler, content: cut(handler, content, kept + 9), 1)
    assert is_complete(find(MODEL), files)
    assert hub.ranges == [f"bytes={kept}-"]


# --- permanent faults


PERMANENT: dict[str, tuple[str, Callable[[Handler, bytes], None], str]] = {
    "500 for the repository": ("info", status(500), "500 Internal Server Error"),
    "429 for the repository": ("info", status(429, Retry_After="7"), "429 Too Many Requests"),
    "401 for the repository": ("info", status(401), "401 Unauthorized"),
    "403 for the repository": ("info", status(403), "403 Forbidden"),
    "a repository that stalls": ("info", stall, "timed out"),
    "500 for the list": ("tree", status(500), "500 Internal Server Error"),
    "a list that stalls": ("tree", stall, ""),
    "503 for what a file is": ("HEAD config.json", status(503), ""),
    "what a file is stalls": ("HEAD config.json", stall, ""),
    "404 for a file": ("GET vocab.txt", status(404), "404 Not Found"),
    "500 for a file": ("GET tokenizer_config.json", status(500), "500 Internal Server Error"),
    "a file cut off": ("GET tokenizer_config.json", cut, "peer closed connection"),
    "the weights cut off": ("GET model.safetensors", cut, "peer closed connection"),
    "a file that stalls": ("GET vocab.txt", stall, "timed out"),
    "a file too short": ("GET tokenizer_config.json", resized(-9), "Consistency check failed"),
    "a file too long": ("GET tokenizer_config.json", resized(0), "Consistency check failed"),
}


@pytest.mark.parametrize("name", PERMANENT)
def test_a_permanent_fault_is_one_line_of_error_and_its_remains_are_not_used(
    hub: Hub, find: Callable[..., Answer], files: dict[str, bytes], name: str
) -> None:
    request, act, reason = PERMANENT[name]
    hub.add("model", MODEL, files)
    hub.fault = when(request, act)
    line = error_line(find(MODEL))  # find has a limit of 60 seconds
    assert f"model {MODEL}" in line and reason in line
    assert f"model {MODEL}" in error_line(find(MODEL, HF_HUB_OFFLINE="1"))
    hub.fault = lambda *_: False
    assert is_complete(find(MODEL), files)
    assert is_complete(find(MODEL, HF_HUB_OFFLINE="1"), files)


@pytest.mark.parametrize("code", [401, 403])
def test_the_error_for_a_gated_model_says_where_to_agree(
    hub: Hub, find: Callable[..., Answer], files: dict[str, bytes], code: int
) -> None:
    hub.add("model", MODEL, files)
    hub.gated.add(MODEL)
    hub.gated_status = code
    line = error_line(find(MODEL))
    assert f"accept at {hub.url}/{MODEL}, then set HF_TOKEN" in line


def test_a_file_that_is_always_too_short_is_not_used(
    hub: Hub,
    find: Callable[..., Answer],
    files: dict[str, bytes],
    environment: dict[str, str],
) -> None:
    # Only the list of files has the published size.
    def shorter(handler: Handler, asked: str, content: bytes) -> bool:
        if not asked.endswith(" vocab.txt"):
            return False
        commit = handler.path.split("/resolve/")[1].split("/")[0]
        headers = {"ETag": f'"{digest(content)}"', "X-Repo-Commit": commit}
        handler.answer(200, content[:-4], headers)
        return True

    hub.add("model", MODEL, files)
    hub.fault = shorter
    size = len(files["vocab.txt"])
    expected = f"the cache holds {size - 4} of the {size} bytes of vocab.txt"
    line = error_line(find(MODEL))
    assert expected in line
    assert expected in error_line(find(MODEL, HF_HUB_OFFLINE="1"))
    folder = line.partition("delete ")[2].partition(" and try again")[0]
    assert folder.startswith(environment["HF_HOME"])
    shutil.rmtree(folder)
    hub.fault = lambda *_: False
    assert is_complete(find(MODEL), files)


def test_a_model_that_changes_while_it_is_fetched_is_not_used(
    hub: Hub, find: Callable[..., Answer], files: dict[str, bytes]
) -> None:
    newer = {**files, "tokenizer_config.json": b"{}", "vocab.txt": files["vocab.txt"] + b"new\n"}
    hub.add("model", MODEL, files)
    asked = []

    def change(_: Handler, what: str, __: bytes) -> bool:
        asked.append(what)
        if asked == ["info"]:  # which was answered with the older commit
            hub.add("model", MODEL, newer)
        return False

    hub.fault = change
    line = error_line(find(MODEL))
    assert f"model {MODEL}: changed on the hub while it was fetched; try again" in line
    assert is_complete(find(MODEL), newer)


def test_a_change_after_the_list_does_not_matter(
    hub: Hub, find: Callable[..., Answer], files: dict[str, bytes]
) -> None:
    newer = {**files, "vocab.txt": files["vocab.txt"] + b"new\n"}
    hub.add("model", MODEL, files)

    def change(_: Handler, what: str, __: bytes) -> bool:
        if what == "tree":
            hub.add("model", MODEL, newer)
        return False

    hub.fault = change
    assert is_complete(find(MODEL), files)
    assert is_complete(find(MODEL), newer)


# --- without the hub


@pytest.mark.parametrize("lost", ["tokenizer_config.json", "vocab.txt", "config.json"])
def test_a_cache_that_lost_a_file_is_not_used(
    hub: Hub, find: Callable[..., Answer], files: dict[str, bytes], lost: str
) -> None:
    hub.add("model", MODEL, files)
    answer = find(MODEL)
    assert is_complete(answer, files)
    (Path(answer.stdout.strip()) / lost).unlink()
    assert f"of {lost};" in error_line(find(MODEL, HF_HUB_OFFLINE="1"))
    assert is_complete(find(MODEL), files)


def test_an_incomplete_dataset_is_not_used(hub: Hub, find: Callable[..., Answer]) -> None:
    names = [f"data/train-0000{number}-of-00003.csv" for number in range(3)]
    hub.add("dataset", "owner/set", {name: f"text,label\n{name},1\n".encode() for name in names})
    hub.fault = when(f"GET {names[1]}", cut)
    assert "dataset owner/set" in error_line(find(DATA))
    assert f"bytes of {names[1]}" in error_line(find(DATA, HF_HUB_OFFLINE="1"))
    hub.fault = lambda *_: False
    assert len(find(DATA).stdout.splitlines()) == 3


def test_a_cache_without_a_list_of_files_is_used_only_by_its_path(
    hub: Hub, find: Callable[..., Answer], files: dict[str, bytes]
) -> None:
    # Tools that fetch file by file leave no list, so nothing tells which files are missing.
    hub.add("model", MODEL, files)
    folder = Path(find(MODEL).stdout.strip())
    shutil.rmtree(folder.parent.parent / "trees")
    line = error_line(find(MODEL, HF_HUB_OFFLINE="1"))
    assert f"give its path: {folder}" in line
    assert find(str(folder), HF_HUB_OFFLINE="1").returncode == 0


# --- no other server is called


BRIEF = ["--epochs", "1", "--max-length", "auto"]


@pytest.fixture
def calls(tmp_path: Path, environment: dict[str, str]) -> Path:
    """The file where processes with this environment record their sockets and connections.

    Recorded by Python's audit events, which do not see system calls of compiled libraries.
    """
    place, log = tmp_path / "watch", tmp_path / "calls.txt"
    place.mkdir()
    log.touch()
    (place / "sitecustomize.py").write_text(
        "import sys\n"
        "def watch(event, details):\n"
        "    if event.startswith('socket.'):\n"
        f"        with open({str(log)!r}, 'a') as file:\n"
        "            print(event, *details[1:], file=file)\n"
        "sys.addaudithook(watch)\n"
    )
    environment["PYTHONPATH"] = f"{place}{os.pathsep}{ROOT}"
    return log


def test_local_files_need_no_socket(
    environment: dict[str, str],
    calls: Path,
    checkpoint: Path,
    reviews: Path,
    run_script: Callable[..., Answer],
) -> None:
    training = ["--model", checkpoint, "--data", reviews, "--out", "run", *BRIEF]
    for script, options in {
        "train.py": training,
        "eval.py": ["--model", "run", "--data", reviews],
        "predict.py": ["--model", "run", "good film"],
    }.items():
        answer = run_script(script, *options, env=environment)
        assert answer.returncode == 0, answer.stderr
        assert calls.read_text() == "", script


def test_only_the_hub_is_called_and_only_for_the_model(
    hub: Hub,
    environment: dict[str, str],
    calls: Path,
    files: dict[str, bytes],
    reviews: Path,
    run_script: Callable[..., Answer],
) -> None:
    hub.add("model", MODEL, files)
    options = ["--model", MODEL, "--data", reviews, "--out", "run", *BRIEF]
    answer = run_script("train.py", *options, env=environment)
    assert answer.returncode == 0, answer.stderr
    port = hub.server.server_port
    made = [line for line in calls.read_text().splitlines() if "socket.connect" in line]
    assert made and set(made) == {f"socket.connect ('127.0.0.1', {port})"}
    paths = {line.split()[1] for line in hub.log}
    starts = (f"/api/models/{MODEL}", f"/{MODEL}/resolve/")
    assert all(path.startswith(starts) for path in paths), paths
    assert not any("torch" in agent for agent in hub.agents), hub.agents
