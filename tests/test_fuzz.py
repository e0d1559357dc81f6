"""The readers raise nothing but InputError for some hundred damaged files each.

The long run, guided by coverage: python tests/fuzz.py. Run: pytest tests/test_fuzz.py
"""

import pytest
from fuzz import TARGETS, Place, attempt, damage, seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("target", TARGETS)
def test_a_damaged_file_is_an_input_error(target: str, place: Place) -> None:
    good = seeds(target, place)

    @settings(
        derandomize=True,
        deadline=None,
        max_examples=300,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def damaged(data: st.DataObject) -> None:
        attempt(target, damage(good, lambda below: data.draw(st.integers(0, below - 1))), place)

    damaged()
