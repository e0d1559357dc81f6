"""Proves that predict.py gives every row its answer, in order, as a stream, in every format.

Run: pytest tests/test_predict.py
"""

import csv
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import ROOT, WORDS, write_checkpoint

from minibert import answers
from minibert.data.examples import Columns
from minibert.data.readers import Row
from minibert.errors import InputError
from minibert.files import lock
from minibert.inference.predictor import Predictor
from minibert.inference.writers import answer
from minibert.model.config import HeadConfig

main = runpy.run_path(str(ROOT / "predict.py"))["main"]

CLASSES = ("bad", "good", "so, so")
WINDOW = 2048
SAME = ("--device", "cpu", "--precision", "fp32")
MODEL = ("--model", "classifier", *SAME)
TEXTS = ["good film", 'the "slow, cold" soup', "i love it very much again and again"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    """A random BERT with three classes, one of them with a comma; BERT tells a pair's two texts."""
    head = HeadConfig("mlp", "mean", CLASSES, 40)
    return write_checkpoint(tmp_path_factory.mktemp("predict") / "classifier", "bert", head)


@pytest.fixture(autouse=True)
def place(classifier, tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder to be in, with `classifier` beside what a test writes; one thread will do."""
    (tmp_path / "classifier").symlink_to(classifier)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture
def predict(capfd):
    """Call main() in this process, which saves the start; returns the answers it prints."""

    def call(*words: str | Path) -> list[dict]:
        main([*MODEL, *map(str, words)])
        return [json.loads(line) for line in capfd.readouterr().out.splitlines()]

    return call


def write_rows(file: Path, rows: list[dict]) -> Path:
    """Write rows in the format that the file's name says."""
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif file.suffix == ".txt":
        file.write_text("".join(row["text"] + "\n" for row in rows))
    else:
        with open(file, "w", newline="") as stream:
            style = {"dialect": "excel"}
            if file.suffix == ".tsv":
                style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}
            table = csv.DictWriter(stream, list(rows[0]), **style)
            table.writeheader()
            table.writerows(rows)
    return file


def read_table(file: Path) -> list[dict[str, str]]:
    style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if file.suffix == ".tsv" else {}
    with open(file, newline="") as stream:
        return list(csv.DictReader(stream, strict=True, **style))


def command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "predict.py"), *MODEL, *words]


# What an answer is


def test_words_are_answered_as_json_lines(place, run_script):
    result = run_script("predict.py", *MODEL, "good film", "bad soup, cold", cwd=place)
    assert (result.returncode, result.stderr) == (0, "")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["text"] for answer in answers] == ["good film", "bad soup, cold"]
    for found in answers:
        assert list(found) == ["text", "label", "probability", "probabilities"]
        shares = found["probabilities"]
        assert tuple(shares) == CLASSES
        assert sum(shares.values()) == pytest.approx(1, abs=3e-6)
        assert shares[found["label"]] == found["probability"] == max(shares.values())
    assert answers[0]["probabilities"] != answers[1]["probabilities"]


def test_int8_answers_nearly_alike(place, run_script):
    found = []
    for precision in ("fp32", "int8"):
        words = ("--model", "classifier", "--device", "cpu", "--precision", precision, *TEXTS)
        result = run_script("predict.py", *words, cwd=place)
        assert (result.returncode, result.stderr) == (0, "")
        answers = [json.loads(line) for line in result.stdout.splitlines()]
        assert [answer["text"] for answer in answers] == TEXTS
        found.append(torch.tensor([list(answer["probabilities"].values()) for answer in answers]))
    assert 0 < (found[0] - found[1]).abs().max() < 0.05


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "txt"])
def test_every_input_format_gives_the_same_answers(place, predict, suffix):
    file = write_rows(place / f"input.{suffix}", [{"text": text} for text in TEXTS])
    assert predict("--input", file) == predict(*TEXTS)


@pytest.mark.parametrize("form", ["lines", "csv"])
def test_standard_input_is_read_in_the_format_named(place, run_script, predict, form):
    suffix, named = {"lines": ("txt", ()), "csv": ("csv", ("--input-format", "csv"))}[form]
    file = write_rows(place / f"input.{suffix}", [{"text": text} for text in TEXTS])
    words = ("--input", "-", *named)
    result = run_script("predict.py", *MODEL, *words, cwd=place, input=file.read_text())
    assert result.returncode == 0, result.stderr
    assert [json.loads(line) for line in result.stdout.splitlines()] == predict(*TEXTS)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_every_output_format_holds_the_same_answers(place, predict, suffix):
    expected = predict(*TEXTS)
    output = place / f"answers.{suffix}"
    assert predict("--output", output, *TEXTS) == []
    if suffix == "jsonl":
        assert [json.loads(line) for line in output.open()] == expected
        return
    rows = read_table(output)
    assert [(row["text"], row["label"]) for row in rows] == [
        (answer["text"], answer["label"]) for answer in expected
    ]
    for row, found in zip(rows, expected, strict=True):
        assert float(row["probability"]) == found["probability"]
        shares = {name: float(row[f"probability_{name}"]) for name in CLASSES}
        assert shares == found["probabilities"]


