"""Files come out the same, and matplotlib's global state is left alone."""

from __future__ import annotations

import matplotlib

from nnunet_nacl.show.layout import figure_settings, new_panels, write_figure


def written(path) -> bytes:
    with figure_settings():
        body, (axis,) = new_panels(1, (2, 1))
        axis.bar([0], [1], hatch="//", label="$5 a_b")
        axis.set_title("$5 a_b$")
        return write_figure(body, path, title="t").read_bytes()


def test_same_figure_gives_same_bytes_in_which_text_stays_text_and_dollars_are_no_formula(tmp_path):
    first = written(tmp_path / "first.svg")
    assert first == written(tmp_path / "second.svg")
    assert b">$5 a_b$<" in first


def test_the_users_matplotlibrc_changes_nothing_and_is_left_alone(tmp_path):
    expected = written(tmp_path / "figure.png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.bbox": "tight"}):
        assert written(tmp_path / "figure.png") == expected
        assert matplotlib.rcParams["font.size"] == 30
