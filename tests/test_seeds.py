"""train.py --seeds and --learning-curve: each run is as if made alone; the series can be resumed.

Run: pytest tests/test_seeds.py
"""

import json
import os
import shutil
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import finish_script, start_script, strict_json, write_checkpoint

from minibert import load
from minibert.commands import train
from minibert.commands.arguments import parse_train
from minibert.commands.series_figures import PERCENTS, curve_figures, seed_figures
from minibert.errors import InputError, Interrupted
from minibert.locks import locked
from minibert.model.config import HeadConfig
from minibert.training.state import state_files

QUICK = (
    *("--model", "checkpoint", "--data", "reviews.csv", "--device", "cpu", "--precision", "fp32"),
    *("--max-length", "40", "--batch-size", "4", "--encoder-lr", "0.003", "--head-lr", "0.01"),
    *("--epochs", "3", "--save-every", "2"),
)
SEEDS = ("--seed", "5", "--seeds", "3")
BYTES = ("model.safetensors", "config.json", "tokenizer.json", "test_predictions.jsonl")


def run(*argv: str | Path) -> None:
    train.main(parse_train(list(map(str, argv))))


def metrics(folder: str | Path) -> Any:
    return strict_json((Path(folder) / "metrics.json").read_text())


def without_times(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: without_times(x) for name, x in value.items() if "second" not in name}


def assert_same_run(one: Path, other: Path) -> None:
    for name in BYTES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert without_times(metrics(one)) == without_times(metrics(other))


@pytest.fixture
def here(tmp_path: Path, reviews: Path, checkpoint: Path, monkeypatch) -> Path:
    """A folder with reviews.csv and a checkpoint."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with reviews.csv, a checkpoint, and a finished series of three seeds."""
    folder = tmp_path_factory.mktemp("series")
    write_checkpoint(folder / "checkpoint")
    lines = [f"the film {i} was good,yes\nthe film {i} was bad,no\n" for i in range(20)]
    (folder / "reviews.csv").write_text("text,label\n" + "".join(lines))
    before = Path.cwd()
    os.chdir(folder)
    run(*QUICK, *SEEDS, "--out", "series")
    os.chdir(before)
    return folder


# --- seeds


def test_each_run_is_as_if_made_alone(place, monkeypatch):
    """Same bytes, also of settings.json but for the number of seeds."""
    monkeypatch.chdir(place)
    for seed in (5, 7):
        run(*QUICK, "--seed", str(seed), "--out", f"alone-{seed}")
        one, other = place / f"alone-{seed}", place / "series" / f"seed-{seed}"
        assert_same_run(one, other)
        assert (one / "history.csv").read_text().count("\n") == 4
        settings = [json.loads((x / "settings.json").read_text()) for x in (one, other)]
        assert settings[0] == {**settings[1], "seeds": 1}
    weights = {(x / "model.safetensors").read_bytes() for x in place.glob("series/seed-*")}
    assert len(weights) == 3


def test_the_series_has_the_best_run_s_files_and_the_figures_of_all(place):
    series = place / "series"
    figures = metrics(series)
    kept = series / figures["seeds"]["kept"]
    for name in (*BYTES, "history.csv", "settings.json"):
        assert (series / name).read_bytes() == (kept / name).read_bytes()
    assert {name: x for name, x in figures.items() if name != "seeds"} == metrics(kept)
    runs = {name: metrics(series / name) for name in ("seed-5", "seed-6", "seed-7")}
    assert runs.keys() == figures["seeds"]["runs"].keys()
    for split in ("validation", "test"):
        values = [x[split]["loss"] for x in runs.values()]
        assert figures["seeds"][split]["loss"] == {
            "mean": pytest.approx(statistics.mean(values)),
            "deviation": pytest.approx(statistics.stdev(values)),
        }
    accuracies = {name: x["validation"]["accuracy"] for name, x in runs.items()}
    assert accuracies[kept.name] == max(accuracies.values())
    assert not list(series.glob("**/run.lock")) and not list(series.glob("**/resume-*"))


def test_a_series_is_used_as_any_run(place):
    expected = load(str(place / "series" / metrics(place / "series")["seeds"]["kept"]))
    texts = ["the film was good", "very bad"]
    assert load(str(place / "series")).predict(texts) == expected.predict(texts)
    (place / "runs").mkdir(exist_ok=True)
    shutil.copytree(place / "series", place / "runs" / "newest")
    for script, words in (("eval.py", ()), ("predict.py", texts)):
        finished = finish_script(script, *words, cwd=place)
        assert finished.returncode == 0, finished.stderr


