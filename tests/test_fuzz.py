"""Damaged files raise InputError and nothing else, on a few hundred files per target.

The long run, guided by coverage: python tests/fuzz.py. Run: pytest tests/test_fuzz.py
"""

import pytest
from fuzz import TARGETS, Place, attempt, seeds, spoil
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("target", TARGETS)
def test_a_damaged_file_raises_only_input_errors(target: str, place: Place) -> None:
    good = seeds(target, place)

    @settings(
        derandomize=True,
        deadline=None,
        max_examples=300,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def spoiled(data: st.DataObject) -> None:
        attempt(target, spoil(good, lambda below: data.draw(st.integers(0, below - 1))), place)

    spoiled()
