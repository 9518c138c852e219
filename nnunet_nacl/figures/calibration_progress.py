"""Calibration while a network trains: errors, maximum logits and mean logit vectors, epoch by epoch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from nnunet_nacl.figures.layout import MAX_WIDTH, write_figure
from nnunet_nacl.figures.style import (
    BLACK,
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALETTE,
    SMALL_SIZE,
    VERMILLION,
    check_path,
    figure_settings,
)
from nnunet_nacl.figures.values import format_number

__all__ = ["draw_calibration_progress"]

_HEIGHT, _LINES_HEIGHT, _MATRIX_HEIGHT, _TITLE = 3.5, 2.5, 4.0, 0.3  # inches of a row of panels, and of a heading
_MOST_LINES = 6  # channels; with more of them lines cannot be told apart
_LAST = 5  # epochs whose mean is stated: a single one, of a few patches, tells little
_MASK_LINES = {"foreground": (BLACK, "-", 2.0), "predicted": (VERMILLION, "--", 1.4), "all": (BLUE, "-.", 1.4)}
_LINESTYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
# From white to a blue that is dark in grey scale too; lines in black and orange stand off it.
_SHARES = LinearSegmentedColormap.from_list("shares", ["#FFFFFF", "#BBD7EE", "#5B9BD0", "#0B4F8A"])


def draw_calibration_progress(
    record: Mapping[str, Any], path: str | os.PathLike, *, title: str = "", subtitle: str = "", dpi: int = 110
) -> Path:
    """Draw the record of a training: what the figures 4 and 5 of the NACL paper show, over the epochs.

    Above: the calibration error of the winning class on three masks, and how the maximum logit of the foreground is
    spread. Below: the mean logit vector of the voxels of each true class; with more than six channels the matrix of
    the last epoch instead.

    Args:
        record: What :func:`~nnunet_nacl.training_record.read_training_record` gives.
        path: Where to write; the suffix chooses PNG, SVG or PDF. Written atomically.
        title: Heading; default: the trainer.
        subtitle: Second line; default: the data and the number of voxels.
        dpi: Resolution of a PNG.

    Returns:
        The path.

    Raises:
        ValueError: The record has no epoch, or the suffix is not one of these.
        OSError: The file cannot be written.
    """
    path = check_path(path)
    epochs = record["epochs"]
    if not epochs:
        raise ValueError("The record has no epoch yet: nothing to draw.")
    title = title or f"Calibration during training: {record.get('trainer', 'unnamed trainer')}"
    lines = len(record["channels"]) <= _MOST_LINES and any(entry["mean_logits"] for entry in epochs)
    matrix = not lines and epochs[-1]["mean_logits"] is not None
    below = (_LINES_HEIGHT * -(-len(record["true_classes"]) // 3) if lines else _MATRIX_HEIGHT * matrix) + _TITLE
    with figure_settings():
        figure = Figure(figsize=(MAX_WIDTH, _HEIGHT + below), layout="constrained")
        body = figure.subfigures()
        parts = body.subfigures(2, 1, height_ratios=(_HEIGHT, below))
        left, right = parts[0].subplots(1, 2)
        _draw_errors(left, epochs)
        _draw_max_logits(right, record)
        if lines:
            _draw_lines(parts[1], record)
        elif matrix:
            _draw_matrix(parts[1].subplots(), record)
        return write_figure(
            body,
            path,
            title=title,
            subtitle=subtitle or _subtitle(record),
            notes=_notes(record, matrix),
            legend=_channel_handles(record) if lines else (),
            dpi=dpi,
        )


def _subtitle(record: Mapping[str, Any]) -> str:
    n = {
        mask: np.median([entry["calibration"][mask]["n_voxels"] for entry in record["epochs"]])
        for mask in ("foreground", "all")
    }
    name = ", ".join(str(record[key]) for key in ("dataset", "configuration") if key in record)
    fold = f", fold {record['fold']}" if "fold" in record else ""
    first, last = record["epochs"][0]["epoch"], record["epochs"][-1]["epoch"]
    return (
        f"{name}{fold}; epochs {first} to {last}\nn = {n['all']:,.0f} voxels per epoch (median) of nnU-Net's "
        f"validation patches, {n['foreground']:,.0f} of them foreground"
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
    gaps = {
        mask: _last(
            _values(epochs, "calibration", mask, "confidence") - _values(epochs, "calibration", mask, "accuracy")
        )
        for mask in _MASK_LINES
    }
    told = ", ".join(
        f"{mask} {format_number(gap, 3) if gap < 0 else '+' + format_number(gap, 3)}"
        for mask, gap in gaps.items()
        if np.isfinite(gap)
    )
    return f"Confidence minus accuracy, {_last_epochs(epochs)}: {told} (above 0: overconfident)." if told else ""


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
    def value(entry):
        for key in keys:
            entry = entry[key]
        return np.nan if entry is None else entry

    return np.array([value(entry) for entry in epochs], dtype=float)


def _numbers(epochs: list[dict[str, Any]]) -> np.ndarray:
    return np.array([entry["epoch"] for entry in epochs])


def _epoch_axis(axis: Axes, epochs: list[dict[str, Any]], label: bool = True) -> None:
    first, last = epochs[0]["epoch"], epochs[-1]["epoch"]
    axis.set_xlim(first - 0.5, max(last, first + 1) + 0.5)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    if label:
        axis.set_xlabel("epoch")


def _markers(epochs: list[dict[str, Any]]) -> dict[str, Any]:
    """A line through one or two points would not be seen."""
    return {"marker": "o", "markersize": 4} if len(epochs) <= 10 else {}


def _draw_errors(axis: Axes, epochs: list[dict[str, Any]]) -> None:
    axis.set_title("ECE (lower is better)", loc="left")
    axis.grid(True)
    x, handles = _numbers(epochs), []
    for mask, (color, style, width) in _MASK_LINES.items():
        y = _values(epochs, "calibration", mask, "ECE")
        axis.plot(x, y, color=color, linestyle=style, linewidth=width, gid=f"ECE {mask}", **_markers(epochs))
        handles.append(
            Line2D([], [], color=color, linestyle=style, linewidth=width, label=f"{mask} {format_number(_last(y), 4)}")
        )
    _draw_legend(axis, handles, epochs)
    axis.set_ylim(0, _error_limit(epochs))
    axis.set_ylabel("ECE")
    _epoch_axis(axis, epochs)


def _draw_legend(axis: Axes, handles: list[Line2D], epochs: list[dict[str, Any]]) -> None:
    axis.legend(
        handles=handles,
        loc="upper right",
        framealpha=0.85,
        edgecolor="none",
        fontsize=SMALL_SIZE,
        handlelength=2.8,
        title=_last_epochs(epochs),
        title_fontsize=SMALL_SIZE,
        alignment="left",
    )


def _draw_max_logits(axis: Axes, record: Mapping[str, Any]) -> None:
    epochs, bins = record["epochs"], record["max_logit_bins"]
    axis.set_title("Maximum logit, foreground", loc="left")
    shares = np.full((bins["number"], epochs[-1]["epoch"] - epochs[0]["epoch"] + 1), np.nan)
    for entry in epochs:
        of_mask = entry["max_logit"]["foreground"]
        total = sum(of_mask["counts"])
        if total:
            column = shares[:, entry["epoch"] - epochs[0]["epoch"]]
            column[:] = 0
            column[of_mask["first_bin"] : of_mask["first_bin"] + len(of_mask["counts"])] = (
                100 * np.array(of_mask["counts"]) / total
            )
    used = np.flatnonzero(np.nan_to_num(shares).max(1) > 0.05)  # percent: single voxels would stretch the axis
    first, last = (used[0], used[-1] + 1) if len(used) else (0, bins["number"])
    low = bins["low"] - bins["width"]  # the open bins are drawn as wide as the others
    image = axis.imshow(
        shares[first:last],
        origin="lower",
        aspect="auto",
        cmap=_SHARES,
        interpolation="nearest",
        norm=PowerNorm(0.5, vmin=0),  # a single peak would else leave nothing to see of the tails
        extent=(
            epochs[0]["epoch"] - 0.5,
            epochs[-1]["epoch"] + 0.5,
            low + first * bins["width"],
            low + last * bins["width"],
        ),
    )
    x = _numbers(epochs)
    handles = []
    for mask, color, style in (("foreground", BLACK, "-"), ("all", ORANGE, "--")):
        y = _values(epochs, "max_logit", mask, "mean")
        (line,) = axis.plot(
            x,
            y,
            color=color,
            linestyle=style,
            linewidth=1.8,
            gid=f"mean maximum logit {mask}",
            label=f"mean, {mask} {format_number(_last(y), 2)}",
            **_markers(epochs),
        )
        handles.append(line)
    low_limit, high_limit = axis.get_ylim()
    axis.set_ylim(low_limit, high_limit + 0.35 * (high_limit - low_limit))  # room for the legend
    _draw_legend(axis, handles, epochs)
    axis.set_ylabel("|logit|" if record["regions"] else "maximum logit")
    _epoch_axis(axis, epochs)
    _add_bar(axis, image, f"% of voxels per {bins['width']:g}")


def _add_bar(axis: Axes, image: AxesImage, label: str) -> None:
    bar = axis.figure.colorbar(image, ax=axis, pad=0.02, aspect=25)
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=SMALL_SIZE)


def _channel_line(k: int, regions: bool) -> dict[str, Any]:
    """Look of a channel's line. The background is grey: black is the foreground in the panels above."""
    colors = PALETTE if regions else (GREY, *PALETTE[1:])
    return {"color": colors[k % len(colors)], "linestyle": _LINESTYLES[k % len(_LINESTYLES)], "linewidth": 1.6}