def test_line_ends_in_a_text_survive_csv_and_are_spaces_in_tsv(place, predict):
    file = write_rows(place / "input.csv", [{"text": "good\nfilm\tand food"}, {"text": "bad"}])
    for suffix, text in (("csv", "good\nfilm\tand food"), ("tsv", "good film and food")):
        predict("--input", file, "--output", f"answers.{suffix}")
        rows = read_table(place / f"answers.{suffix}")
        assert [row["text"] for row in rows] == [text, "bad"]


def test_other_columns_are_kept_and_the_answers_own_names_prefixed(place, predict):
    row = {"id": "07", "text": "good film", "label": "gold", "probability": "1", "error": "none"}
    file = write_rows(place / "input.csv", [row])
    (answer,) = predict("--input", file)
    assert answer["label"] in CLASSES and answer["probability"] <= 1
    assert {k: answer[k] for k in ("id", "input_label", "input_probability", "input_error")} == {
        **{"id": "07", "input_label": "gold"},
        **{"input_probability": "1", "input_error": "none"},
    }
    assert "error" not in answer

    predict("--input", file, "--output", "answers.csv")
    (table_row,) = read_table(place / "answers.csv")
    assert table_row["input_label"] == "gold" and table_row["label"] == answer["label"]
    assert table_row["error"] == "" and table_row["input_error"] == "none"


def test_pairs_are_answered_as_pairs(place, predict):
    rows = [{"premise": "good film", "hypothesis": "bad soup"}]
    (one,) = predict("--input", write_rows(place / "pairs.jsonl", rows))
    assert (one["text"], one["pair"]) == ("good film", "bad soup")
    assert "premise" not in one and "hypothesis" not in one
    flags = ("--text-column", "hypothesis", "--pair-column", "premise")
    (swapped,) = predict("--input", "pairs.jsonl", *flags)
    (alone,) = predict("good film")
    assert swapped["probabilities"] != one["probabilities"] != alone["probabilities"]


def test_a_text_over_the_models_positions_is_cut_and_counted(place, capfd):
    main([*MODEL, "good " * 500, "bad"])
    answers, errors = capfd.readouterr()
    assert len(answers.splitlines()) == 2
    assert errors == "1 texts were cut at 40 tokens\n"


# Rows that cannot be used

BAD_ROWS = {
    "csv": (
        b'id,text\n1,good\n2\n3,"  "\n4,caf\xe9\n5,a,b\n6,bad\n',
        {2: "line 3: has 1 field", 3: "blank", 4: "byte 0xe9", 5: "line 6: has 3 fields"},
    ),
    "tsv": (b"id\ttext\n1\tgood\n2\n3\t\n4\tbad\n", {2: "line 3: has 1 field", 3: "empty"}),
    "jsonl": (
        b'{"text": "good"}\n{"text": 5}\n{"text": null}\n{"text": \n[1]\n{"x": 1}\n'
        b'{"text": "\\ud800"}\n{"text": "bad"}\n',
        {2: "holds 5", 3: "null", 4: "not JSON", 5: "list", 6: "no field", 7: "surrogate"},
    ),
    "txt": (b"good\n\n \ncaf\xe9\nbad\n", {2: "empty", 3: "blank", 4: "byte 0xe9"}),
}


@pytest.mark.parametrize("suffix", BAD_ROWS)
@pytest.mark.parametrize("output", ["jsonl", "csv"])
def test_bad_rows_are_answered_in_their_place(place, capfd, suffix, output):
    data, problems = BAD_ROWS[suffix]
    (place / f"input.{suffix}").write_bytes(data)
    main([*MODEL, "--input", f"input.{suffix}", "--output", f"answers.{output}"])
    assert f"{len(problems)} rows could not be used" in capfd.readouterr().err
    if output == "csv":
        answers = read_table(place / "answers.csv")
    else:
        answers = [json.loads(line) for line in (place / "answers.jsonl").open()]
    first_and_last = [answers[0], answers[-1]]
    assert [answer["text"] for answer in first_and_last] == ["good", "bad"]
    assert all(answer["label"] in CLASSES for answer in first_and_last)
    assert len(answers) == len(problems) + 2
    for number, problem in problems.items():
        answer, nothing = answers[number - 1], "" if output == "csv" else None
        assert problem in answer["error"]
        assert (answer["label"], answer["probability"]) == (nothing, nothing)


