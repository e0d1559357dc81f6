"""Does the time of a token stay flat? minibert alone, on more and more texts and longer ones."""

from collections.abc import Mapping

from benchmarks.figures import spread
from benchmarks.parts import Peer, Setup, entry
from benchmarks.rounds import Outcome, race
from benchmarks.tables import Section
from benchmarks.workload import Labelled, checkpoint, distinct, texts_of_length

SIZE = "minilm"
COUNTS = (1000, 4000, 16000, 64000)
LONGEST_TRAINING = 16000  # texts; an epoch over more takes minutes, of the same steps
LENGTHS = (16, 32, 64, 128, 256, 512)
TOKENS = 2**15  # of all texts of a length together
WARM_UP = 320  # texts


def growth(setup: Setup) -> Section:
    """Measure the microseconds of a token, in answering and in training."""
    train = setup.corpus.train
    parts = [distinct(train, count) for count in COUNTS]
    counted = {f"{len(part.texts):,} texts of {setup.corpus.source}": part for part in parts}
    long = {
        f"{TOKENS // length:,} texts of {length} tokens": texts_of_length(
            train.texts, length, TOKENS // length
        )
        for length in LENGTHS
    }
    few = {name: texts for name, texts in counted.items() if len(texts.texts) <= LONGEST_TRAINING}
    outcomes = []
    figures: dict[tuple[str, str], str] = {}
    for part, works in (
        ("answering", counted),
        ("training", few),
        ("answering", long),
        ("training", long),
    ):
        for outcome in measure(setup, part, works):
            outcomes.append(outcome)
            if outcome.runs:
                lengths = works[outcome.entry.name].lengths
                figures[part, outcome.entry.name] = spread(microseconds(outcome, lengths))
    header = ["", "answering: microseconds a token", "training: microseconds a token"]
    rows = [
        [name, figures.get(("answering", name), "-"), figures.get(("training", name), "-")]
        for name in [*counted, *long]
    ]
    what = (
        "Each text is another one; a smaller data set has fewer rows here. "
        f"minibert in {setup.best}, batch {setup.batch}; training goes to {LONGEST_TRAINING:,} "
        "texts, since an epoch over more is the same steps for minutes."
    )
    return Section("growth", setup.about(SIZE, what), header, rows, outcomes)


def measure(setup: Setup, part: str, works: Mapping[str, Labelled]) -> list[Outcome]:
    """Take the works in turn, each in a process of its own."""
    folder, _ = checkpoint(setup.place, SIZE, setup.corpus.classes)
    found = [
        entry(
            setup,
            part,
            Peer(name, "ours", setup.best),
            folder,
            texts,
            warm_up=min(WARM_UP, len(texts.texts)),
        )
        for name, texts in works.items()
    ]
    return race(found, repeats=setup.repeats, folder=setup.place)


def microseconds(outcome: Outcome, lengths: list[int]) -> list[float]:
    """Return what each repetition took for one token."""
    return [1e6 * repetition.seconds / sum(lengths) for repetition in outcome.repetitions]
