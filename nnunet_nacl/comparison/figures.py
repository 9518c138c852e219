"""The figures of a comparison: which there are, with titles, captions and alternative texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import pandas as pd
from typing_extensions import Unpack

from nnunet_nacl.cases.case import TRUTH_MASKS
from nnunet_nacl.cases.ownership import OwnedFiles
from nnunet_nacl.comparison.comparison import LEADING, LEADING_COLUMNS, Comparison, Estimates
from nnunet_nacl.comparison.comparison_report import ReportedFigure, TestedDifference
from nnunet_nacl.comparison.differences_figure import draw_differences
from nnunet_nacl.comparison.file_names import (
    DIFFERENCES,
    RELIABILITY_MASKS,
    files_of_figure,
    kind_of_predicted_dice,
    kind_of_reliability,
    template_of_names,
)
from nnunet_nacl.comparison.headline import outcome_of
from nnunet_nacl.comparison.methods import ComparedMethod
from nnunet_nacl.comparison.predicted_dice_figure import LEVEL, covered_text, draw_predicted_dice
from nnunet_nacl.comparison.reliability_figure import draw_reliability
from nnunet_nacl.estimators.learned_quality import PREDICTED_DICE_LOW
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.calibration_error import ece
from nnunet_nacl.metrics.statistics import bin_accuracy_bands
from nnunet_nacl.utilities import layout
from nnunet_nacl.utilities.tables import number

SHOWN_DIFFERENCES = (*LEADING_COLUMNS, "ECE:predicted")
"""Columns whose differences are drawn; none on a mask that is chosen with the truth."""


class _Draw(Protocol):
    """Draws a figure into a file, with what stands around its panels; its path."""

    def __call__(self, path: Path, **frame: Unpack[layout.Frame]) -> Path: ...


@dataclass(frozen=True)
class _Figure:
    """A figure of one comparison.

    Attributes:
        kind: What the name of its files begins with.
        title: Its heading.
        caption: What it shows.
        alt: The numbers, for whoever cannot see it.
        draw: Draws it.
    """

    kind: str
    title: str
    caption: str
    alt: str
    draw: _Draw


def write_figures(comparisons: Sequence[Comparison], owned: OwnedFiles) -> list[ReportedFigure]:
    """Write ``figures/<id>.png`` and ``.svg`` of each, with all notes at its foot.

    Returns:
        What comparison.json says of them.

    Raises:
        UserError: A file cannot be written.
    """
    from tqdm import tqdm

    notes = [note for comparison in comparisons for note in comparison.notes]
    figures = []
    for comparison in comparisons:
        figures += [(comparison, figure) for figure in _figures_of(comparison)]
    written = []
    for comparison, figure in tqdm(figures, desc="drawing figures", leave=False):
        figure_id = template_of_names(comparisons).format(kind=figure.kind, name=comparison.name)
        files = files_of_figure(figure_id)
        with owned.staging(files[0]) as folder:
            figure.draw(
                folder / Path(files[0]).name,
                title=figure.title,
                subtitle=comparison.where,
                notes=notes,
                also=(".svg",),
            )
        entry = ReportedFigure(
            id=figure_id,
            dataset=comparison.name,
            title=figure.title,
            caption=figure.caption,
            alt=figure.alt,
            files=files,
        )
        written.append(entry)
    return written


def _figures_of(comparison: Comparison) -> Iterator[_Figure]:
    """The figures in the order in which they are read."""
    if not comparison.statistics["difference"].isna().all():
        yield _describe_differences(comparison)
    for mask in RELIABILITY_MASKS:
        yield _describe_reliability(comparison, mask)
    for method_number, method in enumerate(comparison.methods, 1):
        estimates = comparison.estimates.get(method.name)
        if estimates is not None and PREDICTED_DICE_LOW in estimates.table:
            kind = kind_of_predicted_dice(method_number)
            yield _describe_predicted_dice(kind, method, estimates, comparison)


def _describe_predicted_dice(
    kind: str, method: ComparedMethod, estimates: Estimates, comparison: Comparison
) -> _Figure:
    rows = estimates.table
    structures = comparison.structures
    covered = [f"{name} {covered_text(rows[rows.key == key])}" for key, name in structures.items()]
    caption = (
        f"A case on the dashed line was predicted right; bars are {LEVEL} intervals,"
        " learned from other cases, and squares are cases outside theirs."
    )
    for caveat in estimates.caveats:
        caption += f" {caveat[:1].upper()}{caveat[1:]}"
    return _Figure(
        kind=kind,
        title=f"Predicted Dice: {method.label}",
        caption=caption,
        alt=(
            f"Predicted against true Dice of {method.label}. Within their {LEVEL} interval:"
            f" {', '.join(covered)}."
        ),
        draw=partial(draw_predicted_dice, rows, structures),
    )


def _describe_reliability(comparison: Comparison, mask: str) -> _Figure:
    stats = {}
    bands = {}
    for name, label in comparison.labels.items():
        bins_of_cases = [record.bins[mask] for record in comparison.records[name]]
        stats[label] = BinStats.merge(bins_of_cases)
        bands[label] = _accuracy_bands(comparison, bins_of_cases)
    pooled = ", ".join(f"{label} {number(ece(bins))}" for label, bins in stats.items())
    by_truth = ""
    if mask in TRUTH_MASKS:
        by_truth = (
            " The mask is chosen with the truth: even perfect calibration leaves a gap there."
        )
    return _Figure(
        kind=kind_of_reliability(mask),
        title=f"Reliability: {mask}",
        caption=(
            "A bar of accuracy below the dashed diagonal means too much confidence, one above it"
            f" too little (mask {mask}, all voxels pooled; error bars: 95 % bootstrap intervals"
            f" over {comparison.unit}; below, the share of the voxels).{by_truth}"
        ),
        alt=f"Reliability diagrams on the mask {mask}. Pooled ECE: {pooled}.",
        draw=partial(draw_reliability, stats, bands=bands),
    )


def _accuracy_bands(
    comparison: Comparison, bins_of_cases: Sequence[BinStats]
) -> tuple[np.ndarray, np.ndarray]:
    """(n_bins,) low and high ends of the interval of each bin's accuracy over patients."""
    patients = list(comparison.groups or comparison.cases)
    count = np.stack([bins.count.sum(axis=0) for bins in bins_of_cases])
    correct = np.stack([bins.correct.sum(axis=0) for bins in bins_of_cases])
    return bin_accuracy_bands(
        pd.DataFrame(count).groupby(patients).sum().to_numpy(),
        pd.DataFrame(correct).groupby(patients).sum().to_numpy(),
        n_bootstrap=comparison.options.n_bootstrap,
        seed=comparison.options.seed,
    )


