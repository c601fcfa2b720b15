"""Numbers in words against numbers worked out by hand."""

import math

import pytest

from theodolite.report import words


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [
        (0.0, 3, "0"),
        (-87.44, 3, "−87.4"),
        (4347.2, 3, "4,347"),
        (0.000012, 2, "1.2 × 10⁻⁵"),
        (0.0123, 2, "0.012"),
        (math.nan, 3, "–"),
        (-math.inf, 3, "−∞"),
    ],
)
def test_number(value, digits, said):
    assert words.number(value, digits) == said


@pytest.mark.parametrize(
    ("log_fraction", "said"),
    [
        (0.0, "100%"),
        (math.log(0.37), "37%"),
        (-math.log(1234), "one in 1,200"),
        (-591 * words.LN10, "one in 10⁵⁹¹"),
        (-math.inf, "none"),
    ],
)
def test_share(log_fraction, said):
    assert words.share(log_fraction) == said


@pytest.mark.parametrize(
    ("log_odds", "said"),
    [
        (0.0, "0.500"),
        (math.log(3), "0.750"),
        (-math.log(3), "0.25"),
        (-38 * words.LN10, "10⁻³⁸"),
        (8 * words.LN10, "1 − 10⁻⁸"),
    ],
)
def test_probability(log_odds, said):
    assert words.probability(log_odds) == said


def test_size_counts_until_a_million_then_raises_ten():
    assert words.size(math.log(20524)) == "20,524"
    assert words.size(0.0) == "1"
    assert words.size(784 * math.log(256)) == "10¹⁸⁸⁸"
    assert words.size(-math.inf) == "none"


def test_durations_tidy_numbers_and_lists():
    assert [words.duration(value) for value in (0.4, 287.4, 120, 11100)] == [
        "0.40 s",
        "4 min 47 s",
        "2 min",
        "3 h 5 min",
    ]
    assert [words.tidy(value) for value in (-32.0, 7.5, 100.0, 0.0)] == ["−32", "7.5", "100", "0"]
    assert [words.fixed(value, 1) for value in (-0.02, 1234.56)] == ["0.0", "1,234.6"]
    assert words.listing(["a", "b", "c"]) == "a, b and c"
