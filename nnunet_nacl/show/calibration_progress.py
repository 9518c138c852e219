"""Calibration while networks train: errors, maximum logits and mean logit vectors, epoch by epoch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import SubFigure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from typing_extensions import Unpack

from nnunet_nacl.show.layout import Frame, new_body, new_panels, write_figure, write_no_value
from nnunet_nacl.show.style import (
    BLACK,
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALETTE,
    SMALL_SIZE,
    VERMILLION,
    figure_settings,
    method_styles,
)
from nnunet_nacl.show.values import format_number

_HEIGHT, _LINES_HEIGHT, _MATRIX_HEIGHT, _TITLE = 3.5, 2.5, 4.0, 0.3  # inches of a row of panels, and of a heading
_MOST_LINES = 6  # channels; with more of them lines cannot be told apart
_WIDTH, _RECORDS_HEIGHT = 2.35, 2.5  # of a panel for several trainings
_LAST = 5  # epochs whose mean or sum is shown: a single one, of a few patches, tells little
_MASK_LINES = {"foreground": (BLACK, "-", 2.0), "predicted": (VERMILLION, "--", 1.4), "all": (BLUE, "-.", 1.4)}
_LINESTYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
# From white to a blue that is dark in grey scale too; lines in black and orange stand off it.
_SHARES = LinearSegmentedColormap.from_list("shares", ["#FFFFFF", "#BBD7EE", "#5B9BD0", "#0B4F8A"])


@figure_settings()
def draw_calibration_progress(record: Mapping[str, Any], path: str | os.PathLike, **frame: Unpack[Frame]) -> Path:
    """Draw the record of a training: what the figures 4 and 5 of the NACL paper show, over the epochs.

    Above: the calibration error of the winning class on three masks, and how the maximum logit of the foreground is
    spread. Below: the mean logit vector of the voxels of each true class; with more than six channels the matrix of
    the last epoch instead.

    Args:
        record: What :func:`~nnunet_nacl.training_record.read_training_record` gives.
        path, frame: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.
            Without a title the trainer stands there, without a subtitle the data and the number of voxels.

    Raises:
        ValueError: The record has no epoch, or the suffix is not one of these.
    """
    epochs = record["epochs"]
    if not epochs:
        raise ValueError("The record has no epoch yet: nothing to draw.")
    lines = len(record["channels"]) <= _MOST_LINES and any(entry["mean_logits"] for entry in epochs)
    matrix = not lines and epochs[-1]["mean_logits"] is not None
    below = (_LINES_HEIGHT * -(-len(record["true_classes"]) // 3) if lines else _MATRIX_HEIGHT * matrix) + _TITLE
    body = new_body(_HEIGHT + below)
    upper, lower = cast(Any, body).subfigures(2, 1, height_ratios=(_HEIGHT, below))
    left, right = upper.subplots(1, 2)
    _draw_errors(left, epochs)
    _draw_max_logits(right, record)
    if lines:
        _draw_lines(lower, record)
    elif matrix:
        _draw_matrix(lower.subplots(), record)
    legend = [
        Line2D([], [], **_channel_line(k, record["regions"]), label=f"logit of {name}")
        for k, name in enumerate(record["channels"] if lines else ())
    ]
    title = f"Calibration during training: {record.get('trainer', 'unnamed trainer')}"
    around: Frame = {"title": title, "subtitle": _subtitle(record), "dpi": 110, **frame}
    return write_figure(body, path, legend=legend, remarks=_notes(record, matrix), **around)


@figure_settings()
def draw_training_records(records: Mapping[str, dict], path: str | os.PathLike) -> Path:
    """Draw what happens to confidence while networks train, a line per training (as fig. 5 of the NACL paper).

    Left: expected calibration error in the foreground. Middle: mean maximum logit of the foreground, and between which
    values 80 % of its voxels lie. Right: the distribution of the maximum logit in the last epochs.

    Args:
        records: What :func:`~nnunet_nacl.training_record.read_training_record` gives, with at least one epoch each, by
            the name that the legend shall show.
        path: Where to write; the suffix chooses PNG, SVG or PDF. Written atomically.
    """
    lines = {
        name: {**style.line, "linestyle": _LINESTYLES[i % 4]}  # for those who do not see the colours
        for i, (name, style) in enumerate(method_styles(records).items())
    }
    first = next(iter(records.values()))
    body, (left, middle, right) = new_panels(3)
    for name, record in records.items():
        line, bins, epochs = lines[name], record["max_logit_bins"], record["epochs"]
        x = [entry["epoch"] for entry in epochs]
        low, high = ([_quantile(_histogram(entry, bins), share, bins) for entry in epochs] for share in (0.1, 0.9))
        left.plot(x, _values(epochs, "calibration", "foreground", "ECE"), **line)
        middle.plot(x, _values(epochs, "max_logit", "foreground", "mean"), **line)
        middle.fill_between(x, low, high, color=line["color"], alpha=0.15, linewidth=0)
        counts = np.sum([_histogram(entry, bins) for entry in epochs[-_LAST:]], axis=0)
        centers = bins["low"] + bins["width"] * (np.arange(bins["number"]) - 0.5)
        if counts.any():
            used = slice(*np.flatnonzero(counts)[[0, -1]] + [0, 1])
            right.plot(centers[used], 100 * counts[used] / counts.sum(), **line)
    share = f"% of voxels per {first['max_logit_bins']['width']:g}"
    for axes, title, x_label, y_label in (
        (left, "ECE (lower is better)", "epoch", "ECE"),
        (middle, "Maximum logit, middle 80 %", "epoch", "maximum logit"),
        (right, f"Maximum logit, last {_LAST} epochs", "maximum logit", share),
    ):
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.set_title(title, loc="left")
        axes.grid(True)
    left.set_ylim(bottom=0)
    right.set_ylim(bottom=0)
    middle.axhline(0, color=GREY, linewidth=0.8)
    return write_figure(
        body,
        path,
        (_WIDTH, _RECORDS_HEIGHT),
        title="Calibration while training, foreground",
        subtitle=f"{first['dataset']}, {first['configuration']}, validation patches of nnU-Net",
        legend=[Line2D([], [], label=name, **line) for name, line in lines.items()],
    )


def _subtitle(record: Mapping[str, Any]) -> str:
    epochs, masks = record["epochs"], ("foreground", "all")
    foreground, total = (np.median(_values(epochs, "calibration", mask, "n_voxels")) for mask in masks)
    name = ", ".join(str(record[key]) for key in ("dataset", "configuration") if key in record)
    fold = f", fold {record['fold']}" if "fold" in record else ""
    return (
        f"{name}{fold}; epochs {epochs[0]['epoch']} to {epochs[-1]['epoch']}\nn = {total:,.0f} voxels per epoch "
        f"(median) of nnU-Net's validation patches, {foreground:,.0f} of them foreground"
    )


def _notes(record: Mapping[str, Any], matrix: bool) -> list[str]:
    notes = [
        f"ECE: expected calibration error of the winning class, {record['n_bins']} bins, pooled over the voxels "
        "of an epoch's patches. foreground: the true label is not background; predicted: the predicted label is "
        "not background.",
        _overconfidence(record["epochs"]),
    ]
    if _highest_errors(record["epochs"]).max() > _error_limit(record["epochs"]):
        notes.append("The first epochs' ECE runs out of the picture: the axis is that of the others.")
    if record["regions"]:
        notes.append("Regions: the maximum logit is |l|, over all regions; ECE is the mean over regions.")
    if not matrix and record["epochs"][-1]["mean_logits"] is None:
        notes.append(f"Mean logit vectors are not shown: {len(record['channels'])} channels.")
    left_out = sum(entry.get("n_not_finite", 0) for entry in record["epochs"])
    if left_out:
        notes.append(f"{left_out:,} voxels with infinite or undefined logits are left out.")
    return notes


def _overconfidence(epochs: list[dict[str, Any]]) -> str:
    """The sign that ECE does not have."""
    gaps = []
    for mask in _MASK_LINES:
        confidence, accuracy = (_values(epochs, "calibration", mask, key) for key in ("confidence", "accuracy"))
        gap = _last(confidence - accuracy)
        if np.isfinite(gap):
            gaps.append(f"{mask} {'' if gap < 0 else '+'}{format_number(gap, 3)}")
    words = f"Confidence minus accuracy, {_last_epochs(epochs)}: {', '.join(gaps)} (above 0: overconfident)."
    return words if gaps else ""


def _last(values: np.ndarray) -> float:
    values = values[-_LAST:]
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else np.nan


def _last_epochs(epochs: list[dict[str, Any]]) -> str:
    number = min(_LAST, len(epochs))
    return f"mean of the last {number} epochs" if number > 1 else "last epoch"


def _highest_errors(epochs: list[dict[str, Any]]) -> np.ndarray:
    errors = [np.nan_to_num(_values(epochs, "calibration", mask, "ECE")) for mask in _MASK_LINES]
    return np.max(errors, 0)


def _error_limit(epochs: list[dict[str, Any]]) -> float:
    """Upper end of the error axis, with room for the legend: the first tenth of a training would squash the rest."""
    return 1.45 * float(_highest_errors(epochs)[len(epochs) // 10 :].max()) or 1.0


def _values(epochs: list[dict[str, Any]], *keys: Any) -> np.ndarray:
    """What stands under the keys in each epoch; None becomes NaN."""
    return np.array([reduce(getitem, keys, entry) for entry in epochs], dtype=float)


def _histogram(entry: dict, bins: dict) -> np.ndarray:
    """Foreground voxels of an epoch in all the bins of the maximum logit."""
    of_mask, counts = entry["max_logit"]["foreground"], np.zeros(bins["number"])
    counts[of_mask["first_bin"] : of_mask["first_bin"] + len(of_mask["counts"])] = of_mask["counts"]
    return counts


def _quantile(counts: np.ndarray, share: float, bins: dict) -> float:
    """Maximum logit below which that share of the voxels lies, to within a bin; NaN without voxels."""
    upper_edges = bins["low"] + bins["width"] * np.arange(bins["number"])
    return np.interp(share * counts.sum(), np.cumsum(counts), upper_edges) if counts.any() else np.nan


def _plot(axes: Axes, epochs: list[dict[str, Any]], values: np.ndarray, **look: Any) -> None:
    """A line over the epochs; through few points it would not be seen without markers."""
    markers: dict[str, Any] = {"marker": "o", "markersize": 4} if len(epochs) <= 10 else {}
    axes.plot([entry["epoch"] for entry in epochs], values, **markers, **look)


def _finish(axes: Axes, epochs: list[dict[str, Any]], what: str, legend: bool = True) -> None:
    first, last = epochs[0]["epoch"], epochs[-1]["epoch"]
    axes.set(xlabel="epoch", ylabel=what, xlim=(first - 0.5, max(last, first + 1) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    if legend:
        look: dict[str, Any] = {"framealpha": 0.85, "edgecolor": "none", "alignment": "left", "handlelength": 2.8}
        look |= {"fontsize": SMALL_SIZE, "title_fontsize": SMALL_SIZE}
        axes.legend(loc="upper right", title=_last_epochs(epochs), **look)


def _draw_errors(axes: Axes, epochs: list[dict[str, Any]]) -> None:
    axes.set_title("ECE (lower is better)", loc="left")
    axes.grid(True)
    for mask, (color, style, width) in _MASK_LINES.items():
        values = _values(epochs, "calibration", mask, "ECE")
        look: dict[str, Any] = {"color": color, "linestyle": style, "linewidth": width, "gid": f"ECE {mask}"}
        _plot(axes, epochs, values, label=f"{mask} {format_number(_last(values), 4)}", **look)
    axes.set_ylim(0, _error_limit(epochs))
    _finish(axes, epochs, "ECE")


def _draw_max_logits(axes: Axes, record: Mapping[str, Any]) -> None:
    epochs, bins = record["epochs"], record["max_logit_bins"]
    axes.set_title("Maximum logit, foreground", loc="left")
    start, end = epochs[0]["epoch"], epochs[-1]["epoch"]
    shares = np.full((bins["number"], end - start + 1), np.nan)
    for entry in epochs:
        counts = _histogram(entry, bins)
        if counts.any():
            shares[:, entry["epoch"] - start] = 100 * counts / counts.sum()
    used = np.flatnonzero(np.nan_to_num(shares).max(1) > 0.05)  # percent: single voxels would stretch the axis
    first, last = (used[0], used[-1] + 1) if len(used) else (0, bins["number"])
    # the open bins are drawn as wide as the others
    low, high = (bins["low"] + (edge - 1) * bins["width"] for edge in (first, last))
    norm = PowerNorm(0.5, vmin=0)  # a single peak would else leave nothing to see of the tails
    look: dict[str, Any] = {"interpolation": "nearest", "aspect": "auto", "origin": "lower"}
    extent = (start - 0.5, end + 0.5, low, high)
    image = axes.imshow(shares[first:last], cmap=_SHARES, norm=norm, extent=extent, **look)
    for mask, color, style in (("foreground", BLACK, "-"), ("all", ORANGE, "--")):
        values = _values(epochs, "max_logit", mask, "mean")
        look = {"color": color, "linestyle": style, "linewidth": 1.8, "gid": f"mean maximum logit {mask}"}
        _plot(axes, epochs, values, label=f"mean, {mask} {format_number(_last(values), 2)}", **look)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.35 * (high - low))  # room for the legend
    _finish(axes, epochs, "|logit|" if record["regions"] else "maximum logit")
    _add_bar(axes, image, f"% of voxels per {bins['width']:g}")


def _add_bar(axes: Axes, image: AxesImage, label: str) -> None:
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02, aspect=25)
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=SMALL_SIZE)


def _channel_line(k: int, regions: bool) -> dict[str, Any]:
    """Look of a channel's line. The background is grey: black is the foreground in the panels above."""
    colors = PALETTE if regions else (GREY, *PALETTE[1:])
    return {"color": colors[k % len(colors)], "linestyle": _LINESTYLES[k % len(_LINESTYLES)], "linewidth": 1.6}