def fake_runs(folder: Path, figures: dict[str, tuple[float, float]]) -> dict[str, Path]:
    """Run folders with these accuracies of validation and test."""
    runs = {}
    for name, (validation, test) in figures.items():
        write_checkpoint(folder / name, head=HeadConfig("linear", "cls", ("a", "b"), 40))
        values = {
            split: {
                **{"accuracy": x, "macro_f1": x, "loss": 1 - x},
                "accuracy_95": [x - 0.05, x + 0.05],
            }
            for split, x in (("validation", validation), ("test", test))
        }
        training = {"texts": 7, "epochs": 3, "best_epoch": 2}
        content = json.dumps({**values, "training": training})
        (folder / name / "metrics.json").write_text(content)
        runs[name] = folder / name
    return runs


def test_the_kept_run_is_the_first_of_the_best_on_validation_whatever_the_test(tmp_path, capsys):
    runs = fake_runs(tmp_path, {"seed-0": (0.7, 0.9), "seed-1": (0.8, 0.5), "seed-2": (0.8, 0.6)})
    kept, figures = seed_figures(runs, None)
    assert kept == figures["seeds"]["kept"] == "seed-1"
    assert seed_figures(runs, "loss")[0] == "seed-1"
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("validation: accuracy 76.7% (sd 5.8), macro-F1 76.7% (sd 5.8), loss")
    assert lines[3].startswith("test: accuracy 66.7% (sd 20.8), ")
    assert lines[4] == "kept: seed-1, the best on validation (accuracy 80.0%)"


def test_a_figure_that_is_undefined_for_all_seeds_keeps_the_first(tmp_path, capsys):
    runs = fake_runs(tmp_path, {"seed-0": (0.7, 0.9), "seed-1": (0.8, 0.5)})
    for path in runs.values():
        values = json.loads((path / "metrics.json").read_text())
        values["validation"]["accuracy"] = None
        (path / "metrics.json").write_text(json.dumps(values))
    assert seed_figures(runs, None)[0] == "seed-0"
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "kept: seed-0, the first: accuracy is undefined on validation for all"


# --- stopped and resumed


def wait_for_state_of(process: Any, folder: Path) -> None:
    while not state_files(folder):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_series_resumes_to_the_same_bytes(place, tmp_path, number):
    out = tmp_path / "stopped"
    process = start_script("train.py", *QUICK, *SEEDS, "--out", out, cwd=place)
    wait_for_state_of(process, out / "seed-6")
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert errors.splitlines()[-1] == (
            f"stopped by SIGINT; resume with: python train.py --resume {out}"
        )
    before = (out / "seed-5" / "metrics.json").stat().st_mtime_ns
    assert not (out / "metrics.json").exists()
    finished = finish_script("train.py", "--resume", out, cwd=place)
    assert finished.returncode == 0, finished.stderr
    assert "resuming after step" in finished.stdout and "seed-5\n" not in finished.stdout
    assert (out / "seed-5" / "metrics.json").stat().st_mtime_ns == before
    for name in ("", "seed-5", "seed-6", "seed-7"):
        assert_same_run(out / name, place / "series" / name)


