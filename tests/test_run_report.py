"""report.html: every task has one, texts stay texts, and nothing is wider than the screen.

Run: pytest tests/test_run_report.py
"""

import html.parser
import itertools
import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import WORDS, write_checkpoint

from minibert.commands import evaluate, report, train
from minibert.commands.arguments import parse_evaluate, parse_train
from minibert.errors import InputError
from minibert.report.page import page, write_report
from minibert.report.probabilities import coverage
from minibert.report.run_data import RunData, read_run
from minibert.report.sections import sections

HOSTILE = '<script>document.title = "ran"</script> & <u>"bold"</u> ' + "x" * 200
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
VOID = {"meta"}
PLAIN = ("--device", "cpu", "--precision", "fp32")
pytestmark = pytest.mark.usefixtures("pictures")


class Reader(html.parser.HTMLParser):
    """What a browser makes of a page: its tags with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: dict[str, set[str | None]] = {}
        self.text, self.open = "", list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.open += [] if tag in VOID else [tag]
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint and data of each task."""
    folder = tmp_path_factory.mktemp("reports")
    write_checkpoint(folder / "model")
    rows = [(WORDS[5 + i % 30], i) for i in range(40)]
    texts = [f"the {word} {i} {'film ' * (i % 25)}" for word, i in rows]
    for name, labels in {
        "classes": [("good", "<s>bad</s>")[i % 2] for _, i in rows],
        "sets": [("a|b", "b", "a|c", "")[i % 4] for _, i in rows],
        "numbers": [f"{i / 7:.3f}" for _, i in rows],
    }.items():
        lines = [f"{text},{label}" for text, label in zip(texts, labels, strict=True)]
        (folder / f"{name}.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    shutil.copy(folder / "classes.csv", folder / "more.csv")
    return folder


def train_here(place: Path, name: str, *flags: str) -> Path:
    """Train in this process; return the run's folder."""
    shape = ["--epochs", "2", "--max-length", "20", "--freeze", *PLAIN]
    words = ["--model", str(place / "model"), *shape, *flags, "--out", str(place / name)]
    train.main(parse_train(words))
    return place / name


@pytest.fixture(scope="module")
def single(place: Path) -> Path:
    """A finished run of two classes, of which one has the name of a tag."""
    return train_here(place, "single", "--data", str(place / "classes.csv"))


@pytest.fixture
def run(single: Path, tmp_path: Path) -> Path:
    """A copy of the run in which the surest error has a hostile text."""
    folder = tmp_path / "<u>run"
    shutil.copytree(single, folder)
    row = {"text": HOSTILE, "label": "good", "prediction": "<s>bad</s>", "probability": 1.0}
    with open(folder / "test_predictions.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")
    return folder


def test_texts_and_names_are_shown_as_they_are(run):
    found = Reader(write_report(run).read_text())
    assert all(x in found.text for x in (HOSTILE, "<s>bad</s>", "<u>run"))
    assert not {"script", "s", "u"} & found.tags
    assert found.open == []


def test_the_page_needs_no_network_and_runs_no_script(run):
    found = Reader(write_report(run).read_text())
    assert not {"script", "link", "img", "iframe", "object"} & found.tags
    places = found.attributes.get("href", set()) | found.attributes.get("xlink:href", set())
    assert all(place and place.startswith("#") for place in places)
    assert not {"src", "srcset", "action"} & found.attributes.keys()
    assert not [name for name in found.attributes if name.startswith("on")]
    assert "default-src 'none'; style-src 'unsafe-inline'" in found.attributes["content"]


def test_the_same_folder_gives_the_same_bytes(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_the_colours_of_pictures_are_those_of_the_page(run):
    pytest.importorskip("matplotlib")
    text = write_report(run).read_text()
    pictures = text[text.index("<svg") : text.rindex("</svg>")]
    assert text.count("<svg") >= 6
    assert "var(--accent)" in pictures and "#0" not in pictures.replace("#0f", "")


def test_without_matplotlib_the_page_has_the_tables_and_says_what_is_missing(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = write_report(run).read_text()
    assert "pip install matplotlib" in Reader(text).text and "<svg" not in text
    assert "<details><summary>The numbers" not in text  # not folded


SETS = ("--data", "sets.csv", "--task", "multi-label", "--label-separator", "|")


@pytest.mark.parametrize(
    ("flags", "titles"),
    [
        (SETS, ["Figures", "Classes", "Errors on the test split", "Probabilities"]),
        (("--data", "numbers.csv", "--task", "regression"), ["Figures", "Data", "Settings"]),
        (
            ("--data", "classes.csv", "--validation", "more.csv", "--no-baseline"),
            ["Errors on the validation split", "Accuracy by length", "Probabilities"],
        ),
        (("--data", "classes.csv", "--head", "logistic"), ["Training", "Data", "Settings"]),
    ],
)
def test_every_task_has_a_report(place, tmp_path, monkeypatch, capsys, flags, titles):
    monkeypatch.chdir(place)
    epochs = [] if "logistic" in flags else ["--epochs", "2", "--freeze"]
    shape = ["--model", "model", *epochs, "--max-length", "20", *PLAIN]
    train.main(parse_train([*shape, *flags, "--out", str(tmp_path / "run")]))
    assert f"report: {tmp_path / 'run' / 'report.html'}" in capsys.readouterr().out
    text = (tmp_path / "run" / "report.html").read_text()
    assert Reader(text).open == []
    assert all(f"<h2>{title}</h2>" in text for title in titles)


def test_a_series_has_a_report_of_its_own_and_the_command_of_all_its_runs(place):
    folder = train_here(
        place, "series", "--data", str(place / "classes.csv"), "--seeds", "2", "--seed", "5"
    )
    text = Reader((folder / "report.html").read_text()).text
    assert all(x in text for x in ("Seeds", "deviation", "--seeds=2", "--seed=5"))
    alone = Reader((folder / "seed-6" / "report.html").read_text()).text
    assert "--seeds" not in alone and "--seed=6" in alone


def test_the_command_repeats_the_run(single):
    words = shlex.split(report.repeat_command(single) or "")
    assert words[:2] == ["minibert", "train"]
    repeated = parse_train(words[2:]).settings.to_dict()
    saved = json.loads((single / "settings.json").read_text())
    assert {name: saved[name] for name in repeated} == json.loads(json.dumps(repeated))


def test_settings_of_another_version_have_a_report_without_a_command(run):
    file = run / "settings.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "from_the_future": 1}))
    assert report.repeat_command(run) is None
    report.report_run(run)
    assert "minibert train" not in (run / "report.html").read_text()


def test_a_failed_report_does_not_fail_the_run(place, monkeypatch, capsys):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no picture\ntoday")

    monkeypatch.setattr(report, "write_report", fail)
    folder = train_here(place, "failed", "--data", str(place / "classes.csv"), "--no-baseline")
    assert (folder / "metrics.json").exists()
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("no report.html: no picture\\ntoday; minibert eval --report")


def test_eval_py_writes_a_report_again_and_does_not_look_at_the_test_split(run, capsys):
    evaluate.main(parse_evaluate(["--report", str(run)]))
    assert (run / "report.html").exists() and "report: " in capsys.readouterr().out
    assert not (run / "test_looks.jsonl").exists()


def test_a_report_of_no_run_or_with_other_flags_is_refused(place):
    with pytest.raises(InputError, match="is not a finished run"):
        evaluate.main(parse_evaluate(["--report", str(place / "model")]))
    with pytest.raises(InputError, match="drop all other flags"):
        parse_evaluate(["--report", "run", "--json", "x.json"])


def many_classes(run: RunData, count: int) -> RunData:
    """The run with so many classes, each of which is often mistaken for the next."""
    names = tuple(f"class {i} {'long name ' * 3}" for i in range(count))
    (one, *_) = run.metrics["test"]["per_class"].values()
    scores = {
        **run.metrics["test"],
        "per_class": dict.fromkeys(names, one),
        "confusion": {x: {x: 1, y: 2} for x, y in itertools.pairwise(names)},
    }
    splits = {
        x: {**run.metrics["data"][x], "classes": dict.fromkeys(names, 3)} for x in ("train", "test")
    }
    rows = [
        {"text": "y" * 5000, "label": x, "prediction": y, "probability": 0.5}
        for x, y in itertools.pairwise(names)
    ]
    data = {**run.metrics["data"], **splits}
    metrics = {**run.metrics, "test": scores, "data": data}
    head = replace(run.head, labels=names)
    return replace(run, metrics=metrics, predictions=rows, head=head)


@pytest.mark.parametrize("count", [13, 77, 5000])
def test_the_page_is_small_whatever_the_number_of_classes(single, count):
    run = many_classes(read_run(single), count)
    text = page(run, sections(run, command=None))
    assert len(text.encode()) < 500_000
    assert f"{count:,} classes" in text


def test_coverage_by_hand():
    rows = [
        {"probability": 0.9, "label": "a", "prediction": "a"},
        {"probability": 0.6, "label": "a", "prediction": "a"},
        {"probability": 0.8, "label": "b", "prediction": "a"},
    ]
    assert coverage(rows) == [(1 / 3, 1.0), (2 / 3, 0.5), (1.0, 2 / 3)]


def test_texts_of_equal_probability_have_one_accuracy_in_any_order():
    right, wrong = ({"probability": 1.0, "label": "a", "prediction": x} for x in "ab")
    for rows in ([right, right, wrong, wrong], [wrong, right, wrong, right]):
        assert coverage(rows) == [(0.25, 0.5), (0.5, 0.5), (0.75, 0.5), (1.0, 0.5)]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen_and_no_script_runs(run, tmp_path, width):
    """A frame of that width holds the page, without its policy against scripts."""
    text = write_report(run).read_text()
    text = text.replace("<details>", "<details open>")
    policy = text.index('<meta http-equiv="Content-Security-Policy"')
    text = text[:policy] + text[text.index("\n", policy) :]
    (tmp_path / "page.html").write_text(text)
    (tmp_path / "frame.html").write_text(
        f"""<iframe id=frame src=page.html width={width} height=900 style="border: 0"></iframe>
        <pre id=found></pre><script>onload = () => {{
          const inner = frame.contentDocument;
          found.textContent = [inner.documentElement.scrollWidth, inner.title].join(" ");
        }}</script>"""
    )
    words = "--headless --no-sandbox --disable-gpu --allow-file-access-from-files --dump-dom"
    command = [str(CHROMIUM), *words.split(), f"--window-size={width + 100},900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path}/frame.html"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    shown = html.unescape(found[found.index("<pre id=") :].split(">")[1].split("<")[0])
    widest, _, title = shown.partition(" ")
    assert int(widest) <= width and title == "<u>run"
