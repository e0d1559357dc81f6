"""Numbers per text: scikit-learn's and scipy's figures, and what is undefined.

Run: pytest tests/test_regression.py
"""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, rankdata
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from minibert.evaluation.regression import report_regression, score_regression, with_intervals

FIGURES = ("pearson", "spearman", "mae", "rmse", "r2")


def random_case(seed: int, texts: int, outputs: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets of different units, and values near them; rounded, so that some are equal."""
    generator = torch.Generator().manual_seed(seed)
    units = 10.0 ** torch.arange(outputs)
    targets = torch.randn(texts, outputs, generator=generator).mul(2).round() * units + 3
    noise = torch.randn(texts, outputs, generator=generator).round() * units
    return targets + noise, targets


cases = st.builds(random_case, st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 3))


def column(*numbers: float) -> torch.Tensor:
    """One output."""
    return torch.tensor(numbers)[:, None]


# --- figures


@settings(deadline=None, max_examples=60)
@given(cases)
def test_errors_and_r2_are_scikit_learn_s(case):
    values, targets = case
    found = score_regression(values, targets, loss=0.0)
    for name, function in (
        ("mae", mean_absolute_error),
        ("rmse", root_mean_squared_error),
        ("r2", r2_score),
    ):
        each = function(targets.double(), values.double(), multioutput="raw_values")
        figures = [getattr(scores, name) for scores in found.per_output.values()]
        varies = np.ptp(targets.numpy(), axis=0) > 0
        if name == "r2":
            assert [figure is not None for figure in figures] == varies.tolist()
            figures, each = [x for x in figures if x is not None], each[varies]
        assert figures == pytest.approx(each.tolist(), abs=1e-12, rel=1e-12)
        if figures:
            assert getattr(found.mean, name) == pytest.approx(np.mean(each), rel=1e-12, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(cases)
def test_correlations_are_numpy_s_and_those_of_the_ranks(case):
    values, targets = case
    for k, scores in enumerate(score_regression(values, targets, loss=0.0).per_output.values()):
        pair = values[:, k].double().numpy(), targets[:, k].double().numpy()
        if all(map(np.ptp, pair)):
            assert scores.pearson == pytest.approx(np.corrcoef(*pair)[0, 1], abs=1e-12)
            ranks = np.corrcoef(*map(rankdata, pair))[0, 1]
            assert scores.spearman == pytest.approx(ranks, abs=1e-12)
        else:
            assert scores.pearson is scores.spearman is None


def test_the_figures_of_four_texts_are_the_ones_computed_by_hand():
    found = score_regression(column(1, 2, 4, 3), column(2, 2, 4, 4), loss=0.5)
    assert (found.mean.mae, found.mean.rmse) == (1 / 2, pytest.approx(math.sqrt(1 / 2)))
    assert found.mean.r2 == pytest.approx(1 - 2 / 4)
    assert found.mean.pearson == pytest.approx(4 / math.sqrt(5 * 4))
    assert found.mean.spearman == pytest.approx(4 / math.sqrt(5 * 4))
    assert found.mean == found.per_output["0"]
    assert (found.texts, found.loss) == (4, 0.5)


def test_the_interval_of_spearman_is_bonett_s_and_wright_s():
    values, targets = random_case(5, 30, 1)
    scores = score_regression(values, targets, loss=0.0).mean
    reach = 1.959964 * math.sqrt((1 + scores.spearman**2 / 2) / (30 - 3))
    expected = [math.tanh(math.atanh(scores.spearman) + sign * reach) for sign in (-1, 1)]
    assert scores.intervals["spearman"] == pytest.approx(expected, abs=1e-6)


def test_fewer_than_four_texts_have_no_interval():
    found = score_regression(column(1, 3, 2), column(1, 2, 3), loss=0.0)
    assert found.mean.spearman == pytest.approx(0.5) and found.mean.intervals["spearman"] is None


@pytest.mark.filterwarnings("error")
def test_perfect_values_have_perfect_figures():
    for sign in (1, -1):
        targets = column(1, 2, 3, 5, 8)
        plain = score_regression(sign * targets, targets, loss=0.0)
        scores = with_intervals(plain, sign * targets, targets).mean
        assert (scores.pearson, scores.spearman) == (pytest.approx(sign), pytest.approx(sign))
        assert scores.intervals["pearson"] is None and scores.intervals["spearman"] is None
    assert score_regression(targets, targets, loss=0.0).mean.r2 == 1


def test_figures_are_in_the_unit_of_the_data():
    values, targets = random_case(6, 25, 1)
    metres = score_regression(values, targets, loss=0.0).mean
    feet = score_regression(values / 0.3048 + 9, targets / 0.3048 + 9, loss=0.0).mean
    assert (feet.mae, feet.rmse) == pytest.approx((metres.mae / 0.3048, metres.rmse / 0.3048))
    for name in ("pearson", "spearman", "r2"):
        assert getattr(feet, name) == pytest.approx(getattr(metres, name), rel=1e-5)


def test_a_large_offset_costs_no_digits():
    values, targets = random_case(7, 25, 1)
    shifted = score_regression(values + 2**20, targets + 2**20, loss=0.0).mean
    expected = pearsonr(values[:, 0], targets[:, 0]).statistic
    assert shifted.pearson == pytest.approx(expected, rel=1e-6)


# --- undefined


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("values", "targets", "undefined"),
    [
        (column(1, 2, 4), column(3, 3, 3), {"pearson", "spearman", "r2"}),
        (column(3, 3, 3), column(1, 2, 4), {"pearson", "spearman"}),
        (column(1), column(2), {"pearson", "spearman", "r2"}),
        (column(1, math.nan, 2), column(1, 2, 3), set(FIGURES)),
        (column(1, math.inf, 2), column(1, 2, 3), set(FIGURES)),
    ],
    ids=["constant targets", "constant values", "one text", "NaN", "infinity"],
)
def test_an_undefined_figure_is_null_and_lower_than_any_other(values, targets, undefined):
    found = score_regression(values, targets, loss=1.0)
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert {name for name in FIGURES if data[name] is None} == undefined
    assert {name for name in FIGURES if data["per_output"]["0"][name] is None} == undefined
    assert {name for name in FIGURES if found.figure(name) == -math.inf} == undefined
    assert "nan" not in str(found) and "Pearson undefined, Spearman undefined" in str(found)


def test_an_output_with_constant_targets_is_left_out_of_the_mean_correlations_and_r2():
    values, targets = random_case(8, 20, 2)
    targets[:, 1] = 7
    found = score_regression(values, targets, loss=0.0)
    first, second = found.per_output.values()
    assert found.mean.pearson == first.pearson and found.mean.r2 == first.r2
    assert found.mean.mae == pytest.approx((first.mae + second.mae) / 2)


def test_an_output_with_constant_values_makes_the_mean_correlation_undefined():
    values, targets = random_case(9, 20, 2)
    values[:, 1] = 7
    found = score_regression(values, targets, loss=0.0)
    assert found.mean.pearson is None and found.mean.spearman is None
    assert found.mean.r2 is not None


# --- for the loop and for people


@pytest.mark.parametrize("name", [*FIGURES, "loss"])
def test_a_higher_figure_is_better(name):
    values, targets = random_case(10, 30)
    better = score_regression(0.1 * values + 0.9 * targets, targets, loss=0.1)
    worse = score_regression(values, targets, loss=0.2)
    assert better.figure(name) > worse.figure(name)


def test_the_figures_can_be_written_as_json_and_read_by_a_person():
    found = score_regression(column(1, 2, 4, 3), column(2, 2, 4, 4), ["stars"], loss=0.25)
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert data["texts"] == 4 and data["mae"] == 0.5 and len(data["spearman_95"]) == 2
    assert data["per_output"]["stars"]["rmse"] == pytest.approx(math.sqrt(0.5))
    assert str(found) == (
        "Pearson 0.894, Spearman 0.894 (95% interval -0.704 to 0.999), "
        "MAE 0.5, RMSE 0.7071, R2 0.500, 4 texts"
    )
    two = score_regression(*random_case(11, 9), loss=0.25)
    assert "spearman_95" not in two.mean.to_json()
    assert str(two).endswith(" 9 texts (means of 2 outputs)")


def test_the_report_has_a_line_per_output_and_the_means():
    values, targets = random_case(12, 9, 2)
    targets[:, 1] = 3
    cells = [line.split() for line in report_regression(values, targets, ["a", "b"]).splitlines()]
    heads = ["Pearson", "Spearman", "95%", "interval", "MAE", "RMSE", "R2"]
    assert cells[0] == heads
    (b,) = (line for line in cells if line[:1] == ["b"])
    assert b[1:4] == ["undefined", "undefined", "-"] and b[-1] == "undefined"
    assert cells[-1][0] == "mean"


def test_of_many_outputs_the_report_lists_the_first_50():
    values, targets = random_case(13, 5, 1)
    names = [f"output{i}\x1b" for i in range(60)]
    report = report_regression(values.repeat(1, 60), targets.repeat(1, 60), names)
    assert report.count("output") == 51 and "... and 10 outputs\n" in report
    assert report.replace("\n", "").isprintable()
