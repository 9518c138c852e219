"""The small reliability diagram of the gallery."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.show.reliability import reliability_svg, reliability_text

SVG = "{http://www.w3.org/2000/svg}"


def stats(count, accuracy, confidence):
    """Sums of three bins."""
    sums = BinStats.zeros(3, n_bins=len(count))
    sums.count[0] = count
    sums.correct[0] = np.multiply(count, accuracy)
    sums.confidence[0] = np.multiply(count, confidence)
    return sums


def bars(svg):
    """The drawn bins: opacity, height of the dark edge, fills."""
    root = ElementTree.fromstring(svg)
    found = []
    for group in root.iter(SVG + "g"):
        path = group.find(SVG + "path")
        if path is not None and "h" in path.get("d") and "H" not in path.get("d"):
            height = float(re.match(r"M\S+ (\S+)h", path.get("d"))[1])
            found.append((float(group.get("opacity", 1)), height, [r.get("fill") for r in group.iter(SVG + "rect")]))
    return found


def test_the_dark_edge_is_the_accuracy_and_the_lines_tell_over_from_under():
    drawn = bars(reliability_svg(stats((1000, 0, 1000), (0.5, 0, 0.75), (0.25, 0, 0.9))))
    assert [height for _, height, _ in drawn] == pytest.approx([90, 45])  # of 180
    assert "url(#under)" in drawn[0][2] and "url(#over)" not in drawn[0][2]
    assert "url(#over)" in drawn[1][2] and "url(#under)" not in drawn[1][2]


def test_only_bins_of_fewer_than_a_hundred_voxels_are_pale():
    drawn = bars(reliability_svg(stats((99, 100, 1e6), (1, 0.5, 0.9), (0.3, 0.5, 0.9))))
    assert [opacity < 1 for opacity, *_ in drawn] == [True, False, False]


def test_nothing_is_drawn_of_no_voxels():
    assert bars(reliability_svg(BinStats.zeros(3))) == []


def test_the_words_say_which_way_the_confidence_errs():
    assert "overconfident" in reliability_text(stats((0, 0, 200), (0, 0, 0.5), (0, 0, 0.9)))
    assert "underconfident" in reliability_text(stats((0, 0, 200), (0, 0, 1), (0, 0, 0.9)))
    assert "as confident as it is right" in reliability_text(stats((0, 0, 200), (0, 0, 0.9), (0, 0, 0.9)))
