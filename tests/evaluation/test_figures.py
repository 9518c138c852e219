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

from nnunet_nacl.evaluation.differences_figure import draw_differences
from nnunet_nacl.evaluation.figures import SHOWN_DIFFERENCES, write_figures
from nnunet_nacl.evaluation.file_names import places_of_figures
from nnunet_nacl.evaluation.output_folder import files_of_comparison
from nnunet_nacl.evaluation.reliability_figure import draw_reliability
from nnunet_nacl.metrics import BinStats, count_masks, ece
from nnunet_nacl.reports.layout import GREEN, VERMILLION
from tests.evaluation.synthetic import THREE, make_comparison
from tests.metrics.test_counting import random_classes

KINDS = ["differences", "reliability_foreground", "reliability_predicted", "reliability_all"]


def all_text(figure: Figure) -> str:
    """All texts that are shown as one, lines joined."""
    shown = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    return " ".join(text.get_text().replace("\n", " ") for text in shown)


def marked(parent, gid: str) -> list:
    """The artists with that mark."""
    return parent.findobj(lambda artist: artist.get_gid() == gid)


def segments(parent, gid: str) -> list[tuple[float, ...]]:
    """Ends of the lines with that mark, flat."""
    return [
        tuple(map(float, np.ravel(one)))
        for lines in marked(parent, gid)
        for one in lines.get_segments()
    ]


def test_figures_are_drawn_with_the_notes_also_with_too_few_cases_for_any_interval(tmp_path):
    comparison = make_comparison(THREE, cases=1, notes=["Only-fold-zero was compared."])
    entries = write_figures([comparison], files_of_comparison(tmp_path))
    assert [entry["id"] for entry in entries] == KINDS and {
        entry["dataset"] for entry in entries
    } == {comparison.name}
    # by which files of others are refused before any work
    foreseen = places_of_figures([comparison])
    for entry in entries:
        assert {*entry["files"]} <= {*foreseen}
        assert entry["files"] == [f"figures/{entry['id']}.{ending}" for ending in ("png", "svg")]
        text = (tmp_path / entry["files"][1]).read_text()
        texts = " ".join(re.findall("<text[^>]*>([^<]*)</text>", text))
        assert "Only-fold-zero" in texts and "1 case" in texts
        assert not re.search(r"\b(nan|inf)\b", f"{texts} {entry['alt']} {entry['caption']}".lower())


@pytest.mark.parametrize("cases", [1, 8, 40])
def test_the_headline_names_the_differences_that_their_tests_show_and_no_others(tmp_path, cases):
    comparison = make_comparison(THREE, cases=cases)
    told = write_figures([comparison], files_of_comparison(tmp_path))[0]["alt"]
    tests = comparison.statistics
    shown = tests[tests["column"].isin(SHOWN_DIFFERENCES) & tests.verdict.isin(["better", "worse"])]
    expected = {
        (comparison.columns[row.column].title, row.verdict, comparison.labels[row.trainer])
        for row in shown.itertuples()
    }
    found = re.findall(r"(?:: |; )([^:;]*?) is (better|worse) with ([^;]*?)(?=;|\.$)", told)
    assert {
        (title, verdict, label) for title, verdict, names in found for label in names.split(" and ")
    } == expected
    assert (told[:7] == "No test") == (not expected) and ("was made" in told) == (cases == 1)


def row(
    label="NACL",
    title="ECE",
    difference=-0.1,
    low=-0.2,
    high=-0.05,
    n=40,
    p_holm=0.03,
    verdict="better",
):
    return locals()


def test_differences_and_their_intervals_are_the_numbers(tmp_path, drawn):
    nothing = {
        "difference": math.nan,
        "low": math.nan,
        "high": math.nan,
        "n": 0,
        "p_holm": math.nan,
    }
    rows = [
        row("CE", p_holm=0.04),
        row("NACL", difference=0.01, low=-0.1, high=0.2, p_holm=1e-9, verdict="worse"),
        row("LS", **nothing, verdict="untested"),
        row("SVLS", low=math.nan, high=math.nan),
        row("CE", "HD95 (mm)", 1.5, 1, 2, p_holm=0.5, verdict="none"),
    ]
    better = {"ECE": "lower", "HD95 (mm)": "lower"}
    draw_differences(
        pd.DataFrame(rows), tmp_path / "forest.png", reference="Dice + CE (default)", better=better
    )
    errors, hd95 = drawn[0].axes
    shown = {
        line.get_label(): tuple(line.get_xydata()[0])
        for line in errors.lines
        if line.get_gid() is None
    }
    assert shown == {"CE": (-0.1, 0), "NACL": (0.01, 1), "SVLS": (-0.1, 3)}
    assert segments(errors, "interval") == [(-0.2, 0, -0.05, 0), (-0.1, 1, 0.2, 1)]
    assert segments(hd95, "interval") == [(1, 0, 2, 0)]
    assert all(panel.get_xlim()[0] < 0 < panel.get_xlim()[1] for panel in (errors, hd95)), (
        "no difference is seen"
    )
    text = all_text(drawn[0])
    for words in ("HD95 (mm)", "n = 0 to 40 cases.", "better than Dice + CE (default)"):
        assert words in text
    assert "no difference shown" in text and "ECE: no value for LS." in text


def stats(seed: int = 0) -> BinStats:
    return count_masks(*random_classes(seed, 3, (8, 9, 10), 2.0))["all"]


def test_reliability_shows_the_accuracy_the_gap_and_the_share_of_every_bin(tmp_path, drawn):
    sums = stats()
    low, high = np.full(15, np.nan), np.full(15, np.nan)
    low[9], high[9], low[14], high[14] = 0.5, 0.7, 0.8, 0.9
    draw_reliability(
        {"NACL": sums, "CE": sums}, tmp_path / "figure.png", bands={"NACL": (low, high)}
    )
    count, correct, confidence = sums.count[0], sums.correct[0], sums.confidence[0]
    full = np.flatnonzero(count)
    accuracy, mean = correct[full] / count[full], confidence[full] / count[full]
    upper, other, lower, _ = drawn[0].axes
    bars = sorted((bar.get_x(), bar.get_height()) for bar in marked(upper, "accuracy"))
    assert np.array(bars) == pytest.approx(np.stack([sums.edges[full], accuracy], axis=1))
    assert (mean > accuracy).any() and (mean < accuracy).any()
    gaps = [
        (bar.get_x(), bar.get_y() + bar.get_height(), bar.get_facecolor())
        for bar in marked(upper, "gap")
    ]
    assert np.array([gap[:2] for gap in gaps]) == pytest.approx(
        np.stack([sums.edges[full], mean], axis=1)
    )
    assert [gap[2] for gap in gaps] == [
        to_rgba(VERMILLION if over else GREEN) for over in mean > accuracy
    ]
    assert [bar.get_height() for bar in marked(lower, "share")] == pytest.approx(
        (count / count.sum()).tolist()
    )
    ends = [(9.5 / 15, 0.5, 9.5 / 15, 0.7), (14.5 / 15, 0.8, 14.5 / 15, 0.9)]
    assert np.ravel(segments(upper, "band")) == pytest.approx(np.ravel(ends)) and not marked(
        other, "band"
    )
    text = all_text(drawn[0])
    assert f"pooled ECE {ece(sums):.3f}, n = 720 voxels" in text and "95 % interval" in text
