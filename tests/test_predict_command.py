"""predict.py: every row gets its prediction, in input order, as a stream, in every format.

Run: pytest tests/test_predict_command.py
"""

import csv
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
import torch
from helpers import (
    WORDS,
    finish_script,
    read_table,
    start_script,
    strict_json,
    write_checkpoint,
)
from safetensors.torch import load_file, save_file

from minibert.commands import predict as predict_command
from minibert.commands.arguments import parse_predict
from minibert.errors import InputError
from minibert.inference.cpu import int8_levels
from minibert.inference.formats import WINDOW
from minibert.model.config import HeadConfig

CLASSES = ("bad", "good", "so, so")
needs_int8 = pytest.mark.skipif(not int8_levels(torch.float32), reason="needs x86 and oneDNN")
PLAIN = ("--device", "cpu", "--precision", "fp32")
MODEL = ("--model", "classifier", *PLAIN)
TEXTS = ["good film", 'the "slow, cold" soup', "i love it very much again and again"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    """A random BERT with three classes, one of them with a comma; BERT tells a pair's two texts."""
    head = HeadConfig("mlp", "mean", CLASSES, 40)
    return write_checkpoint(tmp_path_factory.mktemp("predict") / "classifier", "bert", head)


@pytest.fixture(autouse=True)
def place(classifier, tmp_path, monkeypatch) -> Path:
    """A working folder that has `classifier`."""
    (tmp_path / "classifier").symlink_to(classifier)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def main(argv: Sequence[str | Path]) -> None:
    """Run the command in this process, which saves the start."""
    predict_command.main(parse_predict([str(argument) for argument in argv]))


@pytest.fixture
def predict(capfd):
    """Run the command; return the records that it prints."""

    def call(*argv: str | Path) -> list[dict]:
        main([*MODEL, *argv])
        return [strict_json(line) for line in capfd.readouterr().out.splitlines()]

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


# What a prediction is


def test_texts_are_classified_as_json_lines(place, run_script):
    result = run_script("predict.py", *MODEL, "good film", "bad soup, cold", cwd=place)
    assert (result.returncode, result.stderr) == (0, "")
    records = [strict_json(line) for line in result.stdout.splitlines()]
    assert [record["text"] for record in records] == ["good film", "bad soup, cold"]
    for record in records:
        assert list(record) == ["text", "label", "probability", "probabilities"]
        probabilities = record["probabilities"]
        assert tuple(probabilities) == CLASSES
        assert sum(probabilities.values()) == pytest.approx(1, abs=3e-6)
        assert probabilities[record["label"]] == record["probability"]
        assert record["probability"] == max(probabilities.values())
    assert records[0]["probabilities"] != records[1]["probabilities"]


@needs_int8
def test_int8_gives_nearly_the_same_probabilities(place, run_script):
    found = []
    for precision in ("fp32", "int8"):
        argv = ("--model", "classifier", "--device", "cpu", "--precision", precision, *TEXTS)
        result = run_script("predict.py", *argv, cwd=place)
        assert (result.returncode, result.stderr) == (0, "")
        records = [strict_json(line) for line in result.stdout.splitlines()]
        assert [record["text"] for record in records] == TEXTS
        found.append(torch.tensor([list(record["probabilities"].values()) for record in records]))
    assert 0 < (found[0] - found[1]).abs().max() < 0.1


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "txt"])
def test_every_input_format_gives_the_same_predictions(place, predict, suffix):
    file = write_rows(place / f"input.{suffix}", [{"text": text} for text in TEXTS])
    assert predict("--input", file) == predict(*TEXTS)


