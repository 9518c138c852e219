"""Files come out the same, and matplotlib's global state is left alone."""

from __future__ import annotations

import matplotlib
from matplotlib.figure import Figure

from nnunet_nacl.show.layout import figure_settings, save_figure


def figure() -> Figure:
    with figure_settings():
        made = Figure(figsize=(2, 1))
        axis = made.add_axes((0.2, 0.3, 0.7, 0.6))
        axis.bar([0], [1], hatch="//", label="$5 a_b")
        axis.set_title("$5 a_b$")
    return made


def test_same_figure_gives_same_bytes_in_which_text_stays_text_and_dollars_are_no_formula(tmp_path):
    first = save_figure(figure(), tmp_path / "first.SVG", title="t").read_bytes()
    assert first == save_figure(figure(), tmp_path / "second.SVG", title="t").read_bytes()
    assert b">$5 a_b$<" in first


def test_the_users_matplotlibrc_changes_nothing_and_is_left_alone(tmp_path):
    expected = save_figure(figure(), tmp_path / "figure.png").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.bbox": "tight"}):
        assert save_figure(figure(), tmp_path / "figure.png").read_bytes() == expected
        assert matplotlib.rcParams["font.size"] == 30
