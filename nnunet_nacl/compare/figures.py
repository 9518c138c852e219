"""The figures of a comparison with their words: which there are, what they show, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from nnunet_nacl.compare.alignment import Dataset
from nnunet_nacl.compare.columns import MAIN_COLUMNS
from nnunet_nacl.compare.comparison import Comparison
from nnunet_nacl.compare.comparison_file import FIGURES
from nnunet_nacl.compare.forest_plot import draw_differences
from nnunet_nacl.errors import UserError
from nnunet_nacl.numbers.binning import BinStats
from nnunet_nacl.numbers.calibration_error import ece
from nnunet_nacl.numbers.learned_quality import DEFAULT_ALPHA, DICE
from nnunet_nacl.numbers.statistics import bin_accuracy_bands
from nnunet_nacl.show.reliability import count_covered, draw_predicted_dice, draw_reliability
from nnunet_nacl.show.tables import number

MAIN_DIFFERENCES, PREDICTED_DICE = "main_differences", "predicted_dice"
"""How the ids of figures begin: of that which the page opens with, and of predicted Dice."""
_DIFFERENCES = {
    MAIN_DIFFERENCES: ("ECE:predicted", "Dice"),
    "differences": (*MAIN_COLUMNS, "ECE:predicted", "NLL:near"),
}


class DescribedFigure(NamedTuple):
    """A figure before it is drawn.

    Attributes:
        kind: How its files are called; of several data sets with the data set's name behind.
        title: Heading.
        caption: What it shows and how it is read.
        alt: Its numbers in one or two sentences, for whoever cannot see it.
        draw: Function of a path and :class:`~nnunet_nacl.show.layout.Frame`.
    """

    kind: str
    title: str
    caption: str
    alt: str
    draw: Callable[..., Path]


def write_figures(
    comparison: Comparison,
    quality: Mapping[str, Mapping[str, pd.DataFrame]],
    folder: Path,
    *,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Write ``figures/<id>.png`` and ``.svg`` of each, with the comparison's notes at its foot.

    Args:
        comparison: What was computed.
        quality: By data set and name of an entry; methods with intervals of predicted Dice have a figure of it.
        folder: Output folder of the comparison.
        progress: Show a progress bar on stderr.

    Returns:
        One entry of comparison.json per figure: ``id``, ``dataset``, ``title``, ``caption``, ``alt``, ``files``.

    Raises:
        UserError: A file cannot be written.
    """
    from tqdm import tqdm

    (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    figures = [(data, f) for data in comparison.datasets for f in figures_of(comparison, data, quality[data.name])]
    entries = []
    for dataset, figure in tqdm(figures, desc="figures", disable=not progress, leave=False):
        name = comparison.id_of(figure.kind, dataset)
        files = [f"{FIGURES}/{name}.{ending}" for ending in ("png", "svg")]
        frame = {"title": figure.title, "subtitle": dataset.where, "notes": comparison.notes, "also": (".svg",)}
        try:
            figure.draw(folder / files[0], **frame)
        except UserError as error:
            raise UserError(f"{error} Then run the same command again: what was measured is kept.") from None
        words = {key: getattr(figure, key) for key in ("title", "caption", "alt")}
        entries.append({"id": name, "dataset": dataset.name, **words, "files": files})
    return entries


def figures_of(
    comparison: Comparison, dataset: Dataset, quality: Mapping[str, pd.DataFrame]
) -> Iterator[DescribedFigure]:
    """The figures of a data set in the order in which they are read."""
    yield from _differences(comparison, dataset, MAIN_DIFFERENCES)
    for mask in ("foreground", "predicted", "all"):
        yield _reliability(comparison, dataset, mask)
    yield from _differences(comparison, dataset, "differences")
    for i, entry in enumerate(comparison.entries, 1):
        if entry.name in quality and DICE[1] in quality[entry.name]:
            yield _predicted_dice(f"{PREDICTED_DICE}_{i}", entry.label, dataset.structures, quality[entry.name])


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
    caption = (
        f"Accuracy of the voxels of each confidence bin, mask {mask}, all cases pooled, with {dataset.intervals} "
        "as error bars; a bar below the dashed diagonal is overconfident, above it underconfident. Below, the share of "
        "the voxels in each bin. The ECE written is that of the pooled voxels; tables give the mean over cases."
    )
    pooled = ", ".join(f"{label} {number(ece(s))}" for label, s in stats.items())
    alt = f"Reliability diagrams on the mask {mask}. Pooled ECE: {pooled}."
    draw = partial(draw_reliability, stats, bands=bands)
    return DescribedFigure(f"reliability_{mask}", f"Reliability: {mask}", caption, alt, draw)


def _by_patient(dataset: Dataset, rows: Sequence[np.ndarray]) -> np.ndarray:
    """(n_patients, n_bins) sums over the cases of each patient; of each case where each is its own."""
    return pd.DataFrame(np.stack(rows)).groupby(list(dataset.groups or dataset.cases)).sum().to_numpy()


def _differences(comparison: Comparison, dataset: Dataset, kind: str) -> Iterator[DescribedFigure]:
    columns, reference, chosen = comparison.columns_of(dataset), comparison.entries[0].label, _DIFFERENCES[kind]
    tests = comparison.tests(dataset)
    rows = pd.concat([tests[tests["column"] == key] for key in chosen])
    rows = rows.assign(
        label=rows["trainer"].map(comparison.labels), title=[columns[key].title for key in rows["column"]]
    )
    if rows["difference"].isna().all():
        return
    clear = [
        f"{row.title}: {row.label} {row.verdict} by {abs(row.difference):.3g}"
        for row in rows.itertuples()
        if row.verdict in ("better", "worse")
    ]
    caption = (
        f"Mean difference to {reference} over the cases in which both have a value, with {dataset.intervals}. p: "
        "Wilcoxon's signed-rank test with Holm's correction over all methods and metrics of the same table; intervals "
        "are not corrected. One training per fold stands for each method: what varies between trainings is not in them."
    )
    alt = f"Paired differences to {reference}; p (Holm) below 0.05: {'; '.join(clear) or 'none'}."
    better = {columns[key].title: columns[key].better for key in chosen}
    draw = partial(draw_differences, rows, reference=reference, better=better)
    yield DescribedFigure(kind, f"Differences to {reference}", caption, alt, draw)


def _predicted_dice(kind: str, label: str, names: Mapping[str, str], table: pd.DataFrame) -> DescribedFigure:
    level = f"{100 * (1 - DEFAULT_ALPHA):g} %"
    caption = (
        f"Dice predicted from the probabilities against the true Dice; bars: {level} intervals, by what other cases "
        "taught. A case outside its interval has a marker of its own."
        + "".join(f" {text[:1].upper()}{text[1:]}." for text in table.attrs.get("notes", ()))
    )
    inside = ", ".join("{} {} of {} cases".format(name, *count_covered(table, key)) for key, name in names.items())
    alt = f"Predicted against true Dice of {label}. Within their {level} interval: {inside}."
    draw = partial(draw_predicted_dice, table, names)
    return DescribedFigure(kind, f"Predicted Dice: {label}", caption, alt, draw)
