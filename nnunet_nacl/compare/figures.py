"""Draws and writes the figures of a comparison, with titles, captions and alternative texts."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from typing_extensions import Unpack

from nnunet_nacl.compare.comparison import Comparison
from nnunet_nacl.compare.dataset import MAIN_COLUMNS, Dataset, Promises
from nnunet_nacl.errors import UserError
from nnunet_nacl.numbers.binning import BinStats
from nnunet_nacl.numbers.calibration_error import ece
from nnunet_nacl.numbers.learned_quality import DEFAULT_ALPHA, DICE, coverage
from nnunet_nacl.numbers.statistics import bin_accuracy_bands
from nnunet_nacl.show import layout
from nnunet_nacl.show.tables import number

MAIN_DIFFERENCES = "main_differences"
"""How the id of the figure begins that the page opens with."""
_DIFFERENCES = {
    MAIN_DIFFERENCES: ("ECE:predicted", "Dice"),
    "differences": (*MAIN_COLUMNS, "ECE:predicted", "NLL:near"),
}
LEVEL = f"{100 * (1 - DEFAULT_ALPHA):g} %"  # of the intervals of predicted Dice
FIGURES = "figures"
"""Folder beside comparison.json."""


_Figure = tuple[str, str, str, str, Callable[..., Path]]  # kind, title, caption, alt, and what draws it


def write_figures(
    comparison: Comparison, promises: Mapping[str, Mapping[str, Promises]], folder: Path
) -> list[dict[str, Any]]:
    """Write ``figures/<id>.png`` and ``.svg`` of each, with the comparison's notes at its foot.

    ``promises`` are by data set and name of an entry. The entries of comparison.json, one a figure, are returned: their
    ``alt`` has the numbers for whoever cannot see them. UserError where a file cannot be written.
    """
    from tqdm import tqdm

    (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    figures = [(data, f) for data in comparison.datasets for f in _figures_of(comparison, data, promises[data.name])]
    entries = []
    for dataset, (kind, title, caption, alt, draw) in tqdm(figures, desc="figures", leave=False):
        name = comparison.id_of(kind, dataset)
        files = [f"{FIGURES}/{name}.{ending}" for ending in ("png", "svg")]
        try:
            draw(folder / files[0], title=title, subtitle=dataset.where, notes=comparison.notes, also=(".svg",))
        except UserError as error:
            raise UserError(f"{error} Then run the same command again: what was measured is kept.") from None
        words = {"title": title, "caption": caption, "alt": alt}
        entries.append({"id": name, "dataset": dataset.name, **words, "files": files})
    return entries


def _figures_of(comparison: Comparison, dataset: Dataset, promises: Mapping[str, Promises]) -> Iterator[_Figure]:
    """The figures of a data set in the order in which they are read."""
    yield from _differences(comparison, dataset, MAIN_DIFFERENCES)
    for mask in ("foreground", "predicted", "all"):
        yield _reliability(comparison, dataset, mask)
    yield from _differences(comparison, dataset, "differences")
    for i, entry in enumerate(comparison.entries, 1):
        if (found := promises.get(entry.name)) and found.has_intervals:
            yield _predicted_dice(f"predicted_dice_{i}", entry.label, dataset.structures, found)


def _reliability(comparison: Comparison, dataset: Dataset, mask: str) -> _Figure:
    stats, bands, patients = {}, {}, list(dataset.groups or dataset.cases)
    for name, label in comparison.labels.items():
        of_cases = [record.bins[mask] for record in dataset.records[name]]
        stats[label] = BinStats.merge(of_cases)
        sums = (np.stack([getattr(s, what).sum(axis=0) for s in of_cases]) for what in ("count", "correct"))
        count, correct = (pd.DataFrame(rows).groupby(patients).sum().to_numpy() for rows in sums)
        bands[label] = bin_accuracy_bands(count, correct, **comparison.draws)
    caption = (
        f"Accuracy of the voxels of each confidence bin, mask {mask}, all cases pooled, with 95 % bootstrap intervals "
        f"over {dataset.unit} as error bars; a bar below the dashed diagonal is overconfident, above it "
        "underconfident. Below, the share of the voxels in each bin. The ECE written is that of the pooled voxels; "
        "tables give the mean over cases."
    )
    pooled = ", ".join(f"{label} {number(ece(s))}" for label, s in stats.items())
    alt = f"Reliability diagrams on the mask {mask}. Pooled ECE: {pooled}."
    return f"reliability_{mask}", f"Reliability: {mask}", caption, alt, partial(draw_reliability, stats, bands=bands)


def _differences(comparison: Comparison, dataset: Dataset, kind: str) -> Iterator[_Figure]:
    reference, tests = comparison.entries[0].label, comparison.tests(dataset)
    columns = {key: dataset.columns[key] for key in _DIFFERENCES[kind]}
    rows = pd.concat([tests[tests["column"] == key] for key in columns])
    titles = [columns[key].title for key in rows["column"]]
    rows = rows.assign(label=rows["trainer"].map(comparison.labels), title=titles)
    if rows["difference"].isna().all():
        return
    clear = [
        f"{row.title}: {row.label} {row.verdict} by {abs(row.difference):.3g}"
        for row in rows.query("verdict in ('better', 'worse')").itertuples()
    ]
    caption = (
        f"Mean difference to {reference} over the cases in which both have a value, with 95 % bootstrap intervals over "
        f"{dataset.unit}. p: Wilcoxon's signed-rank test with Holm's correction over all methods and metrics of the "
        "same table; intervals are not corrected. One training per fold stands for each method: what varies between "
        "trainings is not in them."
    )
    alt = f"Paired differences to {reference}; p (Holm) below 0.05: {'; '.join(clear) or 'none'}."
    better = {column.title: column.better for column in columns.values()}
    draw = partial(draw_differences, rows, reference=reference, better=better)
    yield kind, f"Differences to {reference}", caption, alt, draw


def _predicted_dice(kind: str, label: str, structures: dict[str, str], promises: Promises) -> _Figure:
    rows = promises.table
    caption = (
        f"Dice predicted from the probabilities against the true Dice; bars: {LEVEL} intervals, by what other cases "
        "taught. A case outside its interval has a marker of its own."
        + "".join(f" {text[:1].upper()}{text[1:]}." for text in promises.caveats)
    )
    counts = {name: _count_covered(rows[rows.key == key]) for key, name in structures.items()}
    inside = ", ".join(f"{name} {n} of {n_rows} cases" for name, (n, n_rows) in counts.items())
    alt = f"Predicted against true Dice of {label}. Within their {LEVEL} interval: {inside}."
    return kind, f"Predicted Dice: {label}", caption, alt, partial(draw_predicted_dice, rows, structures)


_ROW, _LABEL, _PANEL, _AROUND = 0.27, 2.3, 3.2, 1.1  # inches of a forest plot
_UNTESTED = "not tested: too few cases, whose interval is too narrow to rely on"
_VERDICTS: dict[str, tuple[str, dict[str, Any]]] = {
    "better": ("better than {}: p (Holm) below 0.05", {"color": layout.BLUE, "marker": "o"}),
    "worse": ("worse than {}: p (Holm) below 0.05", {"color": layout.VERMILLION, "marker": "s"}),
    "none": ("no difference shown", {"color": layout.GREY, "marker": "D", "markerfacecolor": "white"}),
    "untested": (_UNTESTED, {"color": layout.GREY, "marker": "X"}),
}
_POINT: dict[str, Any] = {"markersize": 6.5, "markeredgewidth": 1.2}


@layout.figure_settings()
def draw_differences(
    rows: pd.DataFrame,
    path: str | os.PathLike,
    *,
    reference: str,
    better: Mapping[str, str],
    **frame: Unpack[layout.Frame],
) -> Path:
    """Draw a forest plot: one panel per metric, one line per method, in the order of their first appearance.

    ``rows`` are of :attr:`~nnunet_nacl.compare.comparison.Comparison.statistics`, with the ``label`` of the method and
    the ``title`` of the metric, by which ``better`` tells whether ``higher`` or ``lower`` values are.
    """
    methods = list(dict.fromkeys(rows["label"]))
    labels = [layout.wrap(method, _LABEL) for method in methods]
    width = max(map(layout.text_width, labels))
    panels = rows.groupby("title", sort=False)
    beside = min(len(panels), max(1, int((layout.MAX_WIDTH - width) / (_PANEL - 0.4))), 3)
    # all rows hold the tallest of the labels
    row = max(_ROW, *((label.count("\n") + 1) * layout.line_height(layout.TEXT_SIZE) + 0.02 for label in labels))
    size = _PANEL + width / beside, row * len(methods) + _AROUND
    body, axes = layout.new_panels(len(panels), size, beside, sharey=True)
    for panel, (title, of_metric) in zip(axes, panels):
        panel.set_title(title, loc="left", fontweight="bold", pad=72 * layout.line_height(layout.SMALL_SIZE) + 4)
        _draw_panel(panel, of_metric, methods, better[title])
        panel.set_yticks(range(len(labels)), labels, fontsize=layout.TEXT_SIZE)
        panel.set_ylim(len(labels) - 0.5, -0.5)  # the first at the top
        panel.tick_params(axis="y", length=0)
        panel.tick_params(labelbottom=True)
    n, lacking = rows["n"], rows[rows["difference"].isna()]
    foot = [f"n = {n.min()} cases." if n.nunique() == 1 else f"n = {n.min()} to {n.max()} cases."]
    foot += [f"{title}: no value for {', '.join(of['label'])}." for title, of in lacking.groupby("title", sort=False)]
    drawn = set(rows["verdict"].replace("mixed", "none"))
    legend = [
        Line2D([], [], linewidth=1.3, label=words.format(reference), **_POINT, **look)
        for verdict, (words, look) in _VERDICTS.items()
        if verdict in drawn
    ]
    return layout.write_figure(body, path, legend=legend, remarks=foot, **frame)


def _draw_panel(axes: Axes, rows: pd.DataFrame, methods: list[str], better: str) -> None:
    """Points and intervals, and p-values at the right."""
    axes.grid(True, axis="x")
    axes.axvline(0, color=layout.INK, linewidth=1, gid="zero")
    axes.locator_params(axis="x", nbins=4)
    place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    place |= {"fontsize": layout.SMALL_SIZE, "va": "center"}
    tested = rows["p_holm"].notna().any()
    if tested:
        axes.annotate("p (Holm)", (1, -0.5), (45, 4), ha="right", color=layout.GREY, **place)
    for row in rows.itertuples():
        y, (_, look) = methods.index(row.label), _VERDICTS.get(row.verdict, _VERDICTS["none"])
        if math.isnan(row.difference):
            axes.annotate("no value", (0.5, y), (0, 0), ha="center", color=layout.GREY, style="italic", **place)
            continue
        layout.draw_interval(axes, y, row.low, row.high, vertical=False, color=look["color"], gid="interval")
        axes.plot([row.difference], [y], linestyle="none", zorder=3, label=row.label, **_POINT, **look)
        if tested:
            p = "–" if math.isnan(row.p_holm) else "< 0.001" if row.p_holm < 0.001 else f"{row.p_holm:.3f}"
            axes.annotate(p, (1, y), (45, 0), ha="right", **place)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.1 * high), max(high, -0.1 * low))
    axes.spines["left"].set_visible(False)
    left, right = ("worse", "better") if better == "higher" else ("better", "worse")
    label = axes.set_xlabel(f"← {left}", loc="left")
    axes.annotate(f"{right} →", (1, 1), xycoords=("axes fraction", label), ha="right", va="top")


FEW_VOXELS = 100  # bins with fewer voxels are drawn pale: their accuracy means little
_ACCURACY, _ACCURACY_EDGE, _FEW_OPACITY = "#4A9CCB", "#003E63", 0.35
_GAPS: dict[str, dict[str, Any]] = {  # the latter lies inside the bar: a paler blue
    "over": {"hatch": "////", "facecolor": "#FFFFFF", "edgecolor": layout.VERMILLION, "lw": 0.6},
    "under": {"hatch": "||||", "facecolor": "#CDE4F1", "edgecolor": layout.GREEN, "lw": 0.6},
}
_PANELS_PER_ROW, _WIDEST, _SINGLE = 4, 3.2, 4.0  # the latter in inches of a panel
_SIDE_BY_HISTOGRAM = 4.0  # heights
_TICKS, _TICK_LABELS = (0, 0.2, 0.4, 0.6, 0.8, 1), ("0", "0.2", "0.4", "0.6", "0.8", "1")  # short: panels stand close


@layout.figure_settings()
def draw_reliability(
    stats_by_method: Mapping[str, BinStats],
    path: str | os.PathLike,
    *,
    bands: Mapping[str, tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]] | None = None,
    **frame: Unpack[layout.Frame],
) -> Path:
    """Draw one panel per method: accuracy of each confidence bin above a histogram of the confidences.

    A bar ends, with a dark edge, at the accuracy of its bin. The gap to the bin's mean confidence is hatched, above the
    bar where the method is overconfident and inside it where it is underconfident; colour and hatching both tell which.
    Each panel states its number of voxels and its ECE pooled over them, which is not the mean over cases of a table.

    Args:
        stats_by_method: Sums of each method, in the order of the panels. Regions are drawn together, and
            the ECE is then the mean of theirs.
        path: Where to write PNG, SVG or PDF; it is returned.
        bands: For any of the methods the lower and upper end, per bin, of an interval of the accuracy, such as a
            bootstrap over cases of 95 %; NaN where a bin has none. Drawn as error bars.
        frame: What stands around the panels, see :class:`~nnunet_nacl.show.layout.Frame`.

    Raises:
        ValueError: No method is given, the suffix is not one of these, or a band does not fit the bins.
        UserError: The file cannot be written.
    """
    if not stats_by_method:
        raise ValueError("draw_reliability needs the sums of at least one method, got none.")
    ends = {method: np.array(band, dtype=float) for method, band in (bands or {}).items()}
    for method, band in ends.items():
        if method not in stats_by_method or band.shape != (2, stats_by_method[method].n_bins):
            raise ValueError(f"The band of {method!r}, of shape {band.shape}, fits no method that is drawn.")
    rows = -(-len(stats_by_method) // _PANELS_PER_ROW)
    columns = -(-len(stats_by_method) // rows)
    size, shares = (_WIDEST if columns > 1 else _SINGLE), [_SIDE_BY_HISTOGRAM, 1] * rows
    body, axes = layout.new_panels(
        2 * rows * columns, (size, 0.65 * size), columns, sharex=True, sharey="row", height_ratios=shares
    )
    panels = np.reshape(np.array(axes, object), (rows, 2, columns)).swapaxes(1, 2).reshape(-1, 2)
    for unused in panels[len(stats_by_method) :].flat:
        unused.remove()
    for i, ((upper, lower), (method, stats)) in enumerate(zip(panels, stats_by_method.items())):
        upper.set_title(method, pad=72 * 2 * layout.line_height(layout.SMALL_SIZE) + 8)
        place: dict[str, Any] = {"xycoords": "axes fraction", "xytext": (0, 5), "textcoords": "offset points"}
        look: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": layout.SMALL_SIZE, "linespacing": 1.2}
        words = f"pooled ECE {ece(stats):.3f},\nn = {stats.n_voxels:,} voxels" if stats.n_voxels else "no voxel"
        upper.annotate(words, (0.5, 1), **place, **look)
        _draw_accuracy(upper, stats, ends.get(method))
        _draw_histogram(lower, stats)
        if i % columns == 0:
            upper.set_ylabel("accuracy")
            lower.set_ylabel("voxels")
        lower.set_xlabel("confidence")
        lower.tick_params(labelbottom=True)
    return layout.write_figure(body, path, legend=_legend(stats_by_method, ends), **frame)


def _draw_accuracy(axes: Axes, stats: BinStats, band: np.ndarray | None) -> None:
    count, correct, confidence = (sums.sum(axis=0) for sums in (stats.count, stats.correct, stats.confidence))
    axes.plot((0, 1), (0, 1), color=layout.GREY, lw=1, ls="--", zorder=2.2)
    axes.set(xlim=(0, 1), ylim=(0, 1.01), yticks=_TICKS, yticklabels=_TICK_LABELS)
    width = 1 / stats.n_bins
    for side, gap in _GAPS.items():
        shown = (count > 0) & ((confidence > correct) == (side == "over"))
        accuracy, mean, left = correct[shown] / count[shown], confidence[shown] / count[shown], stats.edges[:-1][shown]
        alphas = np.where(count[shown] < FEW_VOXELS, _FEW_OPACITY, 1.0)
        pale = {key: [to_rgba(gap[key], alpha) for alpha in alphas] for key in ("facecolor", "edgecolor")}
        color = [to_rgba(_ACCURACY, alpha) for alpha in alphas]
        axes.bar(left, accuracy, width, align="edge", gid="accuracy", color=color, edgecolor="white", lw=0.5)
        axes.bar(left, abs(mean - accuracy), width, np.minimum(mean, accuracy), align="edge", gid=side, **gap | pale)
        look: dict[str, Any] = {"color": [to_rgba(_ACCURACY_EDGE, alpha) for alpha in alphas], "lw": 1.6, "zorder": 2.3}
        axes.hlines(accuracy, left + 0.1 * width, left + 0.9 * width, gid="top", **look)
    if band is not None:
        low, high = np.where(count > 0, band, np.nan)
        middle = stats.edges[:-1] + width / 2
        layout.draw_interval(axes, middle, low, high, vertical=True, color=layout.INK, gid="band")


def _draw_histogram(axes: Axes, stats: BinStats) -> None:
    count = stats.count.sum(axis=0)
    look: dict[str, Any] = {"color": "#7F7F7F", "edgecolor": "white", "lw": 0.5}
    axes.bar(stats.edges[:-1], count / max(count.sum(), 1), 1 / stats.n_bins, align="edge", gid="share", **look)
    axes.set(xlim=(0, 1), ylim=(0, 1.05), xticks=_TICKS, xticklabels=_TICK_LABELS)
    axes.set_yticks((0, 0.5, 1), ("0", "50 %", "100 %"))


def _legend(stats_by_method: Mapping[str, BinStats], bands: Mapping[str, np.ndarray]) -> list:
    handles: list = [Patch(facecolor=_ACCURACY, label="accuracy (dark edge)")]
    handles += [Patch(label=f"{side}confident by this much", **gap) for side, gap in _GAPS.items()]
    handles.append(Line2D([], [], color=layout.GREY, lw=1, ls="--", label="accuracy = confidence"))
    if any(np.isfinite(band).any() for band in bands.values()):
        look: dict[str, Any] = {"color": layout.INK, "lw": 0, "marker": "|", "markersize": 11, "markeredgewidth": 1.3}
        handles.append(Line2D([], [], label="95 % interval over cases", **look))
    counts = np.concatenate([stats.count.sum(axis=0) for stats in stats_by_method.values()])
    if ((counts > 0) & (counts < FEW_VOXELS)).any():
        few = f"pale: fewer than {FEW_VOXELS} voxels in the bin"
        handles.append(Patch(facecolor=to_rgba(_ACCURACY, _FEW_OPACITY), label=few))
    return handles


_INTERVAL = f"the {LEVEL} interval around the prediction"
_INSIDE: dict[str, Any] = {"marker": "o", "color": layout.BLUE, "markersize": 4.5}
_OUTSIDE: dict[str, Any] = {"marker": "s", "color": layout.VERMILLION, "markersize": 5.5, "markerfacecolor": "white"}
_ALONE: dict[str, Any] = {"marker": "D", "color": layout.GREY, "markersize": 4.5, "markerfacecolor": "white"}


@layout.figure_settings()
def draw_predicted_dice(
    rows: pd.DataFrame, structures: Mapping[str, str], path: str | os.PathLike, **frame: Unpack[layout.Frame]
) -> Path:
    """Draw a panel per structure and a point per case on or off the line where the prediction is true.

    A bar shows in which interval the true Dice was expected. Cases whose true Dice lies outside differ in marker and
    colour, and the heading of each panel counts them. A case without predicted or true Dice is left out and counted at
    the foot. ``rows`` have the columns ``key``, ``Dice`` and those of
    :data:`~nnunet_nacl.numbers.learned_quality.DICE`, NaN where there is no value.
    """
    shown, total = rows.dropna(subset=["Dice", "predicted_dice"]), rows.key.value_counts()
    counts = [(name, (shown.key == key).sum(), total[key]) for key, name in structures.items()]
    gone = ", ".join(f"{name} ({n_rows - n} of {n_rows})" for name, n, n_rows in counts if n < n_rows)
    left_out = [f"Cases without a predicted or a true Dice are left out: {gone}."] if gone else []
    low_end = min(1, shown[["Dice", *DICE]].min(axis=None)) if len(shown) else 1
    limits = (low_end - 0.04 * (1.02 - low_end), 1.02)
    panel_size = (3.9, 4.0) if len(structures) < 3 else (3.0, 3.3)
    body, axes = layout.new_panels(len(structures), panel_size, sharex=True, sharey=True)
    for panel, (key, name) in zip(axes, structures.items()):
        cases = shown[shown.key == key]
        _draw_cases(panel, *cases[[*DICE, "Dice"]].to_numpy(float).T)
        inside, covered = _count_covered(cases)
        counted = f"{inside} of {covered} ({100 * inside / covered:.0f} %) within" if covered else "no intervals"
        panel.set_title(f"{name}\n{counted}")
        panel.set(xlabel="predicted Dice", ylabel="true Dice", xlim=limits, ylim=limits)
        panel.tick_params(labelbottom=True)
    legend = [
        Line2D([], [], linestyle="none", label=f"true Dice within {_INTERVAL} (bar)", **_INSIDE),
        Line2D([], [], linestyle="none", label=f"outside {_INTERVAL}", **_OUTSIDE),
        Line2D([], [], color=layout.INK, linewidth=1, linestyle="--", label="true = predicted"),
    ]
    return layout.write_figure(body, path, legend=legend, remarks=left_out, **frame)


def _count_covered(rows: pd.DataFrame) -> tuple[int, int]:
    """How many cases have their true Dice within the interval, and how many have both."""
    found = coverage(rows[DICE[1]], rows[DICE[2]], rows.Dice)
    return round(found.share * found.n) if found.n else 0, found.n


def _draw_cases(axes: Axes, predicted: np.ndarray, low: np.ndarray, high: np.ndarray, true: np.ndarray) -> None:
    axes.grid(True)
    axes.set_box_aspect(1)
    axes.axline((0, 0), slope=1, color=layout.INK, linewidth=1, linestyle="--", gid="identity")
    if not len(predicted):
        axes.text(0.5, 0.5, "no value", transform=axes.transAxes, ha="center")
    inside, alone = (low <= true) & (true <= high), np.isnan(low)
    for look, cases in ((_INSIDE, inside), (_OUTSIDE, ~inside & ~alone), (_ALONE, alone)):
        ends: Any = predicted[cases], low[cases], high[cases]
        layout.draw_interval(axes, *ends, vertical=True, color=look["color"], alpha=0.35, gid="interval")
        axes.plot(predicted[cases], true[cases], linestyle="none", zorder=3, **look)
