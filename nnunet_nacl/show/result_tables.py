"""The tables of a comparison: what stands in each cell, which cells are best and second, and the captions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, fields

from nnunet_nacl.comparison.alignment import Dataset, some
from nnunet_nacl.comparison.columns import CHOSEN, RANK_METRICS
from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.comparison.statistics import PairedDifference
from nnunet_nacl.documents.results import MASK_NOTES, MASKS
from nnunet_nacl.show.table_formats import Cell, Table, mark, number

__all__ = ["make_tables"]

_HAUSDORFF = {"pooled": "both directions pooled", "max": "the larger of the two directions"}
_BOTH_WAYS = "Higher DSC is better, lower of all else."
_MARKS = "Best bold, second underlined."


def make_tables(comparison: Comparison) -> list[Table]:
    """All tables. With several data sets each has its own, named after it, and one overview is added."""
    several = len(comparison.datasets) > 1
    tables = [_overview(comparison)] if several else []
    for dataset in comparison.datasets:
        suffix = f"_{dataset.name}" if several else ""
        for make in (_discrimination, _calibration, _masks, _statistics):
            tables.append(make(comparison, dataset, suffix))
    return [*tables, _sum_ranks(comparison), _case_ranks(comparison)]


def _columns_of_marks(
    comparison: Comparison, dataset: Dataset, column_ids: Sequence[str], decimals: int | None = None
) -> list[list[Cell]]:
    """One list of cells per column, the methods in order."""
    result = []
    for column_id in column_ids:
        values = [comparison.mean(dataset, column_id, name) for name in comparison.names]
        texts = [number(value, decimals or _decimals(column_id)) for value in values]
        result.append(mark(values, texts, comparison.columns[column_id].better))
    return result


def _decimals(column_id: str) -> int:
    return 2 if column_id.startswith("HD95") else 3


def _rows(comparison: Comparison, columns: Sequence[Sequence[Cell]]) -> list[list[Cell | str]]:
    return [[entry.label, *(cells[i] for cells in columns)] for i, entry in enumerate(comparison.entries)]


def _discrimination(comparison: Comparison, dataset: Dataset, suffix: str) -> Table:
    ids, header, titles = [], ["method"], comparison.columns_of(dataset)
    for metric in ("Dice", "HD95_mm"):
        keys = list(dataset.structures) if len(dataset.structures) > 1 else []
        ids += [f"{metric}:{key}" for key in keys] + [metric]
        header += [titles[f"{metric}:{key}"].title for key in keys]
        header.append(titles[metric].title.replace(titles[metric].short, f"{titles[metric].short} mean"))
    cells = _columns_of_marks(comparison, dataset, ids)
    caption = (
        f"Discrimination on {dataset.where}: mean over cases of the Dice coefficient (DSC) and the 95th percentile "
        f"of the surface distances (HD95, mm, {_HAUSDORFF[dataset.settings.hausdorff]}); the mean columns average the "
        f"structures' means. {_BOTH_WAYS} {_MARKS}{_undefined(comparison, dataset, ids)}{_not_averaged(comparison)}"
    )
    return Table(f"discrimination{suffix}", "Discrimination", caption, header, _rows(comparison, cells), dataset.name)


def _calibration(comparison: Comparison, dataset: Dataset, suffix: str) -> Table:
    ids, header = ["ECE:foreground", "CECE_mean:foreground"], ["method", "ECE foreground", "CECE foreground"]
    chosen, told = f"{CHOSEN}:predicted", ""
    if any(not math.isnan(comparison.mean(dataset, chosen, name)) for name in comparison.names):
        ids, header = [*ids, chosen], [*header, comparison.columns[chosen].title]
        told = "The chosen label is the segmentation's, measured where that is not background. "
    cells = _columns_of_marks(comparison, dataset, ids)
    bins = dataset.settings.n_bins
    classes = len(dataset.structures) + (0 if dataset.regions else 1)
    what = "regions" if dataset.regions else "classes, background included"
    caption = (
        f"Calibration on {dataset.where}: mean over cases of ECE and CECE ({bins} bins) on the foreground, the voxels "
        f"whose ground truth is not background. CECE is the mean over {classes} {what}; the paper's formula sums them. "
        f"{told}Lower is better. {_MARKS}{_undefined(comparison, dataset, ids)}"
    )
    return Table(f"calibration{suffix}", "Calibration", caption, header, _rows(comparison, cells), dataset.name)


def _masks(comparison: Comparison, dataset: Dataset, suffix: str) -> Table:
    metrics = ("ECE", "CECE_mean", "NLL", "Brier")
    rows: list[list[Cell | str]] = []
    for mask in MASKS:
        ids = [f"{metric}:{mask}" for metric in metrics]
        cells = _columns_of_marks(comparison, dataset, ids, decimals=4)
        rows += [[mask, *row] for row in _rows(comparison, cells)]
    settings = vars(dataset.settings)
    masks = "; ".join(f"{mask}: {MASK_NOTES[mask].format(**settings)}" for mask in MASKS)
    all_ids = [f"{metric}:{mask}" for metric in metrics[:1] for mask in MASKS]
    caption = (
        f"Calibration by mask on {dataset.where}: mean over cases of ECE, CECE (mean over "
        f"{'regions' if dataset.regions else 'classes'}), negative log likelihood (nats) and Brier score, "
        f"{dataset.settings.n_bins} bins. Masks: {masks}. Lower is better. Best of each mask bold, second underlined."
        f"{_undefined(comparison, dataset, all_ids)}"
    )
    header = ["mask", "method", *(comparison.columns[f"{metric}:foreground"].short for metric in metrics)]
    return Table(f"calibration_masks{suffix}", "Calibration by mask", caption, header, rows, dataset.name)


def _statistics(comparison: Comparison, dataset: Dataset, suffix: str) -> Table:
    titles = comparison.columns_of(dataset)
    found = [row for row in comparison.statistics if row.dataset == dataset.name]
    reference = comparison.entries[0]
    rows: list[list[Cell | str]] = []
    for row in found:
        paired, names = row.paired, [titles[row.column].title, comparison.labels[row.trainer]]
        difference, low, high = (
            _signed(value, _decimals(row.column)) for value in (paired.difference, paired.low, paired.high)
        )
        size, p_values = Cell(str(paired.n), paired.n), [Cell(_p(p), p) for p in (paired.p, row.p_holm)]
        verdict = {"none": "", "untested": "not tested"}.get(row.verdict, row.verdict)
        rows.append([*names, size, Cell(difference, paired.difference), f"[{low}, {high}]", *p_values, verdict])
    sizes = ", ".join(f"{family} {n}" for family, n in Counter(row.family for row in found).items())
    powerless = ", ".join(comparison.powerless(dataset))
    few = f"Too few cases for p (Holm) below 0.05, however clear the difference: {powerless}. " if powerless else ""
    several = len(dataset.structures) > 1
    distances = "HD95 of a case: mean over the structures that have a distance for all methods. " * several
    caption = (
        f"Differences to {reference.label} on {dataset.where}: mean over the n cases in which both have a value, "
        f"with the 95 % percentile bootstrap interval over cases ({comparison.n_bootstrap:,} draws, seed "
        f"{comparison.seed}). p: Wilcoxon signed-rank test, two-sided, cases of equal value dropped. p (Holm): "
        f"corrected over all methods and metrics of one table, CECE on the foreground only (tests: {sizes}). better, "
        "worse: p (Holm) below 0.05; mixed: then the mean points the other way than most cases. "
        f"{few}{distances}One training per fold stands for each method: "
        "what another training would give is not in these intervals."
    )
    header = ["metric", "method", "n", "difference", "95 % interval", "p", "p (Holm)", "verdict"]
    keys = ["dataset", "column", "family", "trainer", "reference"]
    full = [[*(getattr(row, key) for key in keys), *astuple(row.paired), row.p_holm, row.verdict] for row in found]
    title = f"Differences to {reference.label}"
    csv = ([*keys, *(field.name for field in fields(PairedDifference)), "p_holm", "verdict"], full)
    return Table(f"statistics{suffix}", title, caption, header, rows, dataset.name, csv)


def _sum_ranks(comparison: Comparison) -> Table:
    keys, shown = _rank_keys(comparison)
    sums, n_datasets = comparison.ranks["sum"], len(comparison.datasets)
    columns = []
    for key in keys:
        values = [sums[name][key] for name in comparison.names]
        values = [int(value) if value.is_integer() else value for value in values]
        columns.append(mark(values, [number(value, 0) for value in values], "lower"))
    caption = (
        f"Sum ranks of {len(comparison.names)} methods (1 is the best): rank of the mean of each data set, ties taking "
        f"the lowest, summed over {n_datasets} data {'set' if n_datasets == 1 else 'sets'}; total: over the metrics "
        "too. ECE and CECE on the foreground. Lower is better. Best bold, second underlined."
        f"{_not_averaged(comparison)}{_unranked(comparison)}"
    )
    return Table("ranks", "Sum ranks", caption, ["method", *shown], _rows(comparison, columns))


def _case_ranks(comparison: Comparison) -> Table:
    keys, shown = _rank_keys(comparison)
    means = comparison.ranks["mean"]
    columns = []
    for key in keys:
        found = [means[name][key] for name in comparison.names]
        cells = mark([m.mean for m in found], [number(m.mean, 2) for m in found], "lower")
        columns.append(
            [
                Cell(f"{cell.text} [{number(m.low, 2)}, {number(m.high, 2)}]", cell.value, cell.best, cell.second)
                for cell, m in zip(cells, found)
            ]
        )
    sizes = ", ".join(f"{name} {means[comparison.names[0]][key].n}" for name, key in zip(shown, keys))
    caption = (
        f"Case ranks of {len(comparison.names)} methods (1 is the best): rank within each case, ties averaged, mean "
        f"over the cases in which all methods have a value ({sizes}), with 95 % bootstrap intervals over cases; "
        "total: mean of the metrics' ranks. ECE and CECE on the foreground. Lower is better. Best bold, second "
        "underlined."
    )
    csv_header = ["method", "trainer", *(f"{key} {what}" for key in keys for what in ("mean", "low", "high", "n"))]
    csv_rows = [
        [comparison.labels[name], name, *(v for key in keys for v in astuple(means[name][key]))]
        for name in comparison.names
    ]
    rows = _rows(comparison, columns)
    return Table("case_ranks", "Case ranks", caption, ["method", *shown], rows, csv=(csv_header, csv_rows))


def _rank_keys(comparison: Comparison) -> tuple[list[str], list[str]]:
    return [*RANK_METRICS, "total"], [*(comparison.columns[metric].short for metric in RANK_METRICS), "total"]


def _overview(comparison: Comparison) -> Table:
    header, cells = ["method"], []
    for metric in RANK_METRICS:
        for dataset in comparison.datasets:
            header.append(f"{comparison.columns[metric].title} {dataset.name}")
            cells += _columns_of_marks(comparison, dataset, [metric])
    sizes = "; ".join(dataset.where for dataset in comparison.datasets)
    caption = (
        f"All data sets: {sizes}. Mean over cases; DSC and HD95 (mm) averaged over structures. {_BOTH_WAYS} "
        f"ECE and CECE on the foreground. {_MARKS}{_not_averaged(comparison)}"
    )
    return Table("overview", "All data sets", caption, header, _rows(comparison, cells))


def _undefined(comparison: Comparison, dataset: Dataset, column_ids: Sequence[str]) -> str:
    """Names the cases that have no value: they are left out of a mean."""
    titles = comparison.columns_of(dataset)
    parts = []
    for column_id in column_ids:
        if column_id in ("Dice", "HD95_mm") and len(dataset.structures) > 1:
            continue  # the structures' columns tell it
        for name, values in comparison.values[dataset.name][column_id].items():
            missing = [case for case, value in zip(dataset.cases, values) if math.isnan(value)]
            if missing:
                parts.append(f"{titles[column_id].title}, {comparison.labels[name]}: {len(missing)} ({some(missing)})")
    return f" Undefined and left out of the means: {'; '.join(parts)}." if parts else ""


def _not_averaged(comparison: Comparison) -> str:
    """Names the structures that are in no mean over structures."""
    parts = []
    for dataset in comparison.datasets:
        titles, several = comparison.columns_of(dataset), len(comparison.datasets) > 1
        for metric in ("Dice", "HD95_mm"):
            kept = comparison.averaged(dataset, metric)
            parts += [
                titles[f"{metric}:{key}"].title + f" of {dataset.name}" * several
                for key in dataset.structures
                if key not in kept
            ]
    return f" Without a value for some method, so in no mean over structures: {', '.join(parts)}." if parts else ""


def _unranked(comparison: Comparison) -> str:
    """Names what has no ranks since some method has no mean."""
    parts = [
        f"{comparison.columns[metric].short} of {dataset.name}"
        for metric in RANK_METRICS
        for dataset in comparison.datasets
        if any(math.isnan(comparison.mean(dataset, metric, name)) for name in comparison.names)
    ]
    return f" Without a mean for some method, so not ranked: {', '.join(parts)}." if parts else ""


def _signed(value: float, decimals: int) -> str:
    if math.isnan(value):
        return "-"
    text = f"{value:+.{decimals}f}"
    return text if float(text) else text[1:]


def _p(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
