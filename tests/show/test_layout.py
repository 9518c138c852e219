"""Texts are broken to fit, panels have the size asked for, and the figure grows with what is around them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nnunet_nacl.show import layout
from nnunet_nacl.show.layout import MAX_WIDTH, new_panels, text_width, wrap, write_figure
from nnunet_nacl.show.style import figure_settings
from tests.show.conftest import LONG, METHODS
from tests.show.looks import assert_legible


@settings(max_examples=60)
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


def draw(drawn, count, size, **around) -> Figure:
    with figure_settings():
        body, panels = new_panels(count)
        for panel in panels:
            panel.set(title=LONG, xlabel="word " * 20, ylabel="y", xlim=(0.8, 0.8001))
        write_figure(body, "figure.png", size, **around)
    return drawn[-1]


@pytest.mark.parametrize(("count", "size"), [(1, (1, 1)), (2, (9, 2)), (5, (2, None)), (1, (4, 9))])
def test_everything_around_and_between_panels_is_legible(tmp_path, monkeypatch, drawn, count, size):
    monkeypatch.chdir(tmp_path)
    legend = [Line2D([], [], label=method) for method in METHODS]
    figure = draw(drawn, count, size, title=LONG * 2, subtitle="word " * 40, legend=legend, notes=["note " * 40, LONG])
    assert_legible(figure)
    assert figure.get_figwidth() <= MAX_WIDTH


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (7, 3)])
def test_panels_have_one_size_and_do_not_touch(tmp_path, monkeypatch, drawn, count, columns):
    monkeypatch.chdir(tmp_path)
    figure = draw(drawn, count, (2, 1.3), title="title", remarks=["told"])
    boxes = [axes.bbox.frozen() for axes in figure.axes]
    assert len(boxes) == count and len({round(box.x0, 3) for box in boxes}) == columns
    for box in boxes:
        assert box.height / figure.dpi == pytest.approx(1.3)
        assert box.width == pytest.approx(boxes[0].width)
        assert box.width / figure.dpi == pytest.approx(2, abs=0.05) or figure.get_figwidth() in (4.8, MAX_WIDTH)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_second_file_has_the_same_drawing_laid_out_once(tmp_path, monkeypatch):
    laid_out = []
    monkeypatch.setattr(layout, "_add_legend", lambda *arguments: laid_out.append(arguments))
    with figure_settings():
        body, _ = new_panels(1)
        write_figure(body, tmp_path / "a.b.png", (2, 2), title="twice", also=(".svg",))
    assert len(laid_out) == 1 and ">twice<" in (tmp_path / "a.b.svg").read_text()
    assert (tmp_path / "a.b.png").read_bytes().startswith(b"\x89PNG")