def _channel_handles(record: Mapping[str, Any]) -> list[Line2D]:
    return [
        Line2D([], [], **_channel_line(k, record["regions"]), label=f"logit of {name}")
        for k, name in enumerate(record["channels"])
    ]


def _draw_lines(part: SubFigure, record: Mapping[str, Any]) -> None:
    epochs = [entry for entry in record["epochs"] if entry["mean_logits"] is not None]
    matrices = np.array([entry["mean_logits"] for entry in epochs], dtype=float)  # None becomes NaN
    part.suptitle("Mean logit vector of the voxels of each true class", x=0.01, ha="left", fontsize=10)
    columns = min(3, len(record["true_classes"]))
    axes = part.subplots(-(-len(record["true_classes"]) // columns), columns, squeeze=False, sharey=True).ravel()
    for unused in axes[len(record["true_classes"]) :]:
        unused.remove()
    finite = matrices[np.isfinite(matrices)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 1)
    margin = 0.08 * (high - low) or 1
    for k, (name, axis) in enumerate(zip(record["true_classes"], axes)):
        counts = np.median([entry["n_class_voxels"][k] for entry in epochs])
        axis.set_title(f"true: {_shortened(name)} (n = {counts:,.0f})", loc="left", fontsize=9)
        axis.grid(True)
        axis.axhline(0, color=INK, linewidth=0.6)
        for j in range(matrices.shape[2]):
            axis.plot(
                _numbers(epochs),
                matrices[:, k, j],
                **_channel_line(j, record["regions"]),
                gid=f"logit {j} of true class {k}",
                **_markers(epochs),
            )
        if not counts and not np.isfinite(matrices[:, k]).any():
            axis.text(0.5, 0.6, "no voxel", transform=axis.transAxes, ha="center", fontsize=SMALL_SIZE, color=GREY)
        axis.set_ylim(low - margin, high + margin)
        if k % columns == 0:
            axis.set_ylabel("mean logit")
        _epoch_axis(axis, epochs)


def _draw_matrix(axis: Axes, record: Mapping[str, Any]) -> None:
    entry = record["epochs"][-1]
    matrix = np.array(entry["mean_logits"], dtype=float)
    bound = np.nanmax(np.abs(matrix)) if np.isfinite(matrix).any() else 1
    image = axis.imshow(matrix, aspect="auto", cmap="PuOr_r", vmin=-bound, vmax=bound, interpolation="nearest")
    axis.set_title(f"Mean logit vector of the voxels of each true class, epoch {entry['epoch']}", loc="left")
    what = "region" if record["regions"] else "class"
    shift = int(record["regions"])  # the first row is what lies in no region; regions are numbered from 1
    axis.set_xticks(range(matrix.shape[1]), [str(k + shift) for k in range(matrix.shape[1])])
    axis.set_yticks(
        range(matrix.shape[0]), [f"{_shortened(name)}  {k}" for k, name in enumerate(record["true_classes"])]
    )
    if len(matrix) > 20:
        axis.tick_params(labelsize=6)
    axis.set_xlabel(f"logit of {what}, numbered as on the left")
    axis.set_ylabel("true class")
    _add_bar(axis, image, "mean logit")


def _shortened(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"
