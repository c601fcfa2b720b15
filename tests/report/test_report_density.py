"""Shares and findings against exact counts and closed forms."""

import dataclasses
import math

import numpy as np
import pytest

from theodolite.report import density


def exponential_curve(slope: float, edges: np.ndarray) -> density.Curve:
    """Bins of the density exp(slope y) on [edges[0], edges[-1]], normalised to one."""
    masses = np.diff(np.exp(slope * edges)) / slope
    total = np.log(np.sum(masses))
    middle = (edges[1:] + edges[:-1]) / 2
    log_count = np.log(masses) - total
    return density.Curve(
        level=middle,
        edges=edges,
        log_count=log_count,
        error=np.full(middle.shape, 0.5),
        log_count_per_unit=log_count - np.log(np.diff(edges)),
        converged=middle < 3.0,
        log_volume=0.0,
        discrete=False,
    )


@pytest.mark.parametrize("slope", [-40.0, -1.3, 0.7, 25.0])
@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.999])
def test_share_above_splits_the_cut_bin_exactly(slope, threshold):
    line = exponential_curve(slope, np.arange(-5.0, 6.0))
    share = density.share_above(line, threshold)
    # Closed form of the integral above the threshold over the whole, in logs so that it holds at any slope.
    above = -math.expm1(-abs(slope) * (5.0 - threshold))
    whole = -math.expm1(-abs(slope) * 10.0)
    exact = math.log(above / whole) + (slope * (threshold + 5.0) if slope < 0 else 0.0)
    assert share is not None
    assert share.log_fraction == pytest.approx(exact, abs=1e-9)
    assert share.error == pytest.approx(0.5)


def test_share_above_says_whether_the_levels_that_carry_it_converged():
    edges = np.arange(-5.0, 6.0)
    falling, rising = exponential_curve(-3.0, edges), exponential_curve(3.0, edges)
    assert density.share_above(falling, 0.0).converged
    assert not density.share_above(rising, 0.0).converged
    assert density.share_above(falling, 7.0) is None


def test_phrases_for_levels_that_have_not_converged():
    line = exponential_curve(-1.0, np.arange(-5.0, 6.0))
    assert density.where_unconverged(line) == "above 3.0"
    assert density.where_unconverged(dataclasses.replace(line, converged=np.ones(10, bool))) == ""
    assert density.where_unconverged(dataclasses.replace(line, converged=np.zeros(10, bool))) == "at any level"
    middle = np.abs(line.level) < 3
    assert density.where_unconverged(dataclasses.replace(line, converged=middle)) == "below −3.0 and above 3.0"


def test_headline_names_both_classes_of_a_binary_network(converged):
    found = density.findings(converged)
    share = density.share_above(density.curve(converged), 0.0)
    exponent = round(-share.log_fraction / math.log(10))
    assert found.headline.startswith("Almost every input — all but one in 10")
    assert found.headline.endswith("is called '0'")
    assert 590 < exponent < 605
    assert "95%" in found.lines[0]
    assert "all 7 checks" in found.verdict_heading


def test_a_binary_logit_of_many_classes_is_not_given_a_second_name(converged):
    many = converged.assign_attrs(observable="log_odds:1")
    assert density.findings(many).headline.endswith("is not called '1'")


def test_headline_is_cautious_where_the_deciding_levels_have_not_converged(converged):
    hasty = converged.assign(level_converged=("level", converged["level"].values < -20), verdict="not converged")
    found = density.findings(hasty)
    assert "perhaps" in found.headline
    assert "not converged" in found.lines[0]
    assert found.verdict_heading.startswith("Not converged above")


def test_a_survey_that_stops_below_the_decision_claims_no_share(converged):
    low = converged["log_density_of_states"].where(converged["level"] < -5)
    found = density.findings(converged.assign(log_density_of_states=low))
    assert found.headline.startswith("No input called '1' was reached")


def test_positive_majority_and_even_shares(converged):
    flipped = converged.assign(log_density_of_states=("level", converged["log_density_of_states"].values[::-1].copy()))
    assert density.findings(flipped).headline.startswith("Almost every input")
    level_share = converged["log_density_of_states"] * 0 + converged.log_volume - math.log(108)
    even = converged.assign(log_density_of_states=level_share)
    # 20 of the 162 units that the levels span lie above 0, all equally common.
    assert density.findings(even).headline == "12% of all inputs are called '1'"


def test_exact_counts_of_the_ising_model(example):
    found = density.findings(example.ising_example())
    # 2 of the 65,536 states have the lowest energy; the variance of the energy is the number of bonds, 32.
    assert found.headline == "Inputs typically have an output of 0.0 ± 5.7; one in 33,000 reaches −32"
    assert found.verdict_heading == "Exact: every input was counted"


def test_nothing_reached_is_said(converged):
    empty = converged.assign(log_density_of_states=converged["log_density_of_states"] * np.nan)
    assert density.findings(empty).headline == "The survey reached no level"
