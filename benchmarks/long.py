"""Long texts beside the peers: answering and training, where all texts have one length."""

from dataclasses import replace

from benchmarks.figures import ratios, spread
from benchmarks.parts import Setup, answering_peers, compete, training_peers
from benchmarks.rounds import Outcome
from benchmarks.tables import Section, memory, rates
from benchmarks.workload import texts_of_length

LENGTHS = (128, 256, 512)
TOKENS = 2**14  # of all texts of a length together


def long(setup: Setup) -> Section:
    """Compare answering and training on texts of 128, 256 and 512 tokens."""
    peers = replace(setup, small=True)  # the fastest of the peers
    outcomes = []
    rows = []
    for part, entrants in (
        ("answering", answering_peers(peers)),
        ("training", training_peers(peers)),
    ):
        for length in LENGTHS:
            texts = texts_of_length(setup.corpus.train.texts, length, TOKENS // length)
            raced = compete(setup, part, entrants, texts)
            outcomes += raced
            rows += [[part, str(length), *row] for row in compared(raced)]
    header = ["", "tokens", "", "texts/s", "peak MiB", f"minibert {setup.best} / it"]
    what = f"{TOKENS:,} tokens a repetition, in texts of one length, batch {setup.batch}."
    return Section("long", setup.about(setup.size, what), header, rows, outcomes)


def compared(outcomes: list[Outcome]) -> list[list[str]]:
    """Return a row for each contestant, with the ratio to the first one, minibert's."""
    ours = outcomes[0]
    return [
        [
            outcome.entry.name,
            spread(rates(outcome)),
            memory(outcome),
            "" if outcome is ours or not ours.runs else spread(ratios(rates(ours), rates(outcome))),
        ]
        for outcome in outcomes
        if outcome.runs
    ]