def test_a_first_row_that_is_bad_does_not_hide_the_columns(place, predict):
    (place / "input.csv").write_text("text,id\nonly one\ngood,2\n")
    first, second = predict("--input", "input.csv")
    assert first["label"] is None and "has 1 field" in first["error"]
    assert second["label"] in CLASSES and second["id"] == "2"


def test_undecodable_bytes_on_the_command_line_are_a_bad_row(predict):
    bad, good = predict(os.fsdecode(b"caf\xe9"), "good")
    assert bad["label"] is None and "0xe9" in bad["error"]
    assert good["label"] in CLASSES


# Streams


def numbered_texts(count: int) -> list[str]:
    """TextDataset of many lengths, none twice."""
    return [
        " ".join(WORDS[(i * j) % 30] for j in range(1, 2 + i % 9)) + f" {i}" for i in range(count)
    ]


@pytest.mark.timeout(100)  # where it does not stream, it waits for more input for ever
def test_a_long_input_streams_in_order_and_no_neighbour_changes_an_answer(place, predict):
    """The first window's answers come while the rest of the input is not even written."""
    texts = numbered_texts(5000)
    first, rest = texts[: WINDOW + 52], texts[WINDOW + 52 :]
    with subprocess.Popen(
        command("--input", "-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdin.write("".join(f"{text}\n" for text in first))
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(WINDOW)]
        output, errors = process.communicate("".join(f"{text}\n" for text in rest), timeout=60)
    assert (process.returncode, errors) == (0, "")
    answers += [json.loads(line) for line in output.splitlines()]
    assert [answer["text"] for answer in answers] == texts

    for number in (0, 7, WINDOW - 1, WINDOW, 4999):
        (alone,) = predict(texts[number])
        assert answers[number]["label"] == alone["label"]
        assert answers[number]["probabilities"] == pytest.approx(alone["probabilities"], abs=5e-6)


def test_a_reader_that_leaves_ends_it_quietly(place):
    """As `| head -1` does; the other answers would not fit into a pipe."""
    (place / "input.txt").write_text("\n".join(numbered_texts(5000)))
    with subprocess.Popen(
        command("--input", "input.txt"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert json.loads(process.stdout.readline())["label"] in CLASSES
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 141  # 128 + SIGPIPE, as a shell would say


def test_what_fails_leaves_no_file_and_an_older_one_as_it_was(place, run_script):
    """A bad header is found before there is an answer."""
    (place / "input.csv").write_text("a,b\n1,2\n")
    (place / "answers.csv").write_text("older")
    before = sorted(place.iterdir())
    words = ("--input", "input.csv", "--output", "answers.csv")
    result = run_script("predict.py", *MODEL, *words, cwd=place)
    assert result.returncode == 2 and "no text column" in result.stderr
    assert (place / "answers.csv").read_text() == "older"
    assert sorted(place.iterdir()) == before


# Output that was interrupted


def cut_at(place: Path, output: str, size: int) -> bytes:
    """Make of a finished output what a run that was killed leaves; returns the whole."""
    whole = (place / output).read_bytes()
    (place / output).unlink()
    (place / f".{output}.new").write_bytes(whole[:size])
    return whole


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_resumed_output_is_that_of_a_run_without_interruption(place, predict, suffix):
    # Quotes, line ends and tabs: a line of the output is not always an answer.
    odd = 'a "slow\r\n, cold"\tsoup\n'
    texts = [text + odd[: i % 21] for i, text in enumerate(numbered_texts(7000))]
    write_rows(place / "input.jsonl", [{"id": i, "text": text} for i, text in enumerate(texts)])
    output = f"answers.{suffix}"
    words = ("--input", "input.jsonl", "--output", output)
    predict(*words)
    size = (place / output).stat().st_size
    # In the first window, inside of the second, the third and the last one, and after that.
    for share in (0.01, 0.4, 0.7, 0.99, 1):
        whole = cut_at(place, output, int(size * share))
        with open(place / f".{output}.new", "ab") as file:
            file.write(b'half a "row')
        predict(*words, "--resume-output")
        assert (place / output).read_bytes() == whole
        assert not (place / f".{output}.new").exists()


def test_int8_resumes_to_the_same_bytes(place, capfd):
    """Its scale depends on a batch's neighbours: the windows must be those of before."""
    write_rows(place / "input.txt", [{"text": text} for text in numbered_texts(5000)])
    words = ("--model", "classifier", "--device", "cpu", "--precision", "int8")
    words += ("--input", "input.txt", "--output", "answers.jsonl")
    main(words)
    size = (place / "answers.jsonl").stat().st_size
    whole = cut_at(place, "answers.jsonl", size * 9 // 10)
    main([*words, "--resume-output"])
    assert (place / "answers.jsonl").read_bytes() == whole


def test_kept_windows_are_not_answered_again_but_the_first_and_the_last(
    place, predict, monkeypatch
):
    write_rows(place / "input.txt", [{"text": text} for text in numbered_texts(4 * WINDOW + 1)])
    words = ("--input", "input.txt", "--output", "answers.csv")
    predict(*words)
    cut_at(place, "answers.csv", (place / "answers.csv").stat().st_size - 1)
    asked = []
    ask = Predictor.probabilities
    counted = lambda self, texts, pairs: asked.append(len(texts)) or ask(self, texts, pairs)  # noqa: E731
    monkeypatch.setattr(Predictor, "probabilities", counted)
    predict(*words, "--resume-output")
    assert asked == [WINDOW, WINDOW, 1]


def test_a_plain_run_does_not_destroy_what_another_has_answered(place, predict):
    write_rows(place / "input.txt", [{"text": text} for text in numbered_texts(WINDOW + 1)])
    words = ("--input", "input.txt", "--output", "answers.csv")
    predict(*words)
    whole = cut_at(place, "answers.csv", (place / "answers.csv").stat().st_size - 1)
    with pytest.raises(InputError, match=r"2,048 answers .* --resume-output, or remove it"):
        predict(*words)
    assert (place / ".answers.csv.new").read_bytes() == whole[:-1]

    # Less than a window is a second's work.
    (place / ".answers.csv.new").write_bytes(whole[:99])
    predict(*words)
    assert (place / "answers.csv").read_bytes() == whole


THREE_WINDOWS = [*numbered_texts(3 * WINDOW - 1), "=good"]
OTHER_INPUTS = {
    "another first text": ["good film", *THREE_WINDOWS[1:]],
    "another last text": [*THREE_WINDOWS[:-1], "good film"],
    "a row more before": ["good film", *THREE_WINDOWS],
    "a row fewer": THREE_WINDOWS[:-1],
    "a window": THREE_WINDOWS[:WINDOW],
    "nothing": [],
}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("change", [*OTHER_INPUTS, "another model", "another class", "--csv-safe"])
def test_another_output_is_not_gone_on_with(place, predict, suffix, change):
    if change == "--csv-safe" and suffix == "jsonl":
        return
    output = f"answers.{suffix}"
    write_rows(place / "input.txt", [{"text": text} for text in THREE_WINDOWS])
    words = ["--input", "input.txt", "--output", output]
    predict(*words)
    whole = cut_at(place, output, 10**9)
    if change in OTHER_INPUTS:
        write_rows(place / "input.txt", [{"text": text} for text in OTHER_INPUTS[change]])
    elif change == "--csv-safe":
        words.append(change)
    else:
        classes = CLASSES if change == "another model" else ("bad", "good", "poor")
        write_checkpoint(place / "other", "bert", HeadConfig("mlp", "mean", classes, 40), seed=1)
        words += ["--model", "other"]
    with pytest.raises(InputError, match=r"--resume-output: .* (other|more) answers .* remove it"):
        predict(*words, "--resume-output")
    assert (place / f".{output}.new").read_bytes() == whole
    assert not (place / output).exists()


def test_a_mistake_late_in_the_input_says_where_the_answers_are(place):
    """The header of a table is written when, a window later, a column that it lacks appears."""
    rows = [{"text": text} for text in numbered_texts(WINDOW)]
    write_rows(place / "input.jsonl", [*rows, {"text": "good", "late": "1"}])
    with pytest.raises(InputError, match=r"'late' .* kept in .*\.answers\.csv\.new"):
        main([*MODEL, "--input", "input.jsonl", "--output", "answers.csv"])
    assert len(read_table(place / ".answers.csv.new")) == WINDOW


def test_a_link_in_the_place_of_the_growing_file_is_not_followed(place):
    (place / "precious").write_text("do not touch")
    (place / ".answers.csv.new").symlink_to("precious")
    with pytest.raises(InputError, match=r"answers\.csv: cannot be written"):
        main([*MODEL, "--output", "answers.csv", "good"])
    assert (place / "precious").read_text() == "do not touch"


def test_a_run_that_finishes_meanwhile_keeps_its_output(place, monkeypatch):
    """Its file takes its name between another's opening and locking of it."""
    growing, output = place / ".answers.jsonl.new", place / "answers.jsonl"
    growing.write_text("another run's answers\n")

    def lock_late(file):
        growing.replace(output)
        return lock(file)

    monkeypatch.setattr(answers, "lock", lock_late)
    with pytest.raises(InputError, match=r"answers\.jsonl: another run is writing it"):
        main([*MODEL, "--output", "answers.jsonl", "good"])
    assert output.read_text() == "another run's answers\n"


# Spreadsheets and terminals

FORMULAS = [
    *("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=cmd|' /C calc'!A0", "=1;=2"),
    *(" =1", '"=1"', "\uff1d1", "\x00=1", "-", "+49 30 12", "-1_0", "-inf", "=" + "1" * 9),
]
HARMLESS = ["good", "", "-1", "+1.5", "-.5e-3", "+4930", "'=1", "1-1", "a=1", "a;b", "5", "caf\xe9"]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_no_cell_of_a_safe_table_is_a_formula(place, predict, suffix):
    rows = [{"text": "good", "=x": cell, "n": -5, "x": -1.5} for cell in (*FORMULAS, *HARMLESS)]
    write_rows(place / "input.jsonl", [*rows, {"text": "=good"}])
    output = place / f"answers.{suffix}"
    predict("--input", "input.jsonl", "--output", output)
    plain = read_table(output)
    predict("--input", "input.jsonl", "--output", output, "--csv-safe")
    table = read_table(output)
    assert [row["=x"] for row in plain[:9]] == [untabbed(x, suffix) for x in FORMULAS[:9]]
    found = [row["'=x"] for row in table[:-1]]
    assert found == [untabbed(x, suffix) for x in [f"'{x}" for x in FORMULAS] + HARMLESS]
    assert {(row["n"], row["x"]) for row in table[:-1]} == {("-5", "-1.5")}
    assert (table[-1]["text"], plain[-1]["text"]) == ("'=good", "=good")
    if suffix == "csv":  # a semicolon, which parts cells in some countries, stays within one
        assert b',"a;b",' in output.read_bytes()


def untabbed(cell: str, suffix: str) -> str:
    return cell.translate(dict.fromkeys(map(ord, "\t\r\n"), " ")) if suffix == "tsv" else cell


def test_columns_that_differ_by_a_tab_are_both_in_a_tsv(place, predict):
    write_rows(place / "input.jsonl", [{"text": "good", "a\tb": "1", "a b": "2"}])
    predict("--input", "input.jsonl", "--output", "answers.tsv")
    header, row = (line.split("\t") for line in (place / "answers.tsv").read_text().splitlines())
    assert header[-2:] == ["a b", "a b"] and row[-2:] == ["1", "2"]


NASTY = "good \x1b[31m\x9b2J\x7f\u202e\u2066\u200f\u2028\ufeff\U000e0041 caf\xe9 \U0001f600"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo terminal")
def test_a_terminal_gets_escapes_and_a_pipe_the_bytes(place, run_script):
    result = run_script("predict.py", *MODEL, NASTY, cwd=place)
    assert "\x9b2J" in result.stdout and "\u202e" in result.stdout
    ours, theirs = os.openpty()
    result = run_script("predict.py", *MODEL, NASTY, cwd=place, capture_output=False, stdout=theirs)
    os.close(theirs)
    shown = os.read(ours, 10**4).decode().replace("\r\n", "\n")
    os.close(ours)
    assert result.returncode == 0
    assert shown.endswith("}\n") and shown[:-1].isprintable()
    assert "caf\xe9 \U0001f600" in shown
    assert json.loads(shown)["text"] == NASTY


def test_the_newest_finished_run_answers_where_no_model_is_named(place, capfd):
    shutil.copytree(place / "classifier", place / "runs" / "one")
    (place / "runs" / "one" / "metrics.json").write_text("{}")
    main([*SAME, "good"])
    assert json.loads(capfd.readouterr().out)["label"] in CLASSES


def test_no_column_of_the_input_takes_the_place_of_an_answer():
    fields = {"text": "t", "label": "old", "input_label": "older", "probability_a": "0.1", "id": 7}
    found = answer(Row(1, fields), Columns("text"), None, [0.75, 0.25], ("a", "b"))
    assert found["label"] == "a" and found["probabilities"] == {"a": 0.75, "b": 0.25}
    assert found["input_label"] == "old" and found["input_input_label"] == "older"
    assert found["input_probability_a"] == "0.1" and found["id"] == 7