def test_a_series_killed_before_its_end_is_finished_without_training(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    shutil.copytree("series", tmp_path / "series")
    (tmp_path / "series" / "metrics.json").unlink()
    (tmp_path / "series" / "model.safetensors").write_bytes(b"half")
    monkeypatch.setattr(train, "train_one", lambda *_, **__: pytest.fail("trains a run"))
    run("--resume", tmp_path / "series")
    assert_same_run(tmp_path / "series", place / "series")


def test_a_series_whose_data_moved_says_where_to_name_it(place, tmp_path):
    shutil.copytree(place / "series", tmp_path / "series")
    shutil.rmtree(tmp_path / "series" / "seed-7")
    (tmp_path / "series" / "metrics.json").unlink()
    for name in ("seed-5", "seed-6"):
        file = tmp_path / "series" / name / "settings.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "data": "/gone.csv"}))
    with pytest.raises(
        InputError, match=r'set "data" in .*seed-5/settings\.json to where it is now'
    ):
        run("--resume", tmp_path / "series")


def test_later_runs_take_what_the_first_one_chose(place, tmp_path):
    """Its settings.json has the precision and the commit that `auto` and the hub gave it."""
    shutil.copytree(place / "series", tmp_path / "series")
    for name in ("seed-6", "seed-7"):
        shutil.rmtree(tmp_path / "series" / name)
    (tmp_path / "series" / "metrics.json").unlink()
    file = tmp_path / "series" / "seed-5" / "settings.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "precision": "bf16", "warmup": 0.2}))
    run("--resume", tmp_path / "series")
    settings = json.loads((tmp_path / "series" / "seed-7" / "settings.json").read_text())
    assert (settings["precision"], settings["warmup"], settings["seed"]) == ("bf16", 0.2, 7)


# --- mistakes


def test_a_mistake_in_the_data_leaves_no_folder(here):
    with pytest.raises(InputError, match="no such file"):
        run(*QUICK, *SEEDS, "--data", "nothing.csv", "--out", "series")
    assert not Path("series").exists()


def test_a_mistake_in_the_data_leaves_a_folder_that_was_there(here):
    Path("series").mkdir()
    with pytest.raises(InputError, match="no such file"):
        run(*QUICK, *SEEDS, "--data", "nothing.csv", "--out", "series")
    assert Path("series").is_dir()


def test_a_signal_before_the_first_run_has_a_folder_does_not_say_resume(here, monkeypatch):
    def stop(*_: Any, **__: Any) -> None:
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(train, "read_splits", stop)
    with pytest.raises(Interrupted) as stopped:
        run(*QUICK, *SEEDS, "--out", "series")
    assert str(stopped.value) == "stopped by SIGINT" and not Path("series").exists()


def test_a_folder_that_is_not_empty_is_refused(place, monkeypatch):
    monkeypatch.chdir(place)
    before = sorted(place.glob("series/**/*"))
    with pytest.raises(InputError, match=r"--out series: is not empty"):
        run(*QUICK, *SEEDS, "--out", "series")
    assert sorted(place.glob("series/**/*")) == before


def test_a_finished_series_is_not_resumed(place):
    with pytest.raises(InputError, match="series: the run is finished"):
        run("--resume", place / "series")


def test_one_process_trains_a_series(place, tmp_path):
    shutil.copytree(place / "series", tmp_path / "series")
    (tmp_path / "series" / "metrics.json").unlink()
    with (
        locked(tmp_path / "series", "--out"),
        pytest.raises(InputError, match=f"process {os.getpid()} is training in it"),
    ):
        run("--resume", tmp_path / "series")


def test_links_are_refused(place, tmp_path):
    shutil.copytree(place / "series", tmp_path / "series")
    (tmp_path / "series" / "seed-7").rename(tmp_path / "elsewhere")
    (tmp_path / "series" / "seed-7").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "series" / "metrics.json").unlink()
    with pytest.raises(InputError, match="seed-7 is a link"):
        run("--resume", tmp_path / "series")


def test_data_that_changes_between_two_runs_is_one_line(here):
    run(*QUICK, *SEEDS, "--out", "series", "--epochs", "1")
    shutil.rmtree("series/seed-7")
    Path("series/metrics.json").unlink()
    with open("reviews.csv", "a") as file:
        file.write("one more was good,positive\n")
    with pytest.raises(InputError, match=r"seed-7: .*train.* changed since the run seed-5; start"):
        run("--resume", "series")


def test_a_run_whose_settings_were_edited_alone_is_one_line(place, tmp_path):
    """Figures over runs of different recipes would say nothing about seeds."""
    shutil.copytree(place / "series", tmp_path / "series")
    (tmp_path / "series" / "metrics.json").unlink()
    file = tmp_path / "series" / "seed-6" / "settings.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "epochs": 4}))
    with pytest.raises(InputError, match=r"seed-6: epochs .* not as in the run seed-5; set it"):
        run("--resume", tmp_path / "series")


def test_a_finished_run_without_digests_is_one_line(place, tmp_path):
    shutil.copytree(place / "series", tmp_path / "series")
    (tmp_path / "series" / "metrics.json").unlink()
    file = tmp_path / "series" / "seed-6" / "settings.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "digests": None}))
    with pytest.raises(InputError, match=r"seed-6.*digests or environment is not as this version"):
        run("--resume", tmp_path / "series")


