"""Proves on some hundred spoiled files that InputError is all that the readers raise.

The long run, guided by coverage: python tests/fuzz.py. Run: pytest tests/test_fuzz.py
"""

import pytest
from fuzz import TARGETS, Place, attempt, seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# What a parser trips over: marks of its own, numbers out of range, halves of characters.
PIECES = [
    *(b'"', b"{", b"[", b"}", b",", b"\n", b"\r", b"\t", b"\0", b"\xff", b"\xed\xa0\x80", b"\x1b["),
    *(b"-1", b"0", b"1e999", b"NaN", b"null", b"true", b"9" * 20, b'"a":', b"[[[", b"../", b"\xe2"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("target", TARGETS)
def test_a_spoiled_file_is_an_input_error(target: str, place: Place) -> None:
    good = seeds(target, place)

    @settings(
        derandomize=True,
        deadline=None,
        max_examples=300,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def spoil(data: st.DataObject) -> None:
        content = bytearray(data.draw(st.sampled_from(good)))
        for _ in range(data.draw(st.integers(0, 4))):
            at = data.draw(st.integers(0, len(content)))
            cut = data.draw(st.sampled_from([0, 0, 1, 2, 8, 10**6]))
            content[at : at + cut] = data.draw(st.sampled_from(PIECES) | st.binary(max_size=4))
        attempt(target, bytes(content), place)

    spoil()
