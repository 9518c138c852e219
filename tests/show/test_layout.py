"""Texts are broken to fit, files come out the same and whole, and matplotlib's global state is left alone."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nnunet_nacl.show import layout
from nnunet_nacl.show.layout import (
    MAX_WIDTH,
    figure_settings,
    new_panels,
    save_figure,
    text_width,
    wrap,
    write_figure,
)
from tests.show.conftest import LONG, METHODS
from tests.show.looks import assert_legible


def test_wrapped_lines_fit_and_lose_nothing():
    for text in (LONG * 3, "one two three four five six seven", "W" * 40, "a\nb"):
        wrapped = wrap(text, 1.5)
        assert all(text_width(line) <= 1.5 for line in wrapped.split("\n"))
        assert "".join(wrapped.split()) == "".join(text.split())
    assert wrap("one\ntwo", 9) == "one\ntwo" and wrap("one two", text_width("one tw")) == "one\ntwo"


def draw(drawn, count, size, **around) -> Figure:
    with figure_settings():
        body, panels = new_panels(count, size)
        for panel in panels:
            panel.set(title=LONG[:40], xlabel="word " * 20, ylabel="y", xlim=(0.8, 0.81))
        write_figure(body, "figure.png", **around)
    return drawn[-1]


@pytest.mark.parametrize(("count", "size"), [(1, (2, 2.5)), (2, (9, 3)), (5, (3, 3)), (1, (4, 9))])
def test_everything_around_and_between_panels_is_legible(tmp_path, monkeypatch, drawn, count, size):
    monkeypatch.chdir(tmp_path)
    legend = [Line2D([], [], label=method) for method in METHODS]
    figure = draw(drawn, count, size, title=LONG * 2, subtitle="word " * 40, legend=legend, notes=["note " * 40, LONG])
    assert_legible(figure)
    assert figure.get_figwidth() <= MAX_WIDTH and len(figure.axes) == count


def test_a_second_file_has_the_same_drawing_laid_out_once(tmp_path, monkeypatch):
    laid_out = []
    monkeypatch.setattr(layout, "wrap", lambda text, *_: laid_out.append(text) or text)
    with figure_settings():
        body, _ = new_panels(1, (2, 2))
        write_figure(body, tmp_path / "a.b.png", title="twice", also=(".svg",))
    assert laid_out.count("twice") == 1 and ">twice<" in (tmp_path / "a.b.svg").read_text()
    assert (tmp_path / "a.b.png").read_bytes().startswith(b"\x89PNG")


def figure() -> Figure:
    with figure_settings():
        made = Figure(figsize=(2, 1))
        axis = made.add_axes((0.2, 0.3, 0.7, 0.6))
        axis.bar([0], [1], hatch="//", label="$5 a_b")
        axis.set_title("$5 a_b$")
    return made


@pytest.mark.parametrize("suffix", [".png", ".SVG", ".pdf"])
def test_same_figure_gives_same_bytes(tmp_path, suffix):
    first = save_figure(figure(), tmp_path / f"first{suffix}", title="t").read_bytes()
    assert first == save_figure(figure(), tmp_path / f"second{suffix}", title="t").read_bytes()


def test_text_of_an_svg_stays_text_and_dollars_are_no_formula(tmp_path):
    assert ">$5 a_b$<" in save_figure(figure(), tmp_path / "figure.svg").read_text()


def test_the_users_matplotlibrc_changes_nothing_and_is_left_alone(tmp_path):
    expected = save_figure(figure(), tmp_path / "figure.png").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.bbox": "tight"}):
        assert save_figure(figure(), tmp_path / "figure.png").read_bytes() == expected
        assert matplotlib.rcParams["font.size"] == 30


def test_figures_leave_pyplot_alone():
    """It picks a backend for the whole process, and keeps every figure until it is closed."""
    sources = list(Path(layout.__file__).parent.glob("*.py"))
    assert len(sources) > 10 and not [path for path in sources if "pyplot" in path.read_text()]