def _describe_differences(comparison: Comparison) -> _Figure:
    reference = comparison.methods[0].label
    titles = {}
    better = {}
    for column_id in SHOWN_DIFFERENCES:
        column = comparison.columns[column_id]
        is_leading = column.family == LEADING
        titles[column_id] = column.title if is_leading else f"{column.title} (exploratory)"
        better[titles[column_id]] = column.better
    tests = comparison.statistics
    rows = pd.concat([tests[tests["column"] == column_id] for column_id in titles])
    rows = rows.assign(
        label=rows["trainer"].map(comparison.labels),
        outcome=[
            outcome_of(test) for test in cast(list[TestedDifference], rows.to_dict("records"))
        ],
        title=rows["column"].map(titles),
    )
    return _Figure(
        kind=DIFFERENCES,
        title=f"Differences to {reference}",
        caption=(
            f"A point is the mean difference to {reference} with its 95 % bootstrap interval over"
            f" {comparison.unit}, and has a colour only where its own test shows a difference"
            " (sign-flip permutation test of this mean, p below 0.05 after Holm's correction)."
        ),
        alt=_differences_in_words(rows, reference),
        draw=partial(
            draw_differences,
            rows,
            reference=reference,
            better=better,
        ),
    )


def _differences_in_words(rows: pd.DataFrame, reference: str) -> str:
    """What the tests show, in a sentence.

    Args:
        rows: A row for each test, with the ``title`` of the metric, the ``label`` of the method and
            the ``verdict``.
        reference: Label of the first method.
    """
    clear = rows[rows["verdict"].isin(["better", "worse"])]
    parts = []
    for (title, verdict), labels in clear.groupby(["title", "verdict"], sort=False)["label"]:
        parts.append(f"{title} is {verdict} with {' and '.join(labels)}")
    if parts:
        return f"By tests against {reference}: {'; '.join(parts)}."
    if rows["verdict"].isin(["untested", "equal"]).all():
        return f"No test was made ({reference} is the reference)."
    return f"No test shows a difference ({reference} is the reference)."
