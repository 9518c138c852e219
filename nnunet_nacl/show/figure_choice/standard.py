"""The figures of every comparison: reliability, radar, ranks, scatter, relative and paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from nnunet_nacl.comparison.alignment import Dataset
from nnunet_nacl.comparison.columns import RANK_METRICS
from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.documents.results import MASKS
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.bootstrap import Interval, bin_accuracy_bands, relative_difference
from nnunet_nacl.metrics.calibration_error import ece
from nnunet_nacl.show.figure_choice.described import DescribedFigure, describe, intervals_over, listed
from nnunet_nacl.show.forest_plot import ForestRow, draw_differences
from nnunet_nacl.show.radar import draw_radar
from nnunet_nacl.show.rank_heatmap import draw_rank_heatmap
from nnunet_nacl.show.relative_difference import draw_relative_difference
from nnunet_nacl.show.reliability import draw_reliability
from nnunet_nacl.show.scatter import draw_scatter
from nnunet_nacl.show.text_table import number

MAIN_DIFFERENCES = "main_differences"
"""How the id of the figure begins that the page opens with."""

_RELIABILITY = ("foreground", "predicted", "all")
_DIFFERENCES = (*RANK_METRICS, "ECE:predicted", "NLL:dilated")
_RELATIVE = (*RANK_METRICS, "ECE:predicted", "ECE:all", "NLL:dilated", "Brier:dilated")
_SCATTER = ("ECE:foreground", "ECE:union", "CECE_mean:foreground", "CECE_mean:union")


def standard_figures(comparison: Comparison, relative: tuple[str, str] | None = None) -> Iterator[DescribedFigure]:
    """The figures in the order in which they are read; with several data sets, most of them for each."""
    relative = relative or (comparison.names[0], comparison.ranked[-1])
    for dataset in comparison.datasets:
        yield from _differences(comparison, dataset, MAIN_DIFFERENCES, ("ECE:predicted", "Dice"))
        for mask in _RELIABILITY:
            yield _reliability(comparison, dataset, mask)
        yield from _differences(comparison, dataset, "differences", _DIFFERENCES)
        yield _scatter(comparison, dataset)
        yield _relative(comparison, dataset, relative)
    yield _radar(comparison, "Dice")
    yield _radar(comparison, "ECE")
    yield from _rank_heatmaps(comparison)


def _reliability(comparison: Comparison, dataset: Dataset, mask: str) -> DescribedFigure:
    stats, bands = {}, {}
    for entry in comparison.entries:
        per_case = [case.stats[mask] for case in dataset.results[entry.name]]
        stats[entry.label] = BinStats.merge(per_case)
        bands[entry.label] = bin_accuracy_bands(
            _by_patient(dataset, [s.count.sum(axis=0) for s in per_case]),
            _by_patient(dataset, [s.correct.sum(axis=0) for s in per_case]),
            n_bootstrap=comparison.n_bootstrap,
            seed=comparison.seed,
        )
    over = [label for label, s in stats.items() if s.confidence.sum() > s.correct.sum()]
    caption = (
        f"Accuracy of the voxels of each confidence bin, mask {mask}, all cases pooled, with {intervals_over(dataset)} "
        "as error bars; a bar below the dashed diagonal is overconfident, above it underconfident. Below, the share of "
        "the voxels in each bin. The ECE written is that of the pooled voxels; tables give the mean over cases."
    )
    alt = (
        f"Reliability diagrams on the mask {mask}. Pooled ECE: {listed((k, ece(s)) for k, s in stats.items())}. "
        f"Mean confidence exceeds accuracy in {', '.join(over) or 'none of them'}."
    )
    draw = partial(draw_reliability, stats, bands=bands)
    return describe(comparison, dataset, f"reliability_{mask}", f"Reliability: {mask}", caption, alt, draw)


def _by_patient(dataset: Dataset, rows: Sequence[np.ndarray]) -> np.ndarray:
    """(n_patients, n_bins) sums over the cases of each patient; of each case where each is its own."""
    code = np.arange(len(rows)) if dataset.groups is None else np.unique(dataset.groups, return_inverse=True)[1]
    result = np.zeros((code.max() + 1, len(rows[0])))
    np.add.at(result, code, np.stack(rows))
    return result


def _differences(
    comparison: Comparison, dataset: Dataset, kind: str, columns: Sequence[str]
) -> Iterator[DescribedFigure]:
    titles, reference = comparison.columns_of(dataset), comparison.entries[0].label
    found = {(row.column, row.trainer): row for row in comparison.tests(dataset)}
    others = [name for name in comparison.ranked if name != comparison.names[0]]
    rows, sentences = [], []
    for column_id in columns:
        column = titles[column_id]
        shown = [found[column_id, name] for name in others]
        for row in shown:
            difference = Interval(row.difference, row.low, row.high, row.n_patients)
            label = comparison.labels[row.trainer]
            rows.append(ForestRow(label, column.title, difference, column.better, row.p_holm))
        clear = [
            f"{comparison.labels[row.trainer]} {row.verdict} by {abs(row.difference):.3g}"
            for row in shown
            if row.verdict in ("better", "worse")
        ]
        otherwise = "not tested" if all(row.verdict == "untested" for row in shown) else "no difference shown"
        sentences.append(f"{column.unitless_title}: {', '.join(clear) or otherwise}")
    if all(row.lacks == "value" for row in rows):
        return
    caption = (
        f"Mean difference to {reference} over the cases in which both have a value, with {intervals_over(dataset)}. p: "
        "Wilcoxon's signed-rank test with Holm's correction over all methods and metrics of the same table; the "
        "colours follow the intervals, which are not corrected for their number. One training per fold stands for each "
        "method: what varies between trainings is not in the intervals."
    )
    alt = f"Paired differences to {reference}, with p (Holm) below 0.05. {'; '.join(sentences)}."
    draw = partial(draw_differences, rows, reference=reference)
    title = f"Differences to {reference}"
    yield describe(comparison, dataset, kind, title, caption, alt, draw, intervals=True)


def _scatter(comparison: Comparison, dataset: Dataset) -> DescribedFigure:
    titles = comparison.columns_of(dataset)

    def mean(column_id: str, name: str) -> Interval:
        return comparison.means[dataset.name, column_id, name]

    panels = {
        titles[column_id].title: {
            entry.label: (mean("Dice", entry.name), mean(column_id, entry.name)) for entry in comparison.entries
        }
        for column_id in _SCATTER
    }
    caption = (
        "Discrimination against calibration (mean over cases): right and low is better. Left to right and down: ECE "
        f"and CECE on the foreground and on the union of truth and prediction. Bars: {intervals_over(dataset)}."
    )
    alt = "; ".join(
        f"{comparison.labels[name]}: DSC {number(mean('Dice', name).mean)}, "
        + ", ".join(f"{titles[c].title} {number(mean(c, name).mean)}" for c in _SCATTER)
        for name in comparison.names
    )
    draw = partial(draw_scatter, panels)
    title = "Discrimination and calibration"
    return describe(comparison, dataset, "scatter", title, caption, f"{alt}.", draw, intervals=True)


def _relative(comparison: Comparison, dataset: Dataset, pair_of: tuple[str, str]) -> DescribedFigure:
    first, second = (comparison.labels[name] for name in pair_of)
    draws: dict[str, Any] = {"n_bootstrap": comparison.n_bootstrap, "seed": comparison.seed}
    differences, better = {}, {}
    for column_id in _RELATIVE:
        column, values = comparison.columns_of(dataset)[column_id], comparison.values[dataset.name][column_id]
        found = relative_difference(*(values[name] for name in pair_of), **draws, groups=dataset.groups)
        differences[column.unitless_title], better[column.unitless_title] = found, column.better
    caption = (
        f"Mean over cases of {second} against that of {first}, in percent of the latter: "
        f"100 ({second} / {first} - 1), over the cases in which both have a value. Bars: {intervals_over(dataset)}."
    )
    alt = f"{second} against {first}, in percent: {listed(((k, one.mean) for k, one in differences.items()), 1)}."
    draw = partial(draw_relative_difference, differences, better=better, first=first, second=second)
    title = f"{second} against {first}"
    return describe(comparison, dataset, "relative_difference", title, caption, alt, draw, intervals=True)


def _radar(comparison: Comparison, metric: str) -> DescribedFigure:
    spokes = _spokes(comparison, metric)
    axes = [name for name, _, _ in spokes]
    values = {
        entry.label: [comparison.mean(dataset, column_id, entry.name) for _, dataset, column_id in spokes]
        for entry in comparison.entries
    }
    better, short = comparison.columns[spokes[0][2]].better, "DSC" if metric == "Dice" else "ECE"
    kind = "data set" if len(comparison.datasets) >= 3 else "structure" if metric == "Dice" else "mask"
    alt = "; ".join(f"{label}: {listed(zip(axes, found))}" for label, found in values.items())
    caption = f"{short} of each method (mean over cases), outward is better. One axis per {kind}."
    # axes of different difficulty each get their own range; the structures of one data set are comparable
    scale = "common" if metric == "Dice" and len(comparison.datasets) == 1 else "axis"
    draw = partial(draw_radar, axes, values, better=better, metric=short, scale=scale)
    return describe(
        comparison, None, f"radar_{metric.lower()}", f"{short} by {kind}", caption, f"{short}. {alt}.", draw
    )


def _spokes(comparison: Comparison, metric: str) -> list[tuple[str, Dataset, str]]:
    """Name, data set and column of each axis: data sets where there are three, else structures or masks of each."""
    datasets = comparison.datasets
    if len(datasets) >= 3:
        column_id = "Dice" if metric == "Dice" else "ECE:foreground"
        return [(dataset.name, dataset, column_id) for dataset in datasets]
    result = []
    for dataset in datasets:
        prefix = f"{dataset.name} " if len(datasets) > 1 else ""
        if metric == "ECE":
            result += [(f"{prefix}{mask}", dataset, f"ECE:{mask}") for mask in MASKS]
        else:
            result += [(f"{prefix}{name}", dataset, f"Dice:{key}") for key, name in dataset.structures.items()]
            if len(dataset.structures) > 1:
                result.append((f"{prefix}mean", dataset, "Dice"))
    return result


def _rank_heatmaps(comparison: Comparison) -> Iterator[DescribedFigure]:
    keys = (*RANK_METRICS, "total")
    shown = [*(comparison.columns[key].short for key in RANK_METRICS), "total"]
    rows = [comparison.labels[name] for name in comparison.ranked]
    sums = comparison.ranks["sum"]
    means = {
        name: {k: interval.mean for k, interval in found.items()} for name, found in comparison.ranks["mean"].items()
    }
    for figure_id, title, what, ranks, decimals, caption in (
        (
            *("rank_sum", "Sum of ranks", "sum of ranks", sums, 0),
            "Sum over data sets of the rank of each method's mean; ties take the lowest rank. ECE and CECE on the "
            "foreground. 1 per data set is the best; the lowest of each column is framed.",
        ),
        (
            *("rank_mean", "Mean rank within a case", "mean rank", means, 2),
            "Mean over cases of the rank of each method within the case; ties take the mean of their ranks. ECE and "
            "CECE on the foreground; total: mean of the four. 1 is the best; the lowest of each column is framed. "
            "Intervals stand in the table of case ranks.",
        ),
    ):
        values = np.array([[ranks[name][key] for key in keys] for name in comparison.ranked])
        draw = partial(draw_rank_heatmap, rows, shown, values, decimals=decimals, what=what)
        alt = "; ".join(f"{label}: {listed(zip(shown, row), decimals)}" for label, row in zip(rows, values))
        yield describe(comparison, None, figure_id, title, caption, f"{title}. {alt}.", draw)
