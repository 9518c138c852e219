"""One look per method, files that come out the same and whole, and no trace in matplotlib's global state."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from nnunet_nacl.show import style
from nnunet_nacl.show.style import check_path, figure_settings, line_look, save_figure


def figure() -> Figure:
    with figure_settings():
        made = Figure(figsize=(2, 1))
        axis = made.add_axes((0.2, 0.3, 0.7, 0.6))
        axis.bar([0], [1], hatch="//", label="$5 a_b")
        axis.set_title("$5 a_b$")
    return made


def test_no_two_lines_look_alike():
    looks = [line_look(i) for i in range(14)]
    assert len({(look["color"], look["linestyle"]) for look in looks}) == 14 and looks[0]["color"] == "#000000"
    dashes = {look["color"]: look["linestyle"] for look in looks[:7]}  # some eyes confuse these colours
    for first, second in ((style.GREEN, style.PURPLE), (style.VERMILLION, style.ORANGE), (style.BLUE, style.SKY)):
        assert dashes[first] != dashes[second]


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


@pytest.mark.parametrize("name", ["figure.jpg", "figure", "figure.svg.gz"])
def test_refuses_other_suffixes(tmp_path, name):
    with pytest.raises(ValueError, match="suffix must be one of"):
        check_path(tmp_path / name)


def test_figures_leave_pyplot_alone():
    """It picks a backend for the whole process, and keeps every figure until it is closed."""
    sources = list(Path(style.__file__).parent.glob("*.py"))
    assert len(sources) > 10 and not [path for path in sources if "pyplot" in path.read_text()]
