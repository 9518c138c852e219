"""Reliability diagrams: how often a confidence is right, for several methods side by side."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.calibration import ece

__all__ = ["draw_reliability"]

# Okabe and Ito's palette: distinguishable with any colour vision
_ACCURACY, _OVERCONFIDENT, _UNDERCONFIDENT, _DIAGONAL = "#0072B2", "#D55E00", "#009E73", "#4D4D4D"
_FORMATS = (".png", ".svg", ".pdf")
_FEW = 1e-4  # bins with a smaller share of the voxels are drawn pale: their accuracy means little
_PANELS_PER_ROW = 4


def draw_reliability(
    stats_by_method: Mapping[str, BinStats],
    path: str | os.PathLike,
    *,
    title: str = "",
    subtitle: str = "",
    dpi: int = 150,
) -> Path:
    """Draw one panel per method: accuracy of each confidence bin above a histogram of the confidences.

    The gap between a bar and the diagonal is shaded and its direction is told by colour and by hatching, so the figure
    reads without colour too. Each panel states its ECE and number of voxels.

    Args:
        stats_by_method: Sums of each method, in the order of the panels. Regions are drawn together.
        path: Where to write; the suffix chooses PNG, SVG or PDF. Written atomically.
        title: Heading of the figure.
        subtitle: Second line, for the data, the mask and the number of cases.
        dpi: Resolution of a PNG.

    Returns:
        The path.

    Raises:
        ValueError: No method is given, or the suffix is not one of these.
        OSError: The file cannot be written.
    """
    path = Path(path)
    if not stats_by_method:
        raise ValueError("draw_reliability needs the sums of at least one method, got none.")
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"{path}: the figure's suffix must be one of {', '.join(_FORMATS)}, got {path.suffix!r}.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(stats_by_method)
    columns = min(count, _PANELS_PER_ROW)
    rows = -(-count // columns)
    head = (0.42 if title else 0) + (0.28 if subtitle else 0) + 0.1
    width, height = max(3.1 * columns + 0.5, 5.2), 4.1 * rows + head + 0.7
    figure = Figure(figsize=(width, height))  # no pyplot: nothing global, no display
    FigureCanvasAgg(figure)
    bottom, top = 0.92 / height, 1 - (head + 0.3) / height
    grid = figure.add_gridspec(
        rows, columns, left=0.72 / width, right=1 - 0.15 / width, bottom=bottom, top=top, wspace=0.18, hspace=0.32
    )
    for i, (method, stats) in enumerate(stats_by_method.items()):
        cell = grid[i // columns, i % columns].subgridspec(2, 1, height_ratios=(3, 1), hspace=0.08)
        upper, lower = figure.add_subplot(cell[0]), figure.add_subplot(cell[1])
        _panel(upper, lower, method, stats)
        first, last_row = i % columns == 0, i + columns >= count
        upper.set_ylabel("accuracy" if first else "")
        lower.set_ylabel("voxels" if first else "")
        for axis in (upper, lower):
            axis.tick_params(labelleft=first)
        lower.set_xlabel("confidence" if last_row else "")
    y = 1 - 0.12 / height
    if title:
        figure.text(0.5, y, title, ha="center", va="top", fontsize=13, fontweight="bold")
        y -= 0.32 / height
    if subtitle:
        figure.text(0.5, y, subtitle, ha="center", va="top", fontsize=9.5, color="#333333")
    _legend(figure, height)
    return _save(figure, path, dpi)


def _panel(upper, lower, method: str, stats: BinStats) -> None:
    count = stats.count.sum(axis=0)
    confidence, correct = stats.confidence.sum(axis=0), stats.correct.sum(axis=0)
    edges, width, total = stats.edges, 1 / stats.n_bins, max(count.sum(), 1)
    for i in np.flatnonzero(count):
        accuracy, mean = correct[i] / count[i], confidence[i] / count[i]
        pale = 0.35 if count[i] < _FEW * total else 1.0
        over = mean > accuracy
        upper.bar(
            edges[i], accuracy, width, align="edge", color=_ACCURACY, alpha=0.85 * pale, edgecolor="white", lw=0.5
        )  # fmt: skip
        upper.bar(
            edges[i], abs(mean - accuracy), width, bottom=min(mean, accuracy), align="edge",
            facecolor="none" if over else "#FFFFFF66", edgecolor=_OVERCONFIDENT if over else _UNDERCONFIDENT,
            hatch="////" if over else "....", lw=0.6, alpha=max(pale, 0.5),
        )  # fmt: skip
    upper.plot((0, 1), (0, 1), color=_DIAGONAL, lw=1, ls="--")
    error = ece(stats)
    text = "no voxel" if np.isnan(error) else f"ECE {error:.3f}\nn = {_short(stats.n_voxels)}"
    upper.text(
        0.04, 0.96, text, transform=upper.transAxes, va="top", fontsize=10,
        bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "#BBBBBB", "alpha": 0.9},
    )  # fmt: skip
    upper.set_title(method, fontsize=11, wrap=True)
    upper.set(xlim=(0, 1), ylim=(0, 1), xticks=np.linspace(0, 1, 6), yticks=np.linspace(0, 1, 6))
    upper.tick_params(labelbottom=False, labelsize=8)
    lower.bar(edges[:-1], count / total, width, align="edge", color="#7F7F7F", edgecolor="white", lw=0.5)
    lower.set(xlim=(0, 1), ylim=(0, 1.05), xticks=np.linspace(0, 1, 6), yticks=(0, 0.5, 1))
    lower.set_yticklabels(("0", "50 %", "100 %"))
    lower.tick_params(labelsize=8)
    for axis in (upper, lower):
        axis.spines[["top", "right"]].set_visible(False)


def _legend(figure, height: float) -> None:
    from matplotlib.patches import Patch

    figure.legend(
        handles=[
            Patch(facecolor=_ACCURACY, alpha=0.85, label="accuracy"),
            Patch(facecolor="none", edgecolor=_OVERCONFIDENT, hatch="////", label="overconfident by"),
            Patch(facecolor="none", edgecolor=_UNDERCONFIDENT, hatch="....", label="underconfident by"),
        ],
        loc="lower center", ncol=3, frameon=False, fontsize=8.5, bbox_to_anchor=(0.5, 0.06 / height),
    )  # fmt: skip


def _short(n: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if n >= size:
            return f"{n / size:.3g}{letter}"
    return str(n)


def _save(figure, path: Path, dpi: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    try:
        figure.savefig(temporary, dpi=dpi)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
