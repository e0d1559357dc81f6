"""The hub fails in every way: an answer that is whole, or one line; a half-fetched model never.

The hub is hub_server.py on 127.0.0.1. What a fault leaves in the cache is asked for again: without
the hub it must not be used, with the hub in order it must become whole.

Run: pytest -m faults tests/test_faults_hub.py
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import ROOT, write_checkpoint
from hub_server import Handler, Hub, digest, files_of

pytestmark = pytest.mark.faults

MODEL, DATA = "owner/name", "hub:owner/set"
# huggingface_hub waits seconds between its tries, which nobody needs to sit through here.
FIND = """
import sys, time
pause = time.sleep
time.sleep = lambda seconds: pause(min(seconds, 0.01))
from minibert.errors import run_command
from minibert.hub import find_data, find_model

def answer(words):
    data = words[0].startswith("hub:")
    print(*(find_data(words[0]).train if data else [find_model(words[0])]), sep="\\n")

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
    """Find a model or data set in a process of its own."""

    def run(name: str, **changes: str) -> Answer:
        return subprocess.run(
            [sys.executable, "-c", FIND, name],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment, **changes},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """A tiny model; the setting of its tokenizer is a file that reading would not miss."""
    found = files_of(write_checkpoint(tmp_path / "published"))
    return {**found, "tokenizer_config.json": b'{"do_lower_case": false}'}


def is_whole(answer: Answer, files: dict[str, bytes]) -> bool:
    """Whether a folder was found, and every file in it has the published bytes."""
    assert answer.returncode == 0, answer.stderr
    folder = Path(answer.stdout.strip())
    found = {name: digest(content) for name, content in files_of(folder).items()}
    return found == {name: digest(content) for name, content in files.items()}


def error_line(answer: Answer) -> str:
    """The last line; what stands before it are huggingface_hub's words about its retries."""
    assert answer.returncode == 2, answer
    assert answer.stdout == "" and "Traceback" not in answer.stderr
    *before, last = answer.stderr.splitlines()
    assert last.startswith("error: ") and not any(line.startswith("error: ") for line in before)
    return last


