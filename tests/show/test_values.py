"""Numbers as figures write them."""

from __future__ import annotations

import math

import pytest

from nnunet_nacl.show.values import format_number


@pytest.mark.parametrize(("value", "text"), [(0.12345, "0.123"), (-0.5, "−0.500"), (-0.0001, "0.000"), (math.nan, "–")])
def test_numbers_as_text(value, text):
    assert format_number(value) == text