def _draw_lines(body: SubFigure, record: Mapping[str, Any]) -> None:
    epochs = [entry for entry in record["epochs"] if entry["mean_logits"] is not None]
    matrices = np.array([entry["mean_logits"] for entry in epochs], dtype=float)  # None becomes NaN
    body.suptitle("Mean logit vector of the voxels of each true class", x=0.01, ha="left", fontsize=10)
    _, panels = new_panels(len(record["true_classes"]), min(3, len(record["true_classes"])), body=body, sharey=True)
    finite = matrices[np.isfinite(matrices)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 1)
    margin = 0.08 * (high - low) or 1
    for k, (name, axes) in enumerate(zip(record["true_classes"], panels)):
        counts = np.median([entry["n_class_voxels"][k] for entry in epochs])
        axes.set_title(f"true: {_shortened(name)} (n = {counts:,.0f})", loc="left", fontsize=9)
        axes.grid(True)
        axes.axhline(0, color=INK, linewidth=0.6)
        for j in range(matrices.shape[2]):
            look: dict[str, Any] = {"gid": f"logit {j} of true class {k}", **_channel_line(j, record["regions"])}
            _plot(axes, epochs, matrices[:, k, j], **look)
        if not counts and not np.isfinite(matrices[:, k]).any():
            write_no_value(axes, "no voxel")
        axes.set_ylim(low - margin, high + margin)
        _finish(axes, epochs, "" if k % 3 else "mean logit", legend=False)


def _draw_matrix(axes: Axes, record: Mapping[str, Any]) -> None:
    entry = record["epochs"][-1]
    matrix = np.array(entry["mean_logits"], dtype=float)
    bound = np.nanmax(np.abs(matrix)) if np.isfinite(matrix).any() else 1
    image = axes.imshow(matrix, aspect="auto", cmap="PuOr_r", vmin=-bound, vmax=bound, interpolation="nearest")
    axes.set_title(f"Mean logit vector of the voxels of each true class, epoch {entry['epoch']}", loc="left")
    what = "region" if record["regions"] else "class"
    shift = int(record["regions"])  # the first row is what lies in no region; regions are numbered from 1
    names = [f"{_shortened(name)}  {k}" for k, name in enumerate(record["true_classes"])]
    axes.set_xticks(range(matrix.shape[1]), [str(k + shift) for k in range(matrix.shape[1])])
    axes.set_yticks(range(len(matrix)), names)
    if len(matrix) > 20:
        axes.tick_params(labelsize=6)
    axes.set(xlabel=f"logit of {what}, numbered as on the left", ylabel="true class")
    _add_bar(axes, image, "mean logit")


def _shortened(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"