@pytest.mark.parametrize("form", ["lines", "csv"])
def test_standard_input_is_read_in_the_format_named(place, run_script, predict, form):
    suffix, flags = {"lines": ("txt", ()), "csv": ("csv", ("--input-format", "csv"))}[form]
    file = write_rows(place / f"input.{suffix}", [{"text": text} for text in TEXTS])
    argv = (*MODEL, "--input", "-", *flags)
    result = run_script("predict.py", *argv, cwd=place, input=file.read_text())
    assert result.returncode == 0, result.stderr
    assert [strict_json(line) for line in result.stdout.splitlines()] == predict(*TEXTS)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_every_output_format_has_the_same_predictions(place, predict, suffix):
    expected = predict(*TEXTS)
    output = place / f"predictions.{suffix}"
    assert predict("--output", output, *TEXTS) == []
    if suffix == "jsonl":
        assert [strict_json(line) for line in output.open()] == expected
        return
    rows = read_table(output)
    assert [(row["text"], row["label"]) for row in rows] == [
        (record["text"], record["label"]) for record in expected
    ]
    for row, record in zip(rows, expected, strict=True):
        assert float(row["probability"]) == record["probability"]
        probabilities = {name: float(row[f"probability_{name}"]) for name in CLASSES}
        assert probabilities == record["probabilities"]


@pytest.mark.parametrize(("suffix", "written"), [("csv", "a b"), ("tsv", "a\0b")])
def test_a_nul_in_another_column_is_a_space_in_a_csv(place, predict, suffix, written):
    """Python 3.10's csv module cannot write it."""
    (place / "input.jsonl").write_text('{"text": "good", "id": "a\\u0000b"}\n')
    predict("--input", "input.jsonl", "--output", f"o.{suffix}")
    assert [row["id"] for row in read_table(place / f"o.{suffix}")] == [written]


def test_other_columns_are_kept_and_a_predictions_names_get_a_prefix(place, predict):
    row = {"id": "07", "text": "good film", "label": "gold", "probability": "1", "error": "none"}
    file = write_rows(place / "input.csv", [row])
    (record,) = predict("--input", file)
    assert record["label"] in CLASSES and record["probability"] <= 1
    assert (record["id"], record["input_label"]) == ("07", "gold")
    assert (record["input_probability"], record["input_error"]) == ("1", "none")
    assert "error" not in record

    predict("--input", file, "--output", "predictions.csv")
    (table_row,) = read_table(place / "predictions.csv")
    assert table_row["input_label"] == "gold" and table_row["label"] == record["label"]
    assert table_row["error"] == "" and table_row["input_error"] == "none"


def test_pairs_are_classified_as_pairs(place, predict):
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
    records, errors = capfd.readouterr()
    assert len(records.splitlines()) == 2
    assert errors == "1 texts were cut at 40 tokens\n"


def test_the_start_imports_neither_the_compiler_nor_scikit_learn(place):
    """Each would add a second to every start."""
    code = (
        "import sys; from minibert.commands.process import run_script; run_script('predict')\n"
        "print([name for name in ('torch._dynamo', 'sklearn') if name in sys.modules])"
    )
    done = finish_script(["-c", code], *MODEL, "good", cwd=place, fresh=True)
    assert done.stdout.splitlines()[-1] == "[]"


# Rows that cannot be used

BAD_ROWS = {
    "csv": (
        b'id,text\n1,good\n2\n3,"  "\n4,caf\xe9\n5,a,b\n6,bad\n',
        {2: "line 3: has 1 field", 3: "blank", 4: "byte 0xe9", 5: "line 6: has 3 fields"},
    ),
    "tsv": (b"id\ttext\n1\tgood\n2\n3\t\n4\tbad\n", {2: "line 3: has 1 field", 3: "empty"}),
    "jsonl": (
        b'{"text": "good"}\n{"text": 5}\n{"text": null}\n{"text": \n[1]\n{"x": 1}\n'
        b'{"text": "\\ud800"}\n{"text": NaN, "x": {"y": [Infinity]}}\n{"text": "bad"}\n',
        {
            **{2: "holds 5", 3: "null", 4: "not JSON", 5: "list", 6: "no field"},
            **{7: "surrogate", 8: "holds nan"},
        },
    ),
    "txt": (b"good\n\n \ncaf\xe9\nbad\n", {2: "empty", 3: "blank", 4: "byte 0xe9"}),
}


