"""BatchPredictor: batches of an engine come back as predict.py would write them, row by row.

Run: pytest tests/test_bulk.py
"""

import json
import multiprocessing
import os
import pickle
import shutil
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, WORDS, finish_script, strict_json, write_checkpoint

from minibert import BatchPredictor, InputError
from minibert.commands import predict as predict_command
from minibert.commands.arguments import parse_predict
from minibert.inference.predictor import Predictor
from minibert.model.config import HeadConfig

pa = pytest.importorskip("pyarrow", reason="needs the extra parquet")
parquet = pytest.importorskip("pyarrow.parquet")

PLAIN = {"device": "cpu", "precision": "fp32"}
HEADS = {
    "one class": HeadConfig("mlp", "mean", ("bad", "good", "so, so"), 40),
    "rejected": HeadConfig("mlp", "mean", ("bad", "good", "so, so"), 40, min_probability=0.38),
    "several classes": HeadConfig("mlp", "mean", ("a", "b|c", "d"), 40, "multi-label"),
    "a number": HeadConfig("mlp", "mean", ("stars",), 40, "regression"),
    "numbers": HeadConfig("mlp", "mean", ("joy", "anger"), 40, "regression"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    """A random BERT for each task; BERT tells a pair's two texts."""
    folder = tmp_path_factory.mktemp("bulk")
    return {
        name: str(write_checkpoint(folder / name, "bert", head)) for name, head in HEADS.items()
    }


@pytest.fixture
def model(models) -> str:
    return models["one class"]


def reviews(count: int = 23) -> "pa.Table":
    """Texts of different lengths, some of them bad, beside other columns."""
    texts = [" ".join(WORDS[i * j % 30] for j in range(1, 2 + i % 9)) for i in range(count)]
    texts[2], texts[4], texts[5] = None, "", " "
    columns = {"id": range(count), "text": texts, "label": ["gold"] * count}
    return pa.table({**columns, "error": ["none"] * count})


def pairs() -> "pa.Table":
    premises = ["good film", "bad soup", None, "fun"]
    return pa.table({"premise": premises, "id": [5, 6, 7, 8], "hypothesis": ["bad", "", "a", "b"]})


def of_predict_py(model: str, table: "pa.Table", place: Path, *flags: str) -> list[dict]:
    """What predict.py writes for a table, a column for each class."""
    parquet.write_table(table, place / "rows.parquet")
    argv = ["--model", model, "--device", "cpu", "--precision", "fp32", *flags]
    files = ["--input", str(place / "rows.parquet"), "--output", str(place / "rows.jsonl")]
    predict_command.main(parse_predict([*argv, *files]))
    rows = []
    for line in (place / "rows.jsonl").read_text().splitlines():
        row = strict_json(line)
        for many, one in (("probabilities", "probability"), ("values", "value")):
            row |= {f"{one}_{name}": x for name, x in (row.pop(many, None) or {}).items()}
        rows.append(row)
    return rows


def assert_rows_of_predict_py(found: list[dict], expected: list[dict]) -> None:
    """Compare rows. Only predict.py's errors begin with a line; what it leaves out is null."""
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.keys() <= ours.keys()
        for name, value in ours.items():
            other = theirs.get(name)
            if name == "error" and other is not None:
                other = other.partition(": ")[2]
            # The batches differ, and with them the last of six decimals.
            assert value == (pytest.approx(other, abs=2e-6) if type(other) is float else other)


# Rows


@pytest.mark.parametrize("task", HEADS)
def test_the_rows_of_a_table_are_those_of_predict_py(models, task, tmp_path):
    found = BatchPredictor(models[task], **PLAIN)(reviews())
    assert isinstance(found, pa.Table)
    rows = found.to_pylist()
    assert [row["error"] for row in rows[2:6]] == [
        *("column text: is null", None, "column text: is empty", "column text: is blank"),
    ]
    assert_rows_of_predict_py(rows, of_predict_py(models[task], reviews(), tmp_path))


def test_the_rows_of_pairs_are_those_of_predict_py(model, tmp_path):
    found = BatchPredictor(model, **PLAIN)(pairs()).to_pylist()
    assert list(found[0])[:3] == ["text", "pair", "label"]
    assert_rows_of_predict_py(found, of_predict_py(model, pairs(), tmp_path))
    swapped = BatchPredictor(model, "hypothesis", "premise", **PLAIN)(pairs()).to_pylist()
    assert swapped[0]["probability"] != found[0]["probability"]


def test_options_are_those_of_load(model, tmp_path):
    found = BatchPredictor(model, max_length=4, **PLAIN)(reviews()).to_pylist()
    assert_rows_of_predict_py(found, of_predict_py(model, reviews(), tmp_path, "--max-length", "4"))
    assert found != BatchPredictor(model, **PLAIN)(reviews()).to_pylist()


def test_a_record_batch_and_a_dict_come_back_as_what_they_were(model):
    predictor, table = BatchPredictor(model, **PLAIN), reviews()
    expected = predictor(table)
    (batch,) = table.to_batches()
    assert predictor(batch).equals(expected.to_batches()[0])
    assert predictor(table.to_pydict()) == expected.to_pydict()
    arrays = {name: np.array(values) for name, values in table.to_pydict().items()}
    found = predictor(arrays)
    assert found["label"] == expected["label"].to_pylist()
    assert found["id"] is arrays["id"]


def test_a_row_with_another_type_gets_an_error_and_the_others_a_prediction(model):
    values = ["good", 5, float("nan"), ["x"], b"x", "half \ud800", np.str_("bad soup"), None]
    found = BatchPredictor(model, **PLAIN)({"text": values})
    assert found["text"] is values
    problems = ["holds 5, not", "holds nan, not", "['x'], not", "b'x', not", "surrogate", "is null"]
    errors = [error for error in found["error"] if error]
    assert all(problem in error for problem, error in zip(problems, errors, strict=True))
    bad = [row for row, error in enumerate(found["error"]) if error]
    assert bad == [row for row, label in enumerate(found["label"]) if label is None]
    alone = BatchPredictor(model, **PLAIN)({"text": ["good", "bad soup"]})
    good = [found["probability"][row] for row in (0, 6)]
    assert good == pytest.approx(alone["probability"], abs=2e-6)


def test_a_column_that_holds_no_texts_is_an_error_of_each_row(model):
    table = pa.table({"number": [5, None]})
    found = BatchPredictor(model, "number", **PLAIN)(table)
    assert found["text"].equals(table["number"])
    errors = ["column number: holds 5, not a text", "column number: is null"]
    assert found["error"].to_pylist() == errors


# The schema


@pytest.mark.parametrize("task", HEADS)
def test_the_schema_is_known_without_the_weights_and_the_same_for_each_batch(
    models, task, tmp_path
):
    table, predictor = reviews(), BatchPredictor(models[task], **PLAIN)
    folder = shutil.copytree(models[task], tmp_path / "without")
    (folder / "model.safetensors").unlink()
    schema = BatchPredictor(str(folder)).output_schema(table.schema)
    for batch in (table, table.slice(0, 0), table.slice(2, 1)):  # all, none, an error alone
        assert predictor(batch).schema == schema


def test_other_columns_keep_their_types_and_a_predictions_names_get_a_prefix(model):
    kept = {
        "label": pa.array([[1, None]], pa.list_(pa.int8())),
        "error": pa.array(["x"]).dictionary_encode(),
        "input_label": pa.array([date(2024, 2, 29)]),
        "pair": pa.array([{"a": 1.5}]),
    }
    table = pa.table({"text": ["good"], **kept})
    found = BatchPredictor(model, "text", **PLAIN)(table)
    names = ["input_label", "input_error", "input_input_label", "input_pair"]
    assert found.column_names[-4:] == names
    for name, column in zip(names, kept.values(), strict=True):
        assert found[name].equals(pa.chunked_array([column]))


# Processes and threads


def test_a_copy_has_the_arguments_and_loads_the_model_by_itself(model, monkeypatch, tmp_path):
    monkeypatch.chdir(Path(model).parent)
    predictor = BatchPredictor(Path(model).name, **PLAIN)
    before = pickle.dumps(predictor)
    expected = predictor(reviews())
    assert pickle.dumps(predictor) == before and len(before) < 1000
    monkeypatch.chdir(tmp_path)  # a relative name must lead to the same folder
    assert pickle.loads(before)(reviews()).equals(expected)


def test_cloudpickle_copies_a_function_with_a_predictor(model):
    cloudpickle = pytest.importorskip("cloudpickle")
    predictor = BatchPredictor(model, **PLAIN)
    copy = pickle.loads(cloudpickle.dumps(lambda batches: map(predictor, batches)))
    (found,) = copy([reviews()])
    assert found.equals(predictor(reviews()))


def test_a_pool_of_processes_predicts_the_rows_of_one(model):
    predictor, table = BatchPredictor(model, threads=1, **PLAIN), reviews(40)
    batches = [table.slice(start, 10) for start in range(0, 40, 10)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pa.concat_tables(pool.map(predictor, batches)).to_pylist()
    expected = predictor(table).to_pylist()
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=2e-6)


def test_the_number_of_threads_is_restored(model, monkeypatch):
    seen, logits = [], Predictor.logits

    def look(*arguments):
        seen.append(torch.get_num_threads())
        return logits(*arguments)

    monkeypatch.setattr(Predictor, "logits", look)
    before = torch.get_num_threads()
    BatchPredictor(model, threads=before + 2, **PLAIN)(reviews())
    BatchPredictor(model, **PLAIN)(reviews())
    assert seen == [before + 2, before] and torch.get_num_threads() == before


# Mistakes


def test_a_mistake_is_named(model, tmp_path):
    with pytest.raises(TypeError, match="batchsize"):
        BatchPredictor(model, batchsize=3)
    predictor = BatchPredictor(model, "review", **PLAIN)
    with pytest.raises(InputError, match="the batch: no column 'review'"):
        predictor(reviews())
    with pytest.raises(InputError, match="the batch: no column 'review'"):
        predictor.output_schema(reviews().schema)
    with pytest.raises(InputError, match="a batch is a list; give an Arrow table or a dict"):
        predictor(["good"])
    texts = pa.array(["good"])
    with pytest.raises(InputError, match="column 'id': columns need names that differ"):
        predictor(pa.Table.from_arrays([texts, texts, texts], names=["review", "id", "id"]))
    for column in ("good", iter(["good"])):
        with pytest.raises(InputError, match="column 'review' is no list and no array"):
            predictor({"review": column})
    with pytest.raises(InputError, match="column 7: columns need names that differ"):
        predictor({"review": ["good"], 7: [1]})
    with pytest.raises(InputError, match=r"different lengths \({'review': 1, 'id': 2}\)"):
        predictor({"review": ["good"], "id": [1, 2]})
    for name in ("threads", "batch_size"):
        with pytest.raises(InputError, match=f"{name} is 0; give a number from 1 to 1,024"):
            BatchPredictor(model, **{name: 0})
    run = shutil.copytree(model, tmp_path / "run")
    columns = {"text": "premise", "pair": "hypothesis"}
    (run / "settings.json").write_text(json.dumps({"columns": columns}))
    with pytest.raises(InputError, match="the model reads two texts"):
        BatchPredictor(str(run))(reviews())


# Ray and Spark

PACKAGES = {"ray": ("ray", "pandas"), "spark": ("pyspark", "pandas")}
ENGINE_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray sends nothing
    "RAY_AUTH_MODE": "disabled",  # and writes no token into the home folder
    "SPARK_LOCAL_IP": "127.0.0.1",
    "PYSPARK_SUBMIT_ARGS": "--master local[2,4] pyspark-shell",  # 2 workers; a task may fail thrice
}
KILLED_ONCE = """
import os, signal
from minibert import BatchPredictor

class KilledOnce(BatchPredictor):
    def __call__(self, batch):
        try:
            open(os.environ["KILLED"], "x").close()
        except FileExistsError:
            return super().__call__(batch)
        os.kill(os.getpid(), signal.SIGKILL)
"""
RUN_KILLED = (
    "import minibert, runpy, sys; from killed_once import KilledOnce; sys.argv = sys.argv[1:]\n"
    "minibert.BatchPredictor = KilledOnce; runpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["", "a worker killed"])
@pytest.mark.parametrize("engine", PACKAGES)
def test_the_example_writes_the_rows_of_predict_py(model, engine, killed, tmp_path):
    """The first worker that gets a batch is killed, once."""
    if not all(map(find_spec, PACKAGES[engine])):
        pytest.skip(f"needs the extra {engine}, which is large: CI does not install it")
    if engine == "spark" and not shutil.which("java"):
        pytest.skip("needs Java")
    table = reviews(200)
    (tmp_path / "input").mkdir()
    for part in range(4):
        file = tmp_path / "input" / f"{part}.parquet"
        parquet.write_table(table.slice(part * 50, 50), file)
    (tmp_path / "killed_once.py").write_text(KILLED_ONCE)
    paths = (str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", str(ROOT)))
    environment = {**ENGINE_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}
    environment["KILLED"] = str(tmp_path / "killed")
    argv = [str(ROOT / "examples" / f"{engine}_predict.py"), model, "input", "output"]
    argv = ["-c", RUN_KILLED, *argv] if killed else argv
    done = finish_script(argv, cwd=tmp_path, env=environment, fresh=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed").exists() == killed
    found = parquet.read_table(tmp_path / "output").sort_by("id").to_pylist()
    assert_rows_of_predict_py(found, of_predict_py(model, table, tmp_path))
