"""The figures of a comparison: which there are, that they show the numbers given, and what they
refuse."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

from nnunet_nacl.comparison.differences_figure import draw_differences
from nnunet_nacl.comparison.figures import SHOWN_DIFFERENCES, write_figures
from nnunet_nacl.comparison.file_names import files_of_figures
from nnunet_nacl.comparison.output_folder import files_of_comparison
from nnunet_nacl.comparison.reliability_figure import draw_reliability
from nnunet_nacl.metrics import BinStats, count_masks, ece
from nnunet_nacl.utilities.layout import GREEN, VERMILLION
from tests.comparison.synthetic import THREE, make_comparison
from tests.metrics.test_counting import random_classes

KINDS = ["differences", "reliability_foreground", "reliability_predicted", "reliability_all"]


def all_text(figure: Figure) -> str:
    """All texts that are shown as one, lines joined."""
    shown = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    return " ".join(text.get_text().replace("\n", " ") for text in shown)


def marked(parent, gid: str) -> list:
    """The artists with that mark."""
    return parent.findobj(lambda artist: artist.get_gid() == gid)


def ends_of_lines(parent, gid: str) -> list[tuple[float, ...]]:
    """Ends of the lines with that mark, flat."""
    ends = []
    for lines in marked(parent, gid):
        for segment in lines.get_segments():
            ends.append(tuple(np.ravel(segment).tolist()))
    return ends


def test_figures_are_drawn_with_the_notes_also_with_too_few_cases_for_any_interval(tmp_path):
    comparison = make_comparison(THREE, cases=1, notes=["Only-fold-zero was compared."])
    entries = write_figures([comparison], files_of_comparison(tmp_path))
    assert [entry["id"] for entry in entries] == KINDS
    # by which files of others are refused before any work
    foreseen = files_of_figures([comparison])
    for entry in entries:
        assert entry["dataset"] == comparison.name
        png, svg = entry["files"]
        assert png == f"figures/{entry['id']}.png"
        assert svg == f"figures/{entry['id']}.svg"
        assert {png, svg} <= {*foreseen}
        drawing = (tmp_path / svg).read_text()
        texts = " ".join(re.findall("<text[^>]*>([^<]*)</text>", drawing))
        assert "Only-fold-zero" in texts
        assert "1 case" in texts
        all_texts = f"{texts} {entry['alt']} {entry['caption']}".lower()
        assert not re.search(r"\b(nan|inf)\b", all_texts)


@pytest.mark.parametrize("cases", [1, 8, 40])
def test_the_headline_names_the_differences_that_their_tests_show_and_no_others(tmp_path, cases):
    comparison = make_comparison(THREE, cases=cases)
    headline = write_figures([comparison], files_of_comparison(tmp_path))[0]["alt"]
    expected = set()
    for test in comparison.statistics.itertuples():
        if test.column in SHOWN_DIFFERENCES and test.verdict in ("better", "worse"):
            title = comparison.columns[test.column].title
            if test.family != "leading":
                title += " (exploratory)"
            expected.add((title, test.verdict, comparison.labels[test.trainer]))
    named = set()
    part = r"(?:: |; )([^:;]*?) is (better|worse) with ([^;]*?)(?=;|\.$)"
    for title, verdict, labels in re.findall(part, headline):
        named |= {(title, verdict, label) for label in labels.split(" and ")}
    assert named == expected
    assert headline.startswith("No test") == (not expected)
    assert ("was made" in headline) == (cases == 1)


def row(
    label="NACL",
    title="ECE",
    difference=-0.1,
    low=-0.2,
    high=-0.05,
    n=40,
    p_holm=0.03,
    outcome="better",
):
    return locals()


@pytest.fixture
def forest_plot(tmp_path, drawn) -> Figure:
    """Of ECE by four methods, of which one has no value and one no interval, and HD95 by one."""
    no_value = row("LS", "ECE", math.nan, math.nan, math.nan, 0, math.nan, "untested")
    rows = [
        row("CE", p_holm=0.04),
        row("NACL", difference=0.01, low=-0.1, high=0.2, p_holm=1e-9, outcome="worse"),
        no_value,
        row("SVLS", low=math.nan, high=math.nan),
        row("CE", "HD95 (mm)", 1.5, 1, 2, p_holm=0.5, outcome="none"),
    ]
    better = {"ECE": "lower", "HD95 (mm)": "lower"}
    path = tmp_path / "forest.png"
    draw_differences(pd.DataFrame(rows), path, reference="Dice + CE (default)", better=better)
    return drawn[0]


def test_differences_and_their_intervals_are_the_numbers(forest_plot):
    ece_panel, hd95_panel = forest_plot.axes
    points = {}
    for line in ece_panel.lines:
        if line.get_gid() is None:
            points[line.get_label()] = tuple(line.get_xydata()[0])
    assert points == {"CE": (-0.1, 0), "NACL": (0.01, 1), "SVLS": (-0.1, 3)}
    assert ends_of_lines(ece_panel, "interval") == [(-0.2, 0, -0.05, 0), (-0.1, 1, 0.2, 1)]
    assert ends_of_lines(hd95_panel, "interval") == [(1, 0, 2, 0)]


def test_no_difference_is_seen_in_every_panel(forest_plot):
    for panel in forest_plot.axes:
        low, high = panel.get_xlim()
        assert low < 0 < high


def test_differences_are_explained(forest_plot):
    text = all_text(forest_plot)
    assert "HD95 (mm)" in text
    assert "n = 0 to 40 cases." in text
    assert "better than Dice + CE (default)" in text
    assert "no difference shown" in text
    assert "ECE: no value for LS." in text


@pytest.mark.parametrize(
    ("outcome", "text_in_legend"),
    [
        ("unconfirmed", "interval excludes 0; not significant after correction for the tests"),
        ("equal", "equal in every case"),
    ],
)
def test_what_is_no_difference_for_a_reason_is_told_from_none(
    tmp_path, drawn, outcome, text_in_legend
):
    rows = pd.DataFrame([row("CE", outcome=outcome)])
    path = tmp_path / "forest.png"
    draw_differences(rows, path, reference="Dice + CE (default)", better={"ECE": "lower"})
    text = all_text(drawn[0])
    assert text_in_legend in text
    assert "no difference shown" not in text


def test_no_difference_is_drawn_of_a_mask_that_is_chosen_with_the_truth():
    columns = make_comparison().columns
    assert not any(columns[column].needs_truth for column in SHOWN_DIFFERENCES)


@pytest.fixture
def sums() -> BinStats:
    return count_masks(*random_classes(0, 3, (8, 9, 10), 2.0))["all"]


@pytest.fixture
def reliability(tmp_path, drawn, sums) -> Figure:
    """Of two methods, the first of which has intervals in two of its bins."""
    low = np.full(15, np.nan)
    high = np.full(15, np.nan)
    low[[9, 14]] = 0.5, 0.8
    high[[9, 14]] = 0.7, 0.9
    bands = {"NACL": (low, high)}
    draw_reliability({"NACL": sums, "CE": sums}, tmp_path / "figure.png", bands=bands)
    return drawn[0]


def test_reliability_shows_the_accuracy_and_the_gap_of_every_bin(reliability, sums):
    count = sums.count[0]
    full = np.flatnonzero(count)
    accuracy = sums.correct[0][full] / count[full]
    confidence = sums.confidence[0][full] / count[full]
    is_over = confidence > accuracy
    assert set(is_over) == {True, False}
    upper = reliability.axes[0]
    bars = sorted((bar.get_x(), bar.get_height()) for bar in marked(upper, "accuracy"))
    assert np.array(bars) == pytest.approx(np.stack([sums.edges[full], accuracy], axis=1))
    gaps = marked(upper, "gap")
    tops = [(gap.get_x(), gap.get_y() + gap.get_height()) for gap in gaps]
    assert np.array(tops) == pytest.approx(np.stack([sums.edges[full], confidence], axis=1))
    colors = [to_rgba(VERMILLION) if over else to_rgba(GREEN) for over in is_over]
    assert [gap.get_facecolor() for gap in gaps] == colors


def test_reliability_shows_the_share_of_every_bin(reliability, sums):
    lower = reliability.axes[2]
    share = sums.count[0] / sums.count[0].sum()
    assert [bar.get_height() for bar in marked(lower, "share")] == pytest.approx(share.tolist())


def test_reliability_shows_intervals_where_there_are_some(reliability):
    upper, other, *_ = reliability.axes
    ends = [(9.5 / 15, 0.5, 9.5 / 15, 0.7), (14.5 / 15, 0.8, 14.5 / 15, 0.9)]
    assert np.ravel(ends_of_lines(upper, "band")) == pytest.approx(np.ravel(ends))
    assert not marked(other, "band")
    assert "95 % interval" in all_text(reliability)


def test_reliability_tells_the_pooled_error(reliability, sums):
    assert f"pooled ECE {ece(sums):.3f}, n = 720 voxels" in all_text(reliability)
