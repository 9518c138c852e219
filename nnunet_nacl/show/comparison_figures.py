"""The figures of a comparison with their words: which there are, what they show, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nnunet_nacl.calibration.quality_report import QualityRows
from nnunet_nacl.comparison.alignment import Dataset
from nnunet_nacl.comparison.columns import MAIN_COLUMNS
from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.documents.comparison_file import FIGURES
from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.bootstrap import Interval, bin_accuracy_bands
from nnunet_nacl.metrics.calibration_error import ece
from nnunet_nacl.show.case_tables import MAIN_DIFFERENCES, PREDICTED_DICE
from nnunet_nacl.show.forest_plot import ForestRow, draw_differences
from nnunet_nacl.show.reliability import count_covered, draw_predicted_dice, draw_reliability

_RELIABILITY = ("foreground", "predicted", "all")
_DIFFERENCES = {
    MAIN_DIFFERENCES: ("ECE:predicted", "Dice"),
    "differences": (*MAIN_COLUMNS, "ECE:predicted", "NLL:near"),
}


@dataclass(frozen=True)
class DescribedFigure:
    """A figure before it is drawn.

    Attributes:
        id: Name of its files.
        dataset: Name of the data set.
        title: Heading.
        subtitle: Second line of the figure: data, number of cases, what the intervals are.
        caption: What it shows and how it is read.
        alt: Its numbers in one or two sentences, for whoever cannot see it.
        draw: Function of a path and :class:`~nnunet_nacl.show.layout.Frame`.
    """

    id: str
    dataset: str
    title: str
    subtitle: str
    caption: str
    alt: str
    draw: Callable[..., Path]


def comparison_figures(
    comparison: Comparison, quality: Mapping[str, Mapping[str, QualityRows]]
) -> Iterator[DescribedFigure]:
    """The figures of each data set in the order in which they are read.

    Args:
        comparison: What was computed.
        quality: By data set and name of an entry; methods with intervals of predicted Dice have a figure of it.
    """
    for dataset in comparison.datasets:
        yield from _differences(comparison, dataset, MAIN_DIFFERENCES)
        for mask in _RELIABILITY:
            yield _reliability(comparison, dataset, mask)
        yield from _differences(comparison, dataset, "differences")
    for dataset in comparison.datasets:
        for i, entry in enumerate(comparison.entries, 1):
            rows = quality[dataset.name].get(entry.name)
            if rows is not None and rows.has_intervals:
                yield _predicted_dice(comparison, dataset, f"{PREDICTED_DICE}_{i}", entry.label, rows)


def write_figures(
    figures: Sequence[DescribedFigure], folder: Path, notes: Sequence[str] = (), *, progress: bool = False
) -> list[dict[str, Any]]:
    """Write ``figures/<id>.png`` and ``.svg`` of each.

    Args:
        figures: What is drawn.
        folder: Output folder of the comparison.
        notes: Sentences at the foot of every figure.
        progress: Show a progress bar on stderr.

    Returns:
        One entry of comparison.json per figure: ``id``, ``dataset``, ``title``, ``caption``, ``alt``, ``files``.

    Raises:
        UserError: A file cannot be written.
    """
    from tqdm import tqdm

    (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    entries = []
    for figure in tqdm(figures, desc="figures", disable=not progress, leave=False):
        files = [f"{FIGURES}/{figure.id}.{ending}" for ending in ("png", "svg")]
        try:
            figure.draw(
                folder / files[0], title=figure.title, subtitle=figure.subtitle, notes=tuple(notes), also=(".svg",)
            )
        except UserError as error:
            raise UserError(f"{error} Then run the same command again: what was measured is kept.") from None
        words = {key: getattr(figure, key) for key in ("id", "dataset", "title", "caption", "alt")}
        entries.append(words | {"files": files})
    return entries


def _listed(values: Iterable[tuple[str, float]]) -> str:
    """``CE 0.054, NACL 0.057``; what is undefined is called so."""
    return ", ".join(f"{name} {'undefined' if math.isnan(v) else f'{v:.3f}'}" for name, v in values)


def _reliability(comparison: Comparison, dataset: Dataset, mask: str) -> DescribedFigure:
    stats, bands = {}, {}
    for entry in comparison.entries:
        per_case = [case.bins[mask] for case in dataset.results[entry.name]]
        stats[entry.label] = BinStats.merge(per_case)
        bands[entry.label] = bin_accuracy_bands(
            _by_patient(dataset, [s.count.sum(axis=0) for s in per_case]),
            _by_patient(dataset, [s.correct.sum(axis=0) for s in per_case]),
            n_bootstrap=comparison.n_bootstrap,
            seed=comparison.seed,
        )
    over = [label for label, s in stats.items() if s.confidence.sum() > s.correct.sum()]
    caption = (
        f"Accuracy of the voxels of each confidence bin, mask {mask}, all cases pooled, with {dataset.intervals} "
        "as error bars; a bar below the dashed diagonal is overconfident, above it underconfident. Below, the share of "
        "the voxels in each bin. The ECE written is that of the pooled voxels; tables give the mean over cases."
    )
    alt = (
        f"Reliability diagrams on the mask {mask}. Pooled ECE: {_listed((k, ece(s)) for k, s in stats.items())}. "
        f"Mean confidence exceeds accuracy in {', '.join(over) or 'none of them'}."
    )
    name, title = comparison.id_of(f"reliability_{mask}", dataset), f"Reliability: {mask}"
    draw = partial(draw_reliability, stats, bands=bands)
    return DescribedFigure(name, dataset.name, title, dataset.where, caption, alt, draw)


def _by_patient(dataset: Dataset, rows: Sequence[np.ndarray]) -> np.ndarray:
    """(n_patients, n_bins) sums over the cases of each patient; of each case where each is its own."""
    return pd.DataFrame(np.stack(rows)).groupby(list(dataset.groups or dataset.cases)).sum().to_numpy()


def _differences(comparison: Comparison, dataset: Dataset, kind: str) -> Iterator[DescribedFigure]:
    titles, reference = comparison.columns_of(dataset), comparison.entries[0].label
    tests = {(row.column, row.trainer): row for row in comparison.tests(dataset)}
    others = [name for name in comparison.ranked if name != comparison.names[0]]
    rows, sentences = [], []
    for column_id in _DIFFERENCES[kind]:
        column = titles[column_id]
        shown = [tests[column_id, name] for name in others]
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
        f"Mean difference to {reference} over the cases in which both have a value, with {dataset.intervals}. p: "
        "Wilcoxon's signed-rank test with Holm's correction over all methods and metrics of the same table; the "
        "colours follow the intervals, which are not corrected for their number; what is not tested is grey. "
        "One training per fold stands for each method: what varies between trainings is not in the intervals."
    )
    alt = f"Paired differences to {reference}, with p (Holm) below 0.05. {'; '.join(sentences)}."
    name, title, subtitle = comparison.id_of(kind, dataset), f"Differences to {reference}", dataset.where
    draw = partial(draw_differences, rows, reference=reference)
    yield DescribedFigure(name, dataset.name, title, f"{subtitle}; {dataset.intervals}", caption, alt, draw)


def _predicted_dice(
    comparison: Comparison, dataset: Dataset, kind: str, label: str, rows: QualityRows
) -> DescribedFigure:
    level, structures = f"{100 * rows.level:g} %", list(dataset.structures.values())
    caption = (
        f"Dice predicted from the probabilities against the true Dice; bars: {level} intervals, by what other cases "
        "taught. A case outside its interval has a marker of its own."
        + "".join(f" {text[:1].upper()}{text[1:]}." for text in rows.caveats)
    )
    counts = [(name, *count_covered(rows, i)) for i, name in enumerate(structures)]
    inside = ", ".join(f"{name} {n} of {total} cases" for name, n, total in counts)
    alt = f"Predicted against true Dice of {label}. Within their {level} interval: {inside}."
    name, draw = comparison.id_of(kind, dataset), partial(draw_predicted_dice, rows, structures)
    return DescribedFigure(name, dataset.name, f"Predicted Dice: {label}", dataset.where, caption, alt, draw)
