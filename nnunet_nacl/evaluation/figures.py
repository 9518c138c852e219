"""Draws and writes the figures of a comparison, with titles, captions and alternative texts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from typing_extensions import Unpack

from nnunet_nacl.cases.ownership import OwnedFiles
from nnunet_nacl.evaluation.comparison import MAIN_COLUMNS, Comparison
from nnunet_nacl.evaluation.comparison_report import ReportedFigure
from nnunet_nacl.evaluation.tables import named_after
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.calibration_error import ece
from nnunet_nacl.metrics.statistics import bin_accuracy_bands
from nnunet_nacl.quality.intervals import DEFAULT_ALPHA, coverage
from nnunet_nacl.quality.learned_quality import DICE_COLUMNS
from nnunet_nacl.reports import layout
from nnunet_nacl.reports.tables import number

DIFFERENCES = "differences"
"""How the id of the figure begins that the page opens with."""
_DIFFERENCES = ("ECE:predicted", *MAIN_COLUMNS, "NLL:near")
_RELIABILITY, _PREDICTED_DICE = "reliability", "predicted_dice"
_RELIABILITY_MASKS = ("foreground", "predicted", "all")
LEVEL = f"{100 * (1 - DEFAULT_ALPHA):g} %"  # of the intervals of predicted Dice
FIGURES = "figures"
"""Folder beside comparison.json."""


def write_figures(comparisons: Sequence[Comparison], owned: OwnedFiles) -> list[ReportedFigure]:
    """Write ``figures/<id>.png`` and ``.svg`` of each, with all notes at its foot; what
    comparison.json says of them.

    Their ``alt`` has the numbers for whoever cannot see them. UserError where a file cannot be
    written.
    """
    from tqdm import tqdm

    notes = [note for comparison in comparisons for note in comparison.notes]
    figures = [
        (comparison, figure) for comparison in comparisons for figure in _figures_of(comparison)
    ]
    written = []
    for comparison, figure in tqdm(figures, desc="figures", leave=False):
        name = named_after(comparisons).format(kind=figure.pop("kind"), name=comparison.name)
        files = _places(name)
        around = {
            "title": figure["title"],
            "subtitle": comparison.where,
            "notes": notes,
            "also": (".svg",),
        }
        with owned.staging(files[0]) as work:
            figure.pop("draw")(work / Path(files[0]).name, **around)
        entry = ReportedFigure(
            id=name,
            dataset=comparison.name,
            title=figure["title"],
            caption=figure["caption"],
            alt=figure["alt"],
            files=files,
        )
        written.append(entry)
    return written


def places_of_figures(comparisons: Sequence[Comparison]) -> list[str]:
    """Where :func:`write_figures` may write figures of comparisons, of which only names and methods
    are known yet."""
    form = named_after(comparisons)
    places = []
    for comparison in comparisons:
        kinds = [DIFFERENCES, *(f"{_RELIABILITY}_{mask}" for mask in _RELIABILITY_MASKS)]
        kinds += [f"{_PREDICTED_DICE}_{number}" for number in range(1, len(comparison.methods) + 1)]
        for kind in kinds:
            places += _places(form.format(kind=kind, name=comparison.name))
    return places


def _places(figure_id: str) -> list[str]:
    return [f"{FIGURES}/{figure_id}.{ending}" for ending in ("png", "svg")]


def _figures_of(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """The figures in the order in which they are read: kind, title, caption, alt, and what draws
    them."""
    if not comparison.statistics["difference"].isna().all():
        yield _differences(comparison)
    for mask in _RELIABILITY_MASKS:
        yield _reliability(comparison, mask)
    for i, method in enumerate(comparison.methods, 1):
        if (promises := comparison.promises.get(method.name)) and DICE_COLUMNS[1] in promises.table:
            rows, names = promises.table, comparison.structures
            notes = "".join(f" {text[:1].upper()}{text[1:]}" for text in promises.caveats)
            inside = ", ".join(
                f"{name} {_covered(rows[rows.key == key])}" for key, name in names.items()
            )
            yield {
                "kind": f"{_PREDICTED_DICE}_{i}",
                "title": f"Predicted Dice: {method.label}",
                "caption": (
                    f"A case on the dashed line was predicted right; bars are {LEVEL} intervals,"
                    f" learned from other cases, and squares are cases outside theirs.{notes}"
                ),
                "alt": (
                    f"Predicted against true Dice of {method.label}. Within their {LEVEL} interval:"
                    f" {inside}."
                ),
                "draw": partial(draw_predicted_dice, rows, names),
            }


def _reliability(comparison: Comparison, mask: str) -> dict[str, Any]:
    stats, bands, patients = {}, {}, list(comparison.groups or comparison.cases)
    for name, label in comparison.labels.items():
        of_cases = [record.bins[mask] for record in comparison.records[name]]
        stats[label] = BinStats.merge(of_cases)
        sums = (
            np.stack([getattr(s, what).sum(axis=0) for s in of_cases])
            for what in ("count", "correct")
        )
        count, correct = (pd.DataFrame(rows).groupby(patients).sum().to_numpy() for rows in sums)
        options = comparison.options
        bands[label] = bin_accuracy_bands(
            count, correct, n_bootstrap=options.n_bootstrap, seed=options.seed
        )
    pooled = ", ".join(f"{label} {number(ece(s))}" for label, s in stats.items())
    return {
        "kind": f"{_RELIABILITY}_{mask}",
        "title": f"Reliability: {mask}",
        "caption": (
            "A bar of accuracy below the dashed diagonal means too much confidence, one above it"
            f" too little (mask {mask}, all voxels pooled; error bars: 95 % bootstrap intervals"
            f" over {comparison.unit}; below, the share of the voxels)."
        ),
        "alt": f"Reliability diagrams on the mask {mask}. Pooled ECE: {pooled}.",
        "draw": partial(draw_reliability, stats, bands=bands),
    }


def _differences(comparison: Comparison) -> dict[str, Any]:
    reference, tests = comparison.methods[0].label, comparison.statistics
    columns = {key: comparison.columns[key] for key in _DIFFERENCES}
    rows = pd.concat([tests[tests["column"] == key] for key in columns])
    titles = [columns[key].title for key in rows["column"]]
    rows = rows.assign(label=rows["trainer"].map(comparison.labels), title=titles)
    clear = (
        rows.query("verdict in ('better', 'worse')").groupby(["title", "verdict"], sort=False).label
    )
    found = "; ".join(
        f"{title} is {verdict} with {' and '.join(labels)}" for (title, verdict), labels in clear
    )
    none = (
        "No test was made"
        if (rows["verdict"] == "untested").all()
        else "No test shows a difference"
    )
    better = {column.title: column.better for column in columns.values()}
    return {
        "kind": DIFFERENCES,
        "title": f"Differences to {reference}",
        "caption": (
            f"A point is the mean difference to {reference} with its 95 % bootstrap interval over"
            f" {comparison.unit}, and has a colour only where its own test shows a difference"
            " (Wilcoxon's signed-rank test, p below 0.05 after Holm's correction)."
        ),
        "alt": (
            f"By tests against {reference}: {found}."
            if found
            else f"{none} ({reference} is the reference)."
        ),
        "draw": partial(draw_differences, rows, reference=reference, better=better),
    }


# inches of a forest plot: width of labels and panels, height around the rows
_LABEL, _PANEL, _AROUND = 2.0, 2.6, 1.0
_UNTESTED = "not tested: too few cases, whose interval is too narrow to rely on"
_VERDICTS: dict[str, tuple[str, dict[str, Any]]] = {
    "better": ("better than {}: p (Holm) below 0.05", {"color": layout.BLUE, "marker": "o"}),
    "worse": ("worse than {}: p (Holm) below 0.05", {"color": layout.VERMILLION, "marker": "s"}),
    "none": (
        "no difference shown",
        {"color": layout.GREY, "marker": "D", "markerfacecolor": "white"},
    ),
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
    """Draw a forest plot: one panel per metric, one line per method, in the order of their first
    appearance.

    ``rows`` are of :attr:`~nnunet_nacl.evaluation.comparison.Comparison.statistics`, with the
    ``label`` of the method and the ``title`` of the metric, by which ``better`` tells whether
    ``higher`` or ``lower`` values are.
    """
    methods = list(dict.fromkeys(rows["label"]))
    labels = [layout.wrap(method, _LABEL) for method in methods]
    panels = rows.groupby("title", sort=False)
    columns = min(len(panels), 3)
    row = layout.height_of(max(label.count("\n") for label in labels) + 1) + 0.1
    size = _PANEL + _LABEL / columns, row * len(methods) + _AROUND
    body, axes = layout.new_panels(len(panels), size, columns, sharey=True)
    for panel, (title, of_metric) in zip(axes, panels):
        panel.set_title(layout.wrap(title, _PANEL, 10), loc="left", fontweight="bold")
        _draw_panel(panel, of_metric, methods, better[title])
        panel.set_yticks(range(len(labels)), labels, fontsize=layout.TEXT_SIZE)
        panel.set_ylim(len(labels) - 0.5, -0.5)  # the first at the top
        panel.tick_params(axis="y", length=0)
    n, lacking = rows["n"], rows[rows["difference"].isna()]
    foot = [f"n = {n.min()} cases." if n.nunique() == 1 else f"n = {n.min()} to {n.max()} cases."]
    foot += [
        f"{title}: no value for {', '.join(of['label'])}."
        for title, of in lacking.groupby("title", sort=False)
    ]
    drawn = set(rows["verdict"].replace("mixed", "none"))
    legend = [
        Line2D([], [], linewidth=1.3, label=words.format(reference), **_POINT, **look)
        for verdict, (words, look) in _VERDICTS.items()
        if verdict in drawn
    ]
    return layout.write_figure(body, path, legend=legend, remarks=foot, **frame)


def _draw_panel(axes: Axes, rows: pd.DataFrame, methods: list[str], better: str) -> None:
    """Points and intervals; nothing where there is no value."""
    axes.grid(True, axis="x")
    axes.axvline(0, color=layout.INK, linewidth=1, gid="zero")
    axes.locator_params(axis="x", nbins=4)
    for row in rows.dropna(subset="difference").itertuples():
        y, (_, look) = methods.index(row.label), _VERDICTS.get(row.verdict, _VERDICTS["none"])
        if not np.isnan(row.low):
            axes.hlines(y, row.low, row.high, color=look["color"], gid="interval")
        axes.plot(
            [row.difference], [y], linestyle="none", zorder=3, label=row.label, **_POINT, **look
        )
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.1 * high), max(high, -0.1 * low))
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("worse ← 0 → better" if better == "higher" else "better ← 0 → worse")


_ACCURACY = "#4A9CCB"
_GAPS = {"over": layout.VERMILLION, "under": layout.GREEN}
_PANELS_PER_ROW, _WIDTH = 4, 3.2  # the latter in inches of a panel
# short: panels stand close
_TICKS, _TICK_LABELS = (0, 0.2, 0.4, 0.6, 0.8, 1), ("0", "0.2", "0.4", "0.6", "0.8", "1")


@layout.figure_settings()
def draw_reliability(
    stats_by_method: Mapping[str, BinStats],
    path: str | os.PathLike,
    *,
    bands: (
        Mapping[str, tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]] | None
    ) = None,
    **frame: Unpack[layout.Frame],
) -> Path:
    """Draw one panel per method: accuracy of each confidence bin above a histogram of the
    confidences.

    The gap between a bar and its bin's mean confidence has a colour of its own. Each panel states
    its number of voxels and its ECE pooled over them, which is not the mean over cases of a table.
    Regions are drawn together, and the ECE is then the mean of theirs. ``bands`` are, of any of the
    methods, the ends of an interval of each bin's accuracy, NaN where a bin has none. ValueError
    where no method is given; other errors are those of
    :func:`~nnunet_nacl.reports.layout.write_figure`.
    """
    if not stats_by_method:
        raise ValueError("draw_reliability needs the sums of at least one method, got none.")
    ends = {method: np.array(band, dtype=float) for method, band in (bands or {}).items()}
    rows = -(-len(stats_by_method) // _PANELS_PER_ROW)
    columns = -(-len(stats_by_method) // rows)
    sides: dict[str, Any] = {"sharex": True, "sharey": "row", "height_ratios": [4, 1] * rows}
    body, axes = layout.new_panels(2 * rows * columns, (_WIDTH, 0.65 * _WIDTH), columns, **sides)
    panels = np.reshape(np.array(axes, object), (rows, 2, columns)).swapaxes(1, 2).reshape(-1, 2)
    for unused in panels[len(stats_by_method) :].flat:
        unused.remove()
    for i, ((upper, lower), (method, stats)) in enumerate(zip(panels, stats_by_method.items())):
        words = (
            f"pooled ECE {ece(stats):.3f},\nn = {stats.n_voxels:,} voxels"
            if stats.n_voxels
            else "no voxel"
        )
        upper.set_title(
            f"{layout.wrap(method, 8 / max(columns, 3), 10)}\n{words}", fontsize=layout.TEXT_SIZE
        )
        _draw_accuracy(upper, stats, ends.get(method))
        count = stats.count.sum(axis=0)
        look: dict[str, Any] = {"color": "#7F7F7F", "edgecolor": "white", "lw": 0.5}
        lower.bar(
            stats.edges[:-1],
            count / max(count.sum(), 1),
            1 / stats.n_bins,
            align="edge",
            gid="share",
            **look,
        )
        lower.set(
            xlim=(0, 1),
            ylim=(0, 1.05),
            xticks=_TICKS,
            xticklabels=_TICK_LABELS,
            xlabel="confidence",
        )
        lower.set_yticks((0, 0.5, 1), ("0", "50 %", "100 %"))
        lower.tick_params(labelbottom=True)
        if i % columns == 0:
            upper.set_ylabel("accuracy")
            lower.set_ylabel("voxels")
    legend: list = [Patch(facecolor=_ACCURACY, label="accuracy")]
    legend += [
        Patch(facecolor=color, label=f"{side}confident by this much")
        for side, color in _GAPS.items()
    ]
    legend.append(Line2D([], [], color=layout.GREY, lw=1, ls="--", label="accuracy = confidence"))
    if any(np.isfinite(band).any() for band in ends.values()):
        look = {
            "color": layout.INK,
            "lw": 0,
            "marker": "|",
            "markersize": 11,
            "markeredgewidth": 1.3,
        }
        legend.append(Line2D([], [], label="95 % interval", **look))
    return layout.write_figure(body, path, legend=legend, **frame)


def _draw_accuracy(axes: Axes, stats: BinStats, band: np.ndarray | None) -> None:
    count, correct, confidence = (
        sums.sum(axis=0) for sums in (stats.count, stats.correct, stats.confidence)
    )
    width, shown = 1 / stats.n_bins, count > 0
    accuracy, mean, left = (
        correct[shown] / count[shown],
        confidence[shown] / count[shown],
        stats.edges[:-1][shown],
    )
    colors = [_GAPS["over" if more else "under"] for more in mean > accuracy]
    look: dict[str, Any] = {"align": "edge", "edgecolor": "white", "lw": 0.5}
    axes.bar(left, accuracy, width, color=_ACCURACY, gid="accuracy", **look)
    axes.bar(left, mean - accuracy, width, accuracy, color=colors, gid="gap", **look)
    axes.plot((0, 1), (0, 1), color=layout.GREY, lw=1, ls="--", zorder=2.2)
    axes.set(xlim=(0, 1), ylim=(0, 1.01), yticks=_TICKS, yticklabels=_TICK_LABELS)
    if band is not None:
        shown &= np.isfinite(band).all(axis=0)
        axes.vlines(
            stats.edges[:-1][shown] + width / 2, *band[:, shown], color=layout.INK, gid="band"
        )


_CASES: dict[str, dict[str, Any]] = {
    f"true Dice within the {LEVEL} interval (bar)": {"marker": "o", "color": layout.BLUE},
    f"outside the {LEVEL} interval": {
        "marker": "s",
        "color": layout.VERMILLION,
        "markerfacecolor": "white",
    },
    "no interval": {"marker": "D", "color": layout.GREY, "markerfacecolor": "white"},
}


@layout.figure_settings()
def draw_predicted_dice(
    rows: pd.DataFrame,
    structures: Mapping[str, str],
    path: str | os.PathLike,
    **frame: Unpack[layout.Frame],
) -> Path:
    """Draw a panel per structure and a point per case on or off the line where the prediction is
    true.

    A bar shows in which interval the true Dice was expected. Cases whose true Dice lies outside
    differ in marker and colour, and the heading of each panel counts them. A case without predicted
    or true Dice is left out and counted at the foot. ``rows`` have the columns ``key``, ``Dice``
    and those of :data:`~nnunet_nacl.quality.learned_quality.DICE_COLUMNS`, NaN where there is no value.
    """
    shown, drawn = rows.dropna(subset=["Dice", DICE_COLUMNS[0]]), set[str]()
    lowest = min(0.9, shown[["Dice", *DICE_COLUMNS]].min(axis=None)) if len(shown) else 0
    body, axes = layout.new_panels(len(structures), (3.2, 3.4), sharex=True, sharey=True)
    for panel, (key, name) in zip(axes, structures.items()):
        predicted, low, high, true = (
            shown[shown.key == key][[*DICE_COLUMNS, "Dice"]].to_numpy(float).T
        )
        inside, known = (low <= true) & (true <= high), ~np.isnan(low)
        colors = np.where(inside, layout.BLUE, layout.VERMILLION)[known]
        panel.vlines(
            predicted[known], low[known], high[known], colors=colors, alpha=0.35, gid="interval"
        )
        for (words, look), of in zip(_CASES.items(), (inside, known & ~inside, ~known)):
            panel.plot(predicted[of], true[of], linestyle="none", zorder=3, markersize=5, **look)
            drawn |= {words} if of.any() else set()
        panel.axline((0, 0), slope=1, color=layout.INK, linewidth=1, linestyle="--", gid="identity")
        panel.grid(True)
        panel.set_title(f"{layout.wrap(name, 2.6, 10)}\n{_covered(rows[rows.key == key])} within")
        panel.set(
            xlabel="predicted Dice",
            ylabel="true Dice",
            xlim=(lowest - 0.02, 1.02),
            ylim=(lowest - 0.02, 1.02),
        )
        panel.set_box_aspect(1)
        panel.tick_params(labelbottom=True)
    legend = [
        Line2D([], [], linestyle="none", label=words, **_CASES[words])
        for words in _CASES
        if words in drawn
    ]
    legend.append(
        Line2D([], [], color=layout.INK, linewidth=1, linestyle="--", label="true = predicted")
    )
    gone = len(rows) - len(shown)
    remarks = (
        [f"Without a predicted or a true Dice, so left out: {gone} of {len(rows)}."] if gone else []
    )
    return layout.write_figure(body, path, legend=legend, remarks=remarks, **frame)


def _covered(rows: pd.DataFrame) -> str:
    """How many cases have their true Dice within the interval, of those that have both."""
    found = coverage(rows[DICE_COLUMNS[1]], rows[DICE_COLUMNS[2]], rows.Dice)
    return f"{round(found.share * found.n)} of {found.n} cases" if found.n else "0 cases"
