"""The parts of the benchmark: who takes part, on what, and the table that comes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import agreement
from benchmarks.machine import Limits, describe_machine, measure_limits
from benchmarks.rounds import Entry, Outcome, race
from benchmarks.tables import (
    FORWARD,
    TRAINING,
    Section,
    latency_table,
    rate_table,
    seconds_table,
)
from benchmarks.task import BATCH, EPOCHS, Task
from benchmarks.workload import (
    SIZES,
    Corpus,
    Labelled,
    checkpoint,
    distinct,
    repeated,
    texts_of_length,
)
from minibert.model.config import EncoderConfig

ON_GPU = ("ours", "token_ids", "tutorial", "trainer", "pipelines")
TEXTS_ON_GPU = 12_800  # of a repetition of training or answering
LIMIT = (
    "Of the limit: the products of all layers at real tokens, over that rate; those that a "
    "contestant leaves out count as done."
)
TOLERANCE = 1e-3  # of probabilities, between two peers in fp32


@dataclass(frozen=True)
class Peer:
    """A contestant's name, its file of this folder, and how that is to compute."""

    name: str
    file: str
    precision: str
    tuned: bool = False
    share: float = 1.0  # of the texts; the slow ones take fewer, as figures are rates


@dataclass(frozen=True)
class Setup:
    """What all parts share; `best` is the precision that minibert chooses here."""

    place: Path
    size: str
    corpus: Corpus
    device: str
    threads: int
    repeats: int
    small: bool
    best: str
    batch: int = BATCH

    @property
    def on_gpu(self) -> bool:
        """Say whether the parts run on a GPU."""
        return self.device == "cuda"

    def about(self, size: str, what: str) -> list[str]:
        """Return the lines above a table."""
        memory = " Memory is what PyTorch's tensors occupy on the GPU." * self.on_gpu
        return [
            f"{describe_machine(self.device, self.threads)}.",
            f"Model: {SIZES[size]}. {what}",
            f"Taken in turn, rounds after the warm-up: {self.repeats}. Median (lowest to highest); "
            f"a ratio is of one round.{memory}",
        ]


def training(setup: Setup) -> Section:
    """Compare whole epochs of fine-tuning."""
    count = TEXTS_ON_GPU if setup.on_gpu else 640 if setup.small else 3200
    texts = repeated(setup.corpus.train, count)
    outcomes = compete(setup, "training", training_peers(setup), texts)
    config, limits = config_and_limits(setup)
    header, rows = rate_table(outcomes, texts.lengths, config, limits, passes=TRAINING)
    work = f"Training on {describe(texts, setup.corpus.source)}, batch {setup.batch}"
    what = f"{work}; {limits}. {LIMIT}"
    return Section("training", setup.about(setup.size, what), header, rows, outcomes)


def frozen(setup: Setup) -> Section:
    """Compare ten epochs of a new head on an encoder that does not train."""
    peers = []
    for precision in dict.fromkeys((setup.best, "fp32")):
        peers += [
            Peer(f"minibert ({precision})", "ours", precision),
            Peer(f"transformers, encoded once ({precision})", "tutorial", precision, tuned=True),
        ]
    peers.append(Peer("tutorial", "tutorial", "fp32", share=0.1))
    texts = repeated(setup.corpus.train, 3200)
    outcomes = compete(setup, "frozen", peers, texts)
    header, rows = seconds_table(outcomes, EPOCHS * len(texts.texts), "seconds")
    what = (
        f"A head on a frozen encoder, {EPOCHS} epochs over "
        f"{describe(texts, setup.corpus.source)}, batch {setup.batch}. The tutorial's figure is "
        "scaled from one epoch over a tenth of the texts; its batches all take the same time."
    )
    return Section("frozen", setup.about(setup.size, what), header, rows, outcomes)


def answering(setup: Setup) -> Section:
    """Compare texts to probabilities, many at once."""
    peers = answering_peers(setup)
    if not setup.small:
        peers.append(Peer("pipeline() tuned", "pipelines", setup.best, tuned=True))
    texts = distinct(setup.corpus.test, 480 if setup.small else len(setup.corpus.test.texts))
    if setup.on_gpu:
        peers.append(Peer(f"minibert {setup.best}, from token ids", "token_ids", setup.best))
        texts = distinct(setup.corpus.train, TEXTS_ON_GPU)
    outcomes = compete(setup, "answering", peers, texts, warm_up=len(texts.texts))
    config, limits = config_and_limits(setup)
    header, rows = rate_table(outcomes, texts.lengths, config, limits, passes=FORWARD)
    what = (
        f"Strings to probabilities, {describe(texts, setup.corpus.source)}, batch {setup.batch} in "
        f"length order, but pipeline(), which is called as it comes; {limits}. {LIMIT}"
    )
    section = Section("answering", setup.about(setup.size, what), header, rows, outcomes)
    compare_answers(section)
    return section


def latency(setup: Setup) -> Section:
    """Compare single texts."""
    peers = answering_peers(setup)
    texts = texts_of_length(setup.corpus.train.texts, 16, 100 if setup.small else 200)
    outcomes = compete(setup, "latency", peers, texts)
    header, rows = latency_table(outcomes)
    what = f"One text of 16 tokens a call, {len(texts.texts)} calls a round."
    return Section("latency", setup.about(setup.size, what), header, rows, outcomes)


