"""Texts are broken to fit, and the sheet grows with them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.lines import Line2D

from nnunet_nacl.figures.sheet import Sheet, row_height, text_width, widest_word, wrap
from tests.figures.conftest import LONG, METHODS
from tests.figures.looks import assert_legible


@settings(max_examples=60, deadline=None)
@given(st.text("ab _-/W.", max_size=60), st.floats(0.3, 3))
def test_wrapped_lines_fit_and_lose_nothing(text, width):
    wrapped = wrap(text, width)
    assert all(text_width(line) <= width or len(line) == 1 for line in wrapped.split("\n"))
    assert "".join(wrapped.split()) == "".join(text.split())


def test_names_break_behind_their_joints_and_words_at_spaces():
    assert wrap("NACL_lambda0p2", text_width("NACL_lambda")) == "NACL_\nlambda0p2"
    assert wrap("one two", text_width("one tw")) == "one\ntwo"
    assert wrap("one\ntwo", 9) == "one\ntwo"
    assert len(wrap("W" * 40, 1).split("\n")) > 2


@settings(max_examples=40, deadline=None)
@given(st.text("abc _-/W", max_size=40).filter(str.strip))
def test_the_widest_word_is_the_least_width_that_cuts_none(text):
    width = widest_word(text)
    words = wrap(text, width).split("\n")
    assert all(text_width(word) <= width for word in words)
    assert width == max(map(text_width, wrap(text, 1e-6 + width).split("\n")))
    assert "".join(words).replace(" ", "") == text.replace(" ", "")


def test_rows_grow_with_their_tallest_label():
    assert row_height(["a", "b"], 0.3, 0.02) == 0.3
    assert row_height(["a", "b\nb\nb"], 0.3, 0.02) == pytest.approx(3 * 9 * 1.35 / 72 + 0.02)


@pytest.mark.parametrize("width", [4.5, 9.0])
def test_everything_on_a_sheet_is_legible(width):
    legend = [Line2D([], [], label=method) for method in METHODS]
    sheet = Sheet(width, 1, title=LONG * 2, subtitle="word " * 40, legend=legend, notes=["note " * 40, LONG])
    assert_legible(sheet.figure)
    assert sheet.figure.get_size_inches()[1] == pytest.approx(sheet.height)


def test_axes_lie_where_inches_say():
    sheet = Sheet(5, 3, title="title", notes=["note"])
    box = sheet.axes(1, 0.5, 2, 1.5).get_position()
    assert box.x0 * 5 == pytest.approx(1) and box.width * 5 == pytest.approx(2)
    assert box.height * sheet.height == pytest.approx(1.5)
    bare = Sheet(5, 3)
    assert (1 - bare.axes(0, 0, 1, 1).get_position().y1) * bare.height < 0.2
