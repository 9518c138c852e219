"""A small reliability diagram for the gallery: SVG of a few kilobytes, drawn a hundred times on a page."""

from __future__ import annotations

import numpy as np

from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.calibration_error import ece
from nnunet_nacl.show.reliability import ACCURACY, ACCURACY_EDGE, FEW_OPACITY, FEW_VOXELS, GAP_EDGES, GAP_FACES
from nnunet_nacl.show.templating import render

__all__ = ["reliability_svg", "reliability_text"]

_SIDE, _STRIP = 180, 34  # of the diagram and of the histogram below it, in units of the drawing


def reliability_svg(stats: BinStats) -> str:
    """As `draw_reliability`: accuracy of each bin, the gap to its mean confidence, and below its share of voxels."""
    count, total = stats.count.sum(axis=0), max(stats.count.sum(), 1)
    bins = []
    for i in np.flatnonzero(count):
        accuracy = stats.correct.sum(axis=0)[i] / count[i]
        confidence = stats.confidence.sum(axis=0)[i] / count[i]
        bins.append(
            {
                "x": i * _SIDE / stats.n_bins,
                "width": _SIDE / stats.n_bins,
                "accuracy": accuracy * _SIDE,
                "top": max(accuracy, confidence) * _SIDE,
                "gap": abs(confidence - accuracy) * _SIDE,
                "side": "over" if confidence > accuracy else "under",
                "opacity": FEW_OPACITY if count[i] < FEW_VOXELS else 1,
                "share": count[i] / total * _STRIP,
            }
        )
    colors = {"accuracy": ACCURACY, "accuracy_edge": ACCURACY_EDGE, "edges": GAP_EDGES, "faces": GAP_FACES}
    return render("reliability.svg", bins=bins, side=_SIDE, strip=_STRIP, error=f"{ece(stats):.3f}", colors=colors)


def reliability_text(stats: BinStats) -> str:
    """What the diagram shows, in words."""
    total = stats.count.sum()
    accuracy, confidence = stats.correct.sum() / total, stats.confidence.sum() / total
    gap = confidence - accuracy
    verdict = f"{'over' if gap > 0 else 'under'}confident on average"
    if abs(gap) < 0.005:
        verdict = "as confident as it is right"
    return (
        f"ECE {ece(stats):.3f}, mean confidence {confidence:.3f}, accuracy {accuracy:.3f} ({verdict}), "
        f"{stats.n_voxels:,} voxels"
    )