@pytest.mark.parametrize("suffix", BAD_ROWS)
@pytest.mark.parametrize("output", ["jsonl", "csv"])
def test_bad_rows_get_their_error_in_their_place(place, capfd, suffix, output):
    data, problems = BAD_ROWS[suffix]
    (place / f"input.{suffix}").write_bytes(data)
    file = place / f"predictions.{output}"
    main([*MODEL, "--input", f"input.{suffix}", "--output", file])
    assert f"{len(problems)} rows could not be used" in capfd.readouterr().err
    tables = output == "csv"
    records = read_table(file) if tables else [strict_json(line) for line in file.open()]
    assert len(records) == len(problems) + 2
    for record, text in ((records[0], "good"), (records[-1], "bad")):
        assert record["text"] == text and record["label"] in CLASSES
    nothing = "" if tables else None
    for number, problem in problems.items():
        record = records[number - 1]
        assert problem in record["error"]
        assert (record["label"], record["probability"]) == (nothing, nothing)


def nested(depth: int, *, objects: bool) -> str:
    """JSON of arrays in arrays, or objects in objects."""
    before, after = ('{"a":', "}") if objects else ("[", "]")
    return before * depth + "1" + after * depth


@pytest.mark.parametrize("output", ["-", "deep.csv"])
def test_every_depth_of_a_kept_column_gets_an_answer_or_an_error(place, capfd, output):
    """Python's own limit is somewhere between 900 and 10,000 levels, by its version."""
    depths = (1, 99, 101, *range(900, 1501, 50), 5000, 200_000)
    with open(place / "deep.jsonl", "w") as file:
        for depth in depths:
            for objects in (False, True):
                kept = f'"id": {depth}, "x": {nested(depth, objects=objects)}'
                print(f'{{"text": "good", {kept}}}', file=file)
                print(f'{{"text": {nested(depth, objects=objects)}}}', file=file)
    main([*MODEL, "--input", "deep.jsonl", "--output", output])
    lines = capfd.readouterr().out.splitlines()
    records = read_table(place / output) if output != "-" else map(strict_json, lines)
    kept, texts = [], []
    for number, record in enumerate(records):
        (texts if number % 2 else kept).append(record)
    assert len(kept) == len(texts) == 2 * len(depths)
    nothing = None if output == "-" else ""
    for depth, row in zip(np.repeat(depths, 2), kept, strict=True):
        if depth <= 99:
            assert row["label"] in CLASSES and row["x"]
        else:
            assert row["label"] == nothing and row["error"].endswith("nested over 100 levels deep")
    assert all(row["label"] == nothing and row["error"] for row in texts)
    assert int(kept[4]["id"]) == 101  # the other columns of the row are kept


def test_logits_that_are_not_finite_are_an_error_of_their_row(place, predict):
    """Finite weights can give infinite logits, and a softmax of them is NaN."""
    head = HeadConfig("linear", "mean", CLASSES, 40)
    folder = write_checkpoint(place / "huge", "bert", head)
    tensors = load_file(folder / "model.safetensors")
    (name,) = (name for name, x in tensors.items() if x.shape == (len(CLASSES), 12))
    tensors[name] = torch.full_like(tensors[name], 3e38)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (record,) = predict("--model", "huge", "good film")
    assert record["label"] is record["probabilities"] is None
    assert record["error"] == (
        "line 1: the model's logits are not finite; its weights may be too large"
    )


def test_a_value_of_parquet_that_json_lacks_is_null_or_a_string(place, predict):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    moments = pa.array([1, 2**62, None], pa.timestamp("ns"))
    columns = {
        "text": pa.array(["good film", "bad soup", None]),
        "float": [1.5, float("nan"), float("-inf")],
        "duration": pa.array([86_400, 2**61, None], pa.duration("s")),
        "moment": moments,
        "day": pa.array([1, 2**30, None], pa.date32()),
        "list": pa.array([[1, 2**62], [], None], pa.list_(pa.timestamp("ns"))),
        "struct": pa.StructArray.from_arrays([moments, [float("nan")] * 3], ["a", "b"]),
        "map": pa.array([[("k", float("inf"))], [], None], pa.map_(pa.string(), pa.float64())),
        "bytes": pa.array([b"caf\xe9", b"", None], pa.binary()),
    }
    parquet.write_table(pa.table(columns), place / "odd.parquet")
    first, second, third = predict("--input", "odd.parquet")
    assert first["label"] in CLASSES and third["error"] == "line 3: column text: is null"
    assert [row["float"] for row in (first, second, third)] == [1.5, None, None]
    assert (first["duration"], second["duration"]) == ("1 day, 0:00:00", "2305843009213693952 s")
    assert first["moment"] == "1970-01-01 00:00:00.000000001"
    assert (first["day"], second["day"][:22]) == ("1970-01-02", "<value out of range: 1")
    assert first["list"] == [first["moment"], "2116-02-20 23:53:38.427387904"]
    assert first["struct"] == {"a": first["moment"], "b": None}
    assert first["map"] == [["k", None]] and first["bytes"] == r"b'caf\xe9'"
    kept = columns.keys() - {"text", "float", "struct"}
    assert all(third[name] is None for name in kept)


