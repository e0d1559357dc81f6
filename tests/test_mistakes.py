"""A user's mistake is one line that says where it is and what to do, and changes no file.

Each row of MISTAKES is a command and what its one line must say. Run: pytest tests/test_mistakes.py
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import write_checkpoint

from minibert.commands import arguments, evaluate, predict, train
from minibert.commands.process import run_command
from minibert.model.config import HeadConfig

MAINS = {
    "train": lambda argv: train.main(arguments.parse_train(argv)),
    "eval": lambda argv: evaluate.main(arguments.parse_evaluate(argv)),
    "predict": lambda argv: predict.main(arguments.parse_predict(argv)),
}

GOOD = "text,label\n" + "".join(f"good film {i},yes\nbad food {i},no\n" for i in range(12))
DATA = {
    "good.csv": GOOD,
    "empty.csv": "",
    "empty.jsonl": "\n",
    "header.csv": "text,label\n",
    "no_text.csv": "a,label\ngood,yes\n",
    "no_label.csv": "text,b\ngood,yes\n",
    "two_texts.csv": "text,review,label\ngood,bad,yes\n",
    "twice.csv": "text,label,text\ngood,yes,bad\n",
    "short.csv": GOOD + "good\n",
    "long.csv": GOOD + "good, very,yes\n",
    "quote.csv": GOOD + '"good "film,yes\n',
    "empty_text.csv": GOOD + ",yes\n",
    "blank_text.csv": GOOD + '"  ",yes\n',
    "blank_label.csv": GOOD + "good, \n",
    "null_text.jsonl": '{"text": "good", "label": 1}\n{"text": null, "label": 0}\n',
    "null_label.jsonl": '{"text": "good", "label": 1}\n{"text": "bad", "label": null}\n',
    "missing_text.jsonl": '{"text": "good", "label": 1}\n{"label": 0}\n',
    "number.jsonl": '{"text": "good", "label": 1}\n{"text": 5, "label": 0}\n',
    "list.jsonl": '{"text": ["good", "bad"], "label": 1}\n',
    "object_label.jsonl": '{"text": "good", "label": {"a": 1}}\n',
    "broken.jsonl": '{"text": "good", "label": 1}\n{"text": "bad", \n',
    "array.json": '[{"text": "good", "label": 1}]',
    "bytes.csv": GOOD.encode() + "caf\u00e9,yes\n".encode("latin-1"),
    "picture.png": "",
    "one_class.csv": "text,label\n" + "good film,yes\n" * 9,
    "rare.csv": GOOD + "so so,maybe\n",
    "strange.csv": "text,label\ngood,yes\nso so,maybe\n",
    "semicolons.csv": GOOD.replace(",", ";"),
    "hidden.csv": "text,label\ngood,-1\nbad,-1\n",
    "pairs.csv": "premise,hypothesis,label\n" + "good,bad,yes\ngood,good,no\n" * 3,
    "parquet.parquet": "PAR1 is not all of it",
}

ENCODER = "--model encoder --max-length 40"
TRAIN = f"train {ENCODER} --data good.csv"
EVAL = "eval --model classifier --data"
PREDICT = "predict --model classifier"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    """A folder with every mistaken file and folder that MISTAKES names."""
    folder = tmp_path_factory.mktemp("mistakes")
    before = Path.cwd()
    os.chdir(folder)
    for name, content in DATA.items():
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "nothing_in_it").mkdir()
    (folder / "folder.csv").mkdir()
    write_models()
    write_runs()
    yield folder
    os.chdir(before)


def write_models() -> None:
    """One good encoder and classifier, and copies of the encoder with one fault each."""
    encoder = write_checkpoint(Path("encoder"))
    write_checkpoint(Path("classifier"), head=HeadConfig("linear", "cls", ("no", "yes"), 40))

    def copy(name: str) -> Path:
        return Path(shutil.copytree(encoder, name))

    for name, change in {
        "mpnet": {"model_type": "mpnet"},
        "relative": {"position_embedding_type": "relative_key"},
        "wide": {"dim": 14},
        "deep": {"n_layers": 4},
        "shallow": {"n_layers": 2},
        "small_vocabulary": {"vocab_size": 50},
    }.items():
        file = copy(name) / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    (copy("no_config") / "config.json").unlink()
    (copy("no_weights") / "model.safetensors").unlink()
    (copy("no_tokenizer") / "vocab.txt").unlink()
    (copy("junk_config") / "config.json").write_text("{")
    weights = copy("half_weights") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def write_runs() -> None:
    """One finished run, and copies that look as if they had been stopped, with one fault each."""
    MAINS["train"]([*TRAIN.split()[1:], "--epochs", "1", "--device", "cpu", "--out", "finished"])

    def stopped(name: str, **settings: object) -> Path:
        run = Path(shutil.copytree("finished", name))
        (run / "metrics.json").unlink()
        file = run / "settings.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
        return run

    (stopped("half_state") / "resume-00000003.safetensors").write_bytes(b"half of it")
    stopped("no_state")
    (stopped("junk_settings") / "settings.json").write_text("{")
    stopped("strange_settings", epochs="many")
    Path("changed.csv").write_text(GOOD.replace("film 3", "film three"))
    stopped("changed_data", data="changed.csv")
    write_checkpoint(Path("other_encoder"), seed=5)
    stopped("changed_model", model="other_encoder")
    other = Path(shutil.copytree("encoder", "other_words"))
    stopped("changed_words", model="other_words")
    (other / "vocab.txt").write_text((other / "vocab.txt").read_text().replace("film", "movie"))
    stopped("data_gone", data="gone.csv")


MISTAKES: list[tuple[str, list[str]]] = [
    # Files that are not data
    (f"train {ENCODER} --data gone.csv", ["gone.csv: no such file", "hub:owner/name"]),
    (f"train {ENCODER} --data nothing_in_it", ["nothing_in_it: is a folder", "give the file"]),
    (f"train {ENCODER} --data empty.csv", ["empty.csv: is empty", "header line"]),
    (f"train {ENCODER} --data empty.jsonl", ["empty.jsonl: is empty", "JSON object a line"]),
    (f"train {ENCODER} --data header.csv", ["header.csv: has a header and no rows"]),
    (f"train {ENCODER} --data picture.png", ["picture.png", ".csv", ".jsonl", ".parquet"]),
    (f"train {ENCODER} --data array.json", ["array.json: is a JSON array", "JSON lines"]),
    (f"{TRAIN} --validation gone.csv", ["gone.csv: cannot be read"]),
    (f"{TRAIN} --validation folder.csv", ["folder.csv: is a folder, not a file"]),
    # Columns
    (f"train {ENCODER} --data no_text.csv", ["no text column", "a, label", "--text-column"]),
    (f"train {ENCODER} --data no_label.csv", ["no label column", "text, b", "--label-column"]),
    (f"train {ENCODER} --data two_texts.csv", ["more than one", "text, review", "--text-column"]),
    (f"train {ENCODER} --data twice.csv", ["twice.csv, line 1", "'text' twice", "rename"]),
    (f"{TRAIN} --text-column words", ["good.csv: no column 'words'", "text, label"]),
    (f"{TRAIN} --label-column text --text-column text", ["one column is named for two roles"]),
    (
        f"train {ENCODER} --data semicolons.csv",
        ["no text column found", "text;label", "separated by commas in .csv files"],
    ),
    (f"{TRAIN} --validation pairs.csv", ["pairs.csv: no text column found", "--text-column"]),
    # Rows
    (f"train {ENCODER} --data short.csv", ["short.csv, line 26: has 1 field", "--bad-rows drop"]),
    (f"train {ENCODER} --data long.csv", ["long.csv, line 26: has 3 fields, the header 2"]),
    (f"train {ENCODER} --data quote.csv", ["quote.csv, line 26: is not CSV", "twice"]),
    (f"train {ENCODER} --data empty_text.csv", ["empty_text.csv, line 26: column text: is empty"]),
    (f"train {ENCODER} --data blank_text.csv", ["blank_text.csv, line 26: column text: is blank"]),
    (f"train {ENCODER} --data blank_label.csv", ["line 26: column label: has no label"]),
    (f"train {ENCODER} --data null_text.jsonl", ["null_text.jsonl, line 2: column text: is null"]),
    (f"train {ENCODER} --data null_label.jsonl", ["line 2: column label: has no label"]),
    (f"train {ENCODER} --data missing_text.jsonl", ["line 2: has no field 'text'"]),
    (f"train {ENCODER} --data number.jsonl", ["line 2: column text: holds 5, not a text"]),
    (f"train {ENCODER} --data list.jsonl", ["line 1: column text: holds ['good', 'bad']"]),
    (f"train {ENCODER} --data object_label.jsonl", ["line 1: column label: holds {'a': 1}"]),
    (f"train {ENCODER} --data broken.jsonl", ["broken.jsonl, line 2: is not JSON"]),
    (f"train {ENCODER} --data bytes.csv", ["line 26", "column text", "0xe9", "--encoding"]),
    (f"{TRAIN} --encoding utf-16", ["good.csv: is not utf-16", "--encoding"]),
    (f"{TRAIN} --encoding klingon", ["--encoding klingon"]),
    # Classes
    (f"train {ENCODER} --data one_class.csv", ["one_class.csv", "only the label", "needs two"]),
    (f"train {ENCODER} --data rare.csv", ["rare.csv", "'maybe' has 1 of 25 rows", "merge classes"]),
    (f"{TRAIN} --validation strange.csv", ["strange.csv, line 3", "'maybe'", "no, yes"]),
    (f"{TRAIN} --test strange.csv", ["strange.csv, line 3", "'maybe'", "no, yes"]),
    (f"{TRAIN} --test hidden.csv", ["hidden.csv, line 2", "'-1'", "GLUE hides the labels"]),
    (f"train {ENCODER} --data hidden.csv", ["hidden.csv", "GLUE hides the labels"]),
    # Flags
    (f"{TRAIN} --speed 3", ["unrecognized arguments: --speed 3", "--help"]),
    (f"{TRAIN} more", ["unrecognized arguments: more"]),
    (f"{TRAIN} --head big", ["--head", "'big'", "native"]),
    (f"{TRAIN} --freeze --freeze-layers 1", ["--freeze freezes all", "--freeze-layers"]),
    (f"{TRAIN} --freeze --freeze-embeddings", ["--freeze freezes all", "--freeze-embeddings"]),
    (f"{TRAIN} --head native --pooling mean", ["native distilbert head", "cls", "not mean"]),
    (f"{TRAIN} --pooling pooler", ["no pooler", "--pooling cls or mean"]),
    (f"{TRAIN} --test good.csv", ["one file", "--data, --validation and --test"]),
    (f"{TRAIN} --test ./good.csv", ["one file", "--data, --validation and --test"]),
    (f"{TRAIN} --validation strange.csv --test strange.csv", ["one file"]),
    (f"{TRAIN} --revision main", ["--revision goes with a hub id"]),
    (f"{TRAIN} --epochs 0", ["--epochs is 0; it must be 1 or more"]),
    (f"{TRAIN} --epochs few", ["--epochs", "'few'"]),
    (f"{TRAIN} --epochs 0 --batch-size 0", ["--epochs is 0", "--batch-size is 0"]),
    (f"{TRAIN} --warmup 2", ["--warmup is 2.0; it must be from 0 to 1"]),
    (f"{TRAIN} --encoder-lr nan", ["--encoder-lr is nan; it must be 0 or more"]),
    (f"{TRAIN} --head-lr inf", ["--head-lr is inf"]),
    (f"{TRAIN} --label-smoothing nan", ["--label-smoothing is nan; it must be from 0 to 0.99"]),
    (f"{TRAIN} --seed -1", ["--seed is -1"]),
    (f"{TRAIN} --split 1:2", ["--split", "1:2"]),
    (f"{TRAIN} --split 1:2:0", ["--split", "three whole numbers, none below 1"]),
    (f"{TRAIN} --freeze-layers 4", ["--freeze-layers is 4; this model has 3 layers"]),
    (f"{TRAIN} --max-length 2", ["--max-length is 2; it must be 3 or more"]),
    (f"{TRAIN} --max-length 41", ["--max-length is 41", "40 positions: give 40 or less, or auto"]),
    (f"{TRAIN} --device cuda:99", ["--device cuda:99: not on this machine"]),
    (f"{TRAIN} --device meta", ["--device meta: not on this machine"]),
    (f"{TRAIN} --device toaster", ["--device toaster: not on this machine"]),
    # Models
    ("train --model nothing_in_it --data good.csv", ["nothing_in_it: holds no checkpoint"]),
    ("train --model good.csv --data good.csv", ["good.csv: is a file", "folder or a hub id"]),
    ("train --model ./gone/ --data good.csv", ["gone/: no such folder"]),
    ("train --model no_config --data good.csv", ["no_config: holds no checkpoint", "config.json"]),
    ("train --model junk_config --data good.csv", ["junk_config/config.json: is not JSON"]),
    (f"{TRAIN} --model no_weights", ["no_weights: holds no checkpoint", "model.safetensors"]),
    (f"{TRAIN} --model no_tokenizer", ["no_tokenizer: holds no tokenizer", "vocab.txt"]),
    (f"{TRAIN} --model half_weights", ["half_weights/model.safetensors: is damaged", "again"]),
    (f"{TRAIN} --model mpnet", ["mpnet/config.json", "'mpnet'", "bert, distilbert, roberta"]),
    (f"{TRAIN} --model relative", ["position_embedding_type", "'relative_key'", "'absolute'"]),
    (f"{TRAIN} --model wide", ["wide/model.safetensors", "12]", "14]"]),
    (f"{TRAIN} --model deep", ["deep/model.safetensors", "16 tensors", "layer.3."]),
    (f"{TRAIN} --model shallow", ["16 tensors are unknown", "layer.2.", "more layers"]),
    (f"{TRAIN} --model small_vocabulary", ["vocab.txt", "tokens, config.json only 50"]),
    # Run folders
    (f"{TRAIN} --out finished", ["--out finished: is not empty", "--resume finished"]),
    (f"{TRAIN} --out encoder", ["--out encoder: is not empty"]),
    (f"{TRAIN} --out good.csv", ["--out good.csv: is a file"]),
    (f"{TRAIN} --out good.csv/run", ["--out good.csv/run: cannot be made"]),
    ("train --resume gone", ["--resume gone: no such folder"]),
    ("train --resume encoder", ["--resume encoder: is not a run", "settings.json"]),
    ("train --resume finished", ["--resume finished: the run is finished", "eval.py"]),
    ("train --resume half_state", ["--resume half_state", "damaged", "start a new run"]),
    ("train --resume no_state", ["--resume no_state", "no resume-*.safetensors is there"]),
    ("train --resume junk_settings", ["junk_settings/settings.json: is not JSON"]),
    ("train --resume strange_settings", ["strange_settings/settings.json: is not the settings"]),
    (
        "train --resume changed_model",
        ["changed_model: the model other_encoder has changed"],
    ),
    ("train --resume changed_words", ["changed_words: the model other_words has changed"]),
    ("train --resume changed_data", ["--resume changed_data", "changed.csv", "has changed since"]),
    ("train --resume data_gone", ["gone.csv: no such file"]),
    ("train --resume half_state --epochs 9", ["--resume uses the settings", "--epochs"]),
    ("train --resume half_state --out new", ["drop --out"]),
    (f"{TRAIN} --precision int8", ["--precision", "int8", "bf16"]),
    # eval.py
    ("eval", ["no finished run", "runs", "train.py", "--model"]),
    ("eval --model classifier", ["classifier: has no test split", "--data"]),
    ("eval --model encoder --data good.csv", ["encoder", "no classification head", "train.py"]),
    ("eval --model finished --bad-rows drop", ["go with --data"]),
    (f"{EVAL} gone.csv", ["gone.csv: no such file"]),
    (f"{EVAL} strange.csv", ["strange.csv, line 3", "'maybe'", "no, yes"]),
    (f"{EVAL} hidden.csv", ["hidden.csv, line 2", "GLUE hides the labels"]),
    (f"{EVAL} short.csv", ["short.csv, line 26", "--bad-rows drop"]),
    (f"{EVAL} good.csv --json gone/figures.json", ["gone/figures.json", "folder does not exist"]),
    (f"{EVAL} good.csv --json .", [".: is a folder"]),
    (f"{EVAL} good.csv --max-length 41", ["--max-length is 41", "3 to 40"]),
    # predict.py
    (PREDICT, ["give either TEXT or --input FILE"]),
    (f"{PREDICT} good --input good.csv", ["give either TEXT or --input FILE"]),
    (f"{PREDICT} good --input-format csv", ["--input-format goes with --input -"]),
    (f"{PREDICT} --input gone.csv", ["gone.csv: cannot be read"]),
    (f"{PREDICT} --input folder.csv", ["folder.csv: is a folder, not a file"]),
    (f"{PREDICT} --input empty.csv", ["empty.csv: is empty"]),
    (f"{PREDICT} --input no_text.csv", ["no text column", "--text-column"]),
    (f"{PREDICT} --input good.csv --text-column words", ["no column 'words'", "text, label"]),
    (f"{PREDICT} --input good.csv --output good.csv", ["--output good.csv: is the input file"]),
    (
        f"{PREDICT} --input good.csv --output finished/test_predictions.jsonl",
        ["--output finished/test_predictions.jsonl: could replace a file of the model or run"],
    ),
    (
        f"{PREDICT} good --explain finished/report.html",
        ["--explain finished/report.html: could replace a file of the model or run"],
    ),
    (f"{PREDICT} good --output answers.txt", ["--output answers.txt", ".jsonl, .csv, .tsv"]),
    (f"{PREDICT} good --output gone/answers.csv", ["--output gone/answers.csv", "folder"]),
    (f"{PREDICT} good --resume-output", ["--resume-output goes with --output FILE"]),
    (f"{PREDICT} good --csv-safe", ["--csv-safe goes with", ".csv or .tsv"]),
    (f"{PREDICT} good --csv-safe --output answers.jsonl", ["--csv-safe goes with"]),
    (f"{PREDICT} good --batch-size 0", ["--batch-size is 0"]),
    (f"{PREDICT} good --precision fp8", ["--precision", "fp8"]),
    ("predict --model encoder good", ["encoder", "no classification head", "train.py"]),
    ("predict good", ["no finished run", "--model"]),
]


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below: a mistake may neither make, change nor remove one."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def assert_one_line(status: int, errors: str, says: list[str]) -> None:
    assert status == 2
    assert errors.startswith("error: ") and errors.count("\n") == 1 and errors.endswith("\n")
    for words in says:
        assert words in errors


@pytest.mark.parametrize(("command", "says"), MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_mistake_is_one_line_that_helps(place, monkeypatch, capfd, command, says):
    script, *words = command.split()
    before = contents(place)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
    status = run_command(MAINS[script])
    assert_one_line(status, capfd.readouterr().err, says)
    assert contents(place) == before


def test_parquet_that_is_cut_short_is_named(place, monkeypatch, capfd):
    pytest.importorskip("pyarrow")
    command = f"train {ENCODER} --data parquet.parquet"
    says = ["parquet.parquet: is not a complete Parquet file"]
    test_a_mistake_is_one_line_that_helps(place, monkeypatch, capfd, command, says)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("train --model nobody/no-such-model --data good.csv", ["nobody/no-such-model", "offline"]),
        (f"train {ENCODER} --data short.csv", ["short.csv, line 26"]),
        ("predict --model encoder good", ["no classification head"]),
    ],
)
def test_a_process_ends_so_too(place, run_script, command, says):
    """As a user sees it: an exit status and one line, whatever Python itself might add."""
    script, *words = command.split()
    before = contents(place)
    result = run_script(f"{script}.py", *words, cwd=place)
    assert_one_line(result.returncode, result.stderr, says)
    assert contents(place) == before


# What is no mistake


def test_dropped_rows_are_counted_and_named(place, tmp_path, capsys):
    words = f"{ENCODER} --data short.csv --bad-rows drop --epochs 1 --device cpu --out"
    MAINS["train"]([*words.split(), str(tmp_path / "run")])
    output = capsys.readouterr().out
    assert "dropped 1 bad" in output and "short.csv, line 26: has 1 field" in output
    assert (tmp_path / "run" / "metrics.json").exists()


def test_a_text_over_the_models_positions_is_cut_and_counted(place, tmp_path, capsys):
    data = tmp_path / "long.csv"
    data.write_text(GOOD + f"{'very ' * 1000}good,yes\n" + f"{'not ' * 1000}bad,no\n")
    words = [*ENCODER.split(), "--data", str(data), "--epochs", "1"]
    MAINS["train"]([*words, "--device", "cpu", "--out", str(tmp_path / "run")])
    cut = [line for line in capsys.readouterr().out.splitlines() if " texts cut at 40 " in line]
    assert len(cut) == 3
    assert sum(int(line.split()[1]) for line in cut) == 2