def when(request: str, act: Callable[[Handler, bytes], None], times: int = 10**9) -> Fault:
    """Fail one kind of request, so many times."""
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
    """Promise all of it, send the beginning, hang up."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[:after])
    handler.close_connection = True


def stall(handler: Handler, content: bytes) -> None:
    """Begin, and say no more: longer than the limit of one second, not as long as the test."""
    if handler.command == "GET":
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:7])
    time.sleep(5)
    handler.close_connection = True


def resized(change: int) -> Callable[[Handler, bytes], None]:
    """Send a file that is shorter or longer than its HEAD has said, in good form."""
    return lambda handler, content: handler.answer(200, (content + b"longer")[: change or None])


# --- faults that pass


PASSING: dict[str, tuple[str, Callable[[Handler, bytes], None], int]] = {
    "500 twice, then the list": ("tree", status(500), 2),
    "429, then the list": ("tree", status(429, Retry_After="7"), 1),
    "503 twice, then what a file is": ("HEAD config.json", status(503), 2),
    "429, then the file": ("GET model.safetensors", status(429, Retry_After="7"), 1),
    "a file cut off": ("GET model.safetensors", cut, 1),
    "a list cut off": ("tree", cut, 1),
    "a file that stalls": ("GET vocab.txt", stall, 1),
    "a list that stalls": ("tree", stall, 1),
}


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes_ends_in_a_whole_model(
    hub: Hub, find: Callable[..., Answer], files: dict[str, bytes], name: str
) -> None:
    request, act, times = PASSING[name]
    hub.add("model", MODEL, files)
    hub.fault = when(request, act, times)
    answer = find(MODEL)
    assert is_whole(answer, files)
    if "429" in name:
        assert "Waiting 8.0s" in answer.stderr  # what Retry-After asks for, and one


def test_a_large_file_goes_on_where_it_was_cut_off(
    hub: Hub, find: Callable[..., Answer], files: dict[str, bytes]
) -> None:
    kept = 10 * 1024**2  # huggingface_hub writes in pieces of this size
    files = {**files, "vocab.txt": bytes(range(251)) * (kept // 251 + 3000)}
    hub.add("model", MODEL, files)
    hub.fault = when("GET vocab.txt", lambda handler, content: cut(handler, content, kept + 9), 1)
    assert is_whole(find(MODEL), files)
    assert hub.ranges == [f"bytes={kept}-"]


# --- faults that stay


LASTING: dict[str, tuple[str, Callable[[Handler, bytes], None], str]] = {
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


@pytest.mark.parametrize("name", LASTING)
def test_a_fault_that_stays_is_one_line_and_leaves_nothing_that_is_used(
    hub: Hub, find: Callable[..., Answer], files: dict[str, bytes], name: str
) -> None:
    request, act, reason = LASTING[name]
    hub.add("model", MODEL, files)
    hub.fault = when(request, act)
    start = time.monotonic()
    line = error_line(find(MODEL))
    assert time.monotonic() - start < 18  # seven tries of a second each, on a busy machine
    assert f"model {MODEL}" in line and reason in line
    assert f"model {MODEL}" in error_line(find(MODEL, HF_HUB_OFFLINE="1"))
    hub.fault = lambda *_: False
    assert is_whole(find(MODEL), files)
    assert is_whole(find(MODEL, HF_HUB_OFFLINE="1"), files)


@pytest.mark.parametrize("code", [401, 403])
def test_a_gated_model_says_where_to_agree(
    hub: Hub, find: Callable[..., Answer], files: dict[str, bytes], code: int
) -> None:
    hub.add("model", MODEL, files)
    hub.gated.add(MODEL)
    hub.gated_status = code
    line = error_line(find(MODEL))
    assert f"accept at {hub.url}/{MODEL}, then set HF_TOKEN" in line


def test_a_file_that_is_consistently_too_short_is_not_used(
    hub: Hub,
    find: Callable[..., Answer],
    files: dict[str, bytes],
    environment: dict[str, str],
) -> None:
    # Only the list of files tells the size that was published.
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
    folder = line.partition("delete ")[2].partition(" and run it")[0]
    assert folder.startswith(environment["HF_HOME"])
    shutil.rmtree(folder)
    hub.fault = lambda *_: False
    assert is_whole(find(MODEL), files)


def test_a_model_is_of_one_commit_or_not_used(
    hub: Hub, find: Callable[..., Answer], files: dict[str, bytes]
) -> None:
    newer = {**files, "tokenizer_config.json": b"{}", "vocab.txt": files["vocab.txt"] + b"new\n"}
    hub.add("model", MODEL, files)
    asked = []

    def change(_: Handler, what: str, __: bytes) -> bool:
        asked.append(what)
        if asked == ["info"]:  # the answer to it is the older commit's
            hub.add("model", MODEL, newer)
        return False

    hub.fault = change
    line = error_line(find(MODEL))
    assert f"model {MODEL}: was changed on the hub while it was fetched; run it again" in line
    assert is_whole(find(MODEL), newer)


def test_a_change_after_the_list_leaves_the_listed_commit(
    hub: Hub, find: Callable[..., Answer], files: dict[str, bytes]
) -> None:
    newer = {**files, "vocab.txt": files["vocab.txt"] + b"new\n"}
    hub.add("model", MODEL, files)

    def change(_: Handler, what: str, __: bytes) -> bool:
        if what == "tree":
            hub.add("model", MODEL, newer)
        return False

    hub.fault = change
    assert is_whole(find(MODEL), files)
    assert is_whole(find(MODEL), newer)


# --- without the hub


@pytest.mark.parametrize("lost", ["tokenizer_config.json", "vocab.txt", "config.json"])
def test_a_cache_that_lost_a_file_is_not_used(
    hub: Hub, find: Callable[..., Answer], files: dict[str, bytes], lost: str
) -> None:
    hub.add("model", MODEL, files)
    answer = find(MODEL)
    assert is_whole(answer, files)
    (Path(answer.stdout.strip()) / lost).unlink()
    assert f"of {lost};" in error_line(find(MODEL, HF_HUB_OFFLINE="1"))
    assert is_whole(find(MODEL), files)


def test_a_data_set_fetched_in_part_is_not_used(hub: Hub, find: Callable[..., Answer]) -> None:
    names = [f"data/train-0000{part}-of-00003.csv" for part in range(3)]
    hub.add("dataset", "owner/set", {name: f"text,label\n{name},1\n".encode() for name in names})
    hub.fault = when(f"GET {names[1]}", cut)
    assert "dataset owner/set" in error_line(find(DATA))
    assert f"bytes of {names[1]}" in error_line(find(DATA, HF_HUB_OFFLINE="1"))
    hub.fault = lambda *_: False
    assert len(find(DATA).stdout.splitlines()) == 3


def test_a_cache_without_a_list_is_used_by_its_path_only(
    hub: Hub, find: Callable[..., Answer], files: dict[str, bytes]
) -> None:
    # So it is where other tools fetch file by file: nothing tells which are missing.
    hub.add("model", MODEL, files)
    folder = Path(find(MODEL).stdout.strip())
    shutil.rmtree(folder.parent.parent / "trees")
    line = error_line(find(MODEL, HF_HUB_OFFLINE="1"))
    assert f"give its path: {folder}" in line
    assert find(str(folder), HF_HUB_OFFLINE="1").returncode == 0


# --- nobody else is called


BRIEFLY = ["--epochs", "1", "--max-length", "auto"]


@pytest.fixture
def calls(tmp_path: Path, environment: dict[str, str]) -> Path:
    """Where processes with this environment write down each socket and each connection.

    Told by Python's audit events; a library that calls the system itself would not be seen.
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
    training = ["--model", checkpoint, "--data", reviews, "--out", "run", *BRIEFLY]
    for script, words in {
        "train.py": training,
        "eval.py": ["--model", "run", "--data", reviews],
        "predict.py": ["--model", "run", "good film"],
    }.items():
        answer = run_script(script, *words, env=environment)
        assert answer.returncode == 0, answer.stderr
        assert calls.read_text() == "", script


def test_only_the_hub_is_called_and_only_for_files(
    hub: Hub,
    environment: dict[str, str],
    calls: Path,
    files: dict[str, bytes],
    reviews: Path,
    run_script: Callable[..., Answer],
) -> None:
    hub.add("model", MODEL, files)
    words = ["--model", MODEL, "--data", reviews, "--out", "run", *BRIEFLY]
    answer = run_script("train.py", *words, env=environment)
    assert answer.returncode == 0, answer.stderr
    port = hub.server.server_port
    made = [line for line in calls.read_text().splitlines() if "socket.connect" in line]
    assert made and set(made) == {f"socket.connect ('127.0.0.1', {port})"}
    paths = {line.split()[1] for line in hub.log}
    starts = (f"/api/models/{MODEL}", f"/{MODEL}/resolve/")
    assert all(path.startswith(starts) for path in paths), paths
    assert not any("torch" in agent for agent in hub.agents), hub.agents