def test_finished_runs_whose_epochs_were_raised_are_one_line(place, tmp_path):
    """They would stay as they are, beside later runs of more epochs."""
    shutil.copytree(place / "series", tmp_path / "series")
    (tmp_path / "series" / "metrics.json").unlink()
    for file in tmp_path.glob("series/*/settings.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "epochs": 4}))
    with pytest.raises(InputError, match="epochs is 4; the finished run was trained for 3"):
        run("--resume", tmp_path / "series")


@pytest.mark.parametrize(
    "damage", [{}, {"validation": {"accuracy": "high"}}, {"validation": [1], "training": 3}]
)
@pytest.mark.parametrize("summarize", [seed_figures, curve_figures])
def test_a_damaged_metrics_file_is_one_line(tmp_path, summarize, damage):
    runs = fake_runs(tmp_path, {f"run-{number}": (0.7, 0.9) for number in range(4)})
    (runs["run-2"] / "metrics.json").write_text(json.dumps(damage))
    with pytest.raises(InputError, match=r"run-2.metrics.json: lacks figures .* delete the folder"):
        summarize(runs, None)


def test_the_first_seed_of_a_series_is_not_to_be_deleted(tmp_path):
    """It says with which seed the series begins: --resume would train others."""
    runs = fake_runs(tmp_path, {f"seed-{number}": (0.7, 0.9) for number in (9, 10, 11)})
    for name, remedy in {"seed-9": "restore it, or train a new", "seed-10": "delete the"}.items():
        (runs[name] / "metrics.json").write_text("{}")
        with pytest.raises(InputError, match=rf"{name}.metrics.json: lacks figures .*; {remedy}"):
            seed_figures({name: runs[name], "seed-11": runs["seed-11"]}, None)


def test_two_kinds_of_series_at_once_are_refused():
    with pytest.raises(InputError, match="--learning-curve and --seeds are different series of"):
        parse_train(["--seeds", "3", "--learning-curve"])


def test_a_learning_curve_of_a_part_is_refused():
    with pytest.raises(InputError, match=r"--learning-curve .*; drop --train-percent"):
        parse_train(["--learning-curve", "--train-percent", "50"])


def test_checking_the_data_trains_no_series(here):
    run(*QUICK, "--seeds", "3", "--check-data")
    assert not Path("runs").exists()


# --- the learning curve


def test_a_learning_curve_trains_on_parts_and_keeps_the_run_on_all_texts(here, capsys):
    run(*QUICK, "--learning-curve", "--out", "curve")
    points = metrics("curve")["learning_curve"]
    assert [point["percent"] for point in points] == list(PERCENTS)
    assert [point["training_texts"] for point in points] == [6, 10, 22, 42]
    assert all(point["test"].keys() == {"accuracy", "macro-f1", "loss"} for point in points)
    for name in BYTES:
        assert Path("curve", name).read_bytes() == Path("curve/100-percent", name).read_bytes()
    texts = {metrics(x)["test"]["texts"] for x in Path("curve").glob("*-percent")}
    assert texts == {9}
    lines = capsys.readouterr().out.splitlines()
    assert not any(line.startswith("this is one seed") for line in lines)
    assert lines[-6].startswith("  20%, 10 training texts: validation accuracy ")
    assert lines[-3].startswith("from 50 to 100% of the texts, validation accuracy went from ")
    run(*QUICK, "--out", "alone")
    assert Path("alone/model.safetensors").read_bytes() == (
        Path("curve/model.safetensors").read_bytes()
    )


@pytest.mark.parametrize(
    ("last", "verdict"),
    [(0.86, "more labels are likely to help"), (0.84, "cannot tell whether more labels help")],
)
def test_a_gain_above_half_the_interval_says_that_more_labels_help(tmp_path, capsys, last, verdict):
    names = [f"{percent}-percent" for percent in PERCENTS]
    accuracies = zip([0.6, 0.7, 0.8, last], [0.5] * 4, strict=True)
    runs = fake_runs(tmp_path, dict(zip(names, accuracies, strict=True)))
    assert curve_figures(runs, None)[0] == "100-percent"
    line = capsys.readouterr().out.splitlines()[-1]
    assert f"accuracy went from 80.0% to {100 * last:.1f}% (half of its 95% interval: 5.0%)" in line
    assert verdict in line