def test_a_bad_first_row_does_not_hide_the_columns(place, predict):
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
    """Texts of many lengths, none twice."""
    return [
        " ".join(WORDS[(i * j) % 30] for j in range(1, 2 + i % 9)) + f" {i}" for i in range(count)
    ]


@pytest.mark.timeout(100)  # if it does not stream, it waits for more input for ever
def test_a_long_input_streams_in_order_and_no_neighbour_changes_a_prediction(place, predict):
    """The first window's predictions come before the rest of the input is written."""
    texts = numbered_texts(5000)
    first, rest = texts[: WINDOW + 52], texts[WINDOW + 52 :]
    with start_script("predict.py", *MODEL, "--input", "-", cwd=place, stdin=PIPE) as process:
        process.stdin.write("".join(f"{text}\n" for text in first))
        process.stdin.flush()
        records = [strict_json(process.stdout.readline()) for _ in range(WINDOW)]
        output, errors = process.communicate("".join(f"{text}\n" for text in rest), timeout=60)
    assert (process.returncode, errors) == (0, "")
    records += [strict_json(line) for line in output.splitlines()]
    assert [record["text"] for record in records] == texts

    for number in (0, 7, WINDOW - 1, WINDOW, 4999):
        (alone,) = predict(texts[number])
        assert records[number]["probabilities"] == pytest.approx(alone["probabilities"], abs=5e-6)


def test_a_reader_that_leaves_ends_it_quietly(place):
    """As `| head -1` does; the other predictions would not fit into a pipe."""
    (place / "input.txt").write_text("\n".join(numbered_texts(5000)))
    with start_script("predict.py", *MODEL, "--input", "input.txt", cwd=place) as process:
        assert strict_json(process.stdout.readline())["label"] in CLASSES
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 141  # 128 + SIGPIPE, as a shell would say


def test_a_mistake_leaves_no_file_and_an_older_one_as_it_was(place, run_script):
    """A bad header is found before there is a prediction."""
    (place / "input.csv").write_text("a,b\n1,2\n")
    (place / "predictions.csv").write_text("older")
    before = sorted(place.iterdir())
    argv = ("--input", "input.csv", "--output", "predictions.csv")
    result = run_script("predict.py", *MODEL, *argv, cwd=place)
    assert result.returncode == 2 and "no text column" in result.stderr
    assert (place / "predictions.csv").read_text() == "older"
    assert sorted(place.iterdir()) == before


# Output that was interrupted (test_writers.py has the cases)


def interrupt(place: Path, output: str, size: int) -> bytes:
    """Make of a finished output what a killed run leaves; return the whole."""
    whole = (place / output).read_bytes()
    (place / output).unlink()
    (place / f".{output}.new").write_bytes(whole[:size])
    return whole


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=needs_int8)])
def test_a_resumed_output_has_the_bytes_of_one_that_was_not_interrupted(place, precision):
    write_rows(place / "input.txt", [{"text": text} for text in numbered_texts(5000)])
    argv = ["--model", "classifier", "--device", "cpu", "--precision", precision]
    argv += ["--input", "input.txt", "--output", "predictions.csv"]
    main(argv)
    size = (place / "predictions.csv").stat().st_size
    for part in (0.01, 0.6, 0.9):
        whole = interrupt(place, "predictions.csv", int(part * size))
        main([*argv, "--resume-output"])
        assert (place / "predictions.csv").read_bytes() == whole