def start(setup: Setup) -> Section:
    """Compare whole processes, from their start to one answer."""
    peers = [
        Peer("predict.py", "ours", setup.best),
        Peer("pipeline() script", "pipelines", "fp32"),
    ]
    outcomes = compete(setup, "start", peers, repeated(setup.corpus.test, 1))
    header, rows = seconds_table(outcomes, 1, "seconds")
    what = "A process from its start to its end, one text answered."
    return Section("start", setup.about(setup.size, what), header, rows, outcomes)


def training_peers(setup: Setup) -> list[Peer]:
    """Return who trains: in the best precision of the machine, then in fp32."""
    peers = [
        Peer("minibert", "ours", setup.best),
        Peer("Trainer tuned", "trainer", setup.best, tuned=True),
    ]
    if not setup.small and setup.best != "fp32":
        peers += [
            Peer("minibert fp32", "ours", "fp32"),
            Peer("Trainer fp32 tuned", "trainer", "fp32", tuned=True),
        ]
    if not setup.small:
        peers += [
            Peer("Trainer", "trainer", "fp32", share=0.25),
            Peer("tutorial", "tutorial", "fp32", share=0.05),
        ]
    return peers


def answering_peers(setup: Setup) -> list[Peer]:
    """Return who answers texts, many or one: in int8, and in the best precision of the machine."""
    best = setup.best
    peers = [
        Peer(f"minibert {best}", "ours", best),
        Peer("minibert int8", "ours", "int8"),
        Peer("ONNX Runtime int8", "onnx_runtime", "int8"),
        Peer(f"OpenVINO {best}", "open_vino", best),
    ]
    if not setup.small and best != "fp32":
        peers += [
            Peer("minibert fp32", "ours", "fp32"),
            Peer("OpenVINO fp32", "open_vino", "fp32"),
        ]
    if not setup.small:
        peers += [
            Peer("ONNX Runtime fp32", "onnx_runtime", "fp32"),
            Peer("pipeline()", "pipelines", "fp32", share=0.1 if setup.on_gpu else 1.0),
        ]
    return peers


def compete(
    setup: Setup, part: str, peers: Sequence[Peer], texts: Labelled, warm_up: int | None = None
) -> list[Outcome]:
    """Take the peers that run on this device in turn, all on the same texts and checkpoint."""
    folder, _ = checkpoint(setup.place, setup.size, setup.corpus.classes)
    entries = [
        entry(setup, part, peer, folder, texts, warm_up)
        for peer in peers
        if not setup.on_gpu or (peer.file in ON_GPU and peer.precision != "int8")
    ]
    return race(entries, repeats=setup.repeats, folder=setup.place)


def config_and_limits(setup: Setup) -> tuple[EncoderConfig, Limits]:
    """Return the model's numbers, and how fast this machine multiplies matrices of its sizes."""
    _, config = checkpoint(setup.place, setup.size, setup.corpus.classes)
    return config, measure_limits(config, setup.device)


def entry(
    setup: Setup, part: str, peer: Peer, folder: Path, texts: Labelled, warm_up: int | None = None
) -> Entry:
    """Give one peer its task; without `warm_up`, it warms up on a fifth of its texts."""
    count = round(peer.share * len(texts.texts))
    task = Task(
        part=part,
        peer=peer.file,
        precision=peer.precision,
        tuned=peer.tuned,
        folder=str(folder),
        device=setup.device,
        threads=setup.threads,
        texts=texts.texts[:count],
        labels=texts.labels[:count],
        # minibert trains the word rows in use: as many as in an epoch over all of the data.
        corpus=setup.corpus.train.texts if (part, peer.file) == ("training", "ours") else [],
        batch=setup.batch,
    )
    return Entry(peer.name, task, min(count, warm_up or -(-count // 5)), count)


def compare_answers(section: Section) -> None:
    """Note how far each contestant's probabilities are from minibert's in fp32, or its best."""
    there = [outcome for outcome in section.outcomes if outcome.runs]
    ours = [outcome for outcome in there if outcome.entry.task.peer == "ours"]
    exact = [outcome for outcome in ours if outcome.entry.task.precision == "fp32"]
    if not ours:
        return
    reference = (exact or ours)[0]
    for outcome in there:
        same, difference = agreement(reference.answers, outcome.answers)
        line = (
            f"{outcome.entry.name}: {100 * same:.1f}% of the labels as {reference.entry.name}, "
            f"probabilities within {difference:.1g}"
        )
        if exact and outcome.entry.task.precision == "fp32" and not difference <= TOLERANCE:
            section.problems.append(f"{line}, and both compute in fp32")
        elif outcome is not reference:
            section.notes.append(line)


def describe(texts: Labelled, source: str) -> str:
    """Say which texts these are and how long."""
    mean = sum(texts.lengths) / len(texts.lengths)
    return f"{len(texts.texts):,} texts of {source} (mean {mean:.1f} tokens)"
