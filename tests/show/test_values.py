"""Numbers are looked at before they are drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_nacl.show.values import as_interval, as_values, check_better, format_number


def test_missing_values_become_nan():
    assert np.array_equal(as_values([1, None, math.nan], "x"), [1, math.nan, math.nan], equal_nan=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, math.inf], "x must be finite"),
        (["a"], r"x must be numbers.*\['a'\]"),
        (3, "x must be numbers"),
        ([1, 2, 3], "x must have 2 values, got 3"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(ValueError, match=message):
        as_values(values, "x", 2)


def test_intervals():
    assert as_interval((1, 2), "x") == (1.0, 2.0)
    assert as_interval(None, "x") is None and as_interval((None, 2), "x") is None
    with pytest.raises(ValueError, match=r"from low to high, got \(2.0, 1.0\)"):
        as_interval((2, 1), "x")


def test_direction_words():
    assert check_better("lower") == "lower"
    with pytest.raises(ValueError, match="better of ECE must be 'higher' or 'lower', got 'smaller'"):
        check_better("smaller", "better of ECE")


@pytest.mark.parametrize(("value", "text"), [(0.12345, "0.123"), (-0.5, "−0.500"), (-0.0001, "0.000"), (math.nan, "–")])
def test_numbers_as_text(value, text):
    assert format_number(value) == text