def test_windows_in_the_file_are_not_predicted_again_except_the_first_and_the_last(place, capfd):
    """Each window has one text that is cut; the count tells how many were read by the model."""
    texts = numbered_texts(4 * WINDOW + 1)
    texts[::WINDOW] = [f"{'good ' * 50} {i}" for i in range(5)]
    write_rows(place / "input.txt", [{"text": text} for text in texts])
    argv = [*MODEL, "--input", "input.txt", "--output", "predictions.csv"]
    main(argv)
    assert capfd.readouterr().err == "5 texts were cut at 40 tokens\n"
    interrupt(place, "predictions.csv", (place / "predictions.csv").stat().st_size - 1)
    main([*argv, "--resume-output"])
    assert capfd.readouterr().err == "3 texts were cut at 40 tokens\n"


@pytest.mark.parametrize("change", ["another model", "another class", "a row more before"])
def test_the_output_of_another_run_is_not_continued(place, predict, change):
    texts = numbered_texts(WINDOW + 5)
    write_rows(place / "input.txt", [{"text": text} for text in texts])
    argv = ["--input", "input.txt", "--output", "predictions.csv"]
    predict(*argv)
    whole = interrupt(place, "predictions.csv", 10**9)
    if change == "a row more before":
        write_rows(place / "input.txt", [{"text": text} for text in ["good film", *texts]])
    else:
        classes = CLASSES if change == "another model" else ("bad", "good", "poor")
        write_checkpoint(place / "other", "bert", HeadConfig("mlp", "mean", classes, 40), seed=1)
        argv += ["--model", "other"]
    with pytest.raises(InputError, match=r"--resume-output: .* other predictions .* remove it"):
        predict(*argv, "--resume-output")
    assert (place / ".predictions.csv.new").read_bytes() == whole
    assert not (place / "predictions.csv").exists()


def test_a_mistake_late_in_the_input_says_where_the_predictions_are(place):
    """A column that the header of the table lacks appears a window later."""
    rows = [{"text": text} for text in numbered_texts(WINDOW)]
    write_rows(place / "input.jsonl", [*rows, {"text": "good", "late": "1"}])
    with pytest.raises(InputError, match=r"'late' .* are in .*\.predictions\.csv\.new"):
        main([*MODEL, "--input", "input.jsonl", "--output", "predictions.csv"])
    assert len(read_table(place / ".predictions.csv.new")) == WINDOW


# Spreadsheets and terminals


def test_csv_safe_escapes_formulas(place, predict):
    file = write_rows(place / "input.csv", [{"text": "good", "id": "=1+1"}])
    predict("--input", file, "--output", "predictions.csv")
    predict("--input", file, "--output", "safe.csv", "--csv-safe")
    ids = [read_table(place / name)[0]["id"] for name in ("predictions.csv", "safe.csv")]
    assert ids == ["=1+1", "'=1+1"]


NASTY = "good \x1b[31m\x9b2J\x7f\u202e\u2066\u200f\u2028\ufeff\U000e0041 caf\xe9 \U0001f600"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo terminal")
def test_a_terminal_gets_escapes_and_a_pipe_the_bytes(place, run_script):
    result = run_script("predict.py", *MODEL, NASTY, cwd=place)
    assert "\x9b2J" in result.stdout and "\u202e" in result.stdout
    ours, theirs = os.openpty()
    result = run_script("predict.py", *MODEL, NASTY, cwd=place, stdout=theirs)
    os.close(theirs)
    shown = os.read(ours, 10**4).decode().replace("\r\n", "\n")
    os.close(ours)
    assert result.returncode == 0
    assert shown.endswith("}\n") and shown[:-1].isprintable()
    assert "caf\xe9 \U0001f600" in shown
    assert strict_json(shown)["text"] == NASTY


def test_without_a_model_the_newest_finished_run_predicts(place, capfd):
    shutil.copytree(place / "classifier", place / "runs" / "one")
    (place / "runs" / "one" / "metrics.json").write_text("{}")
    main([*PLAIN, "good"])
    assert strict_json(capfd.readouterr().out)["label"] in CLASSES
