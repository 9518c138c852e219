"""The figures of every comparison: reliability and paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from nnunet_nacl.comparison.alignment import Dataset
from nnunet_nacl.comparison.columns import MAIN_COLUMNS
from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.bootstrap import Interval, bin_accuracy_bands
from nnunet_nacl.metrics.calibration_error import ece
from nnunet_nacl.show.figure_choice.described import DescribedFigure, describe, intervals_over, listed
from nnunet_nacl.show.forest_plot import ForestRow, draw_differences
from nnunet_nacl.show.reliability import draw_reliability

MAIN_DIFFERENCES = "main_differences"
"""How the id of the figure begins that the page opens with."""

_RELIABILITY = ("foreground", "predicted", "all")
_DIFFERENCES = (*MAIN_COLUMNS, "ECE:predicted", "NLL:dilated")


def standard_figures(comparison: Comparison) -> Iterator[DescribedFigure]:
    """The figures of each data set in the order in which they are read."""
    for dataset in comparison.datasets:
        yield from _differences(comparison, dataset, MAIN_DIFFERENCES, ("ECE:predicted", "Dice"))
        for mask in _RELIABILITY:
            yield _reliability(comparison, dataset, mask)
        yield from _differences(comparison, dataset, "differences", _DIFFERENCES)


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
