"""The tables of a comparison: what stands in each cell, which cells are best and second, and the captions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_nacl.comparison.alignment import Dataset
from nnunet_nacl.comparison.columns import CALIBRATION_METRICS, MAIN_COLUMNS
from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.documents.comparison_file import TABLES
from nnunet_nacl.documents.results import MASK_NOTES, MASKS
from nnunet_nacl.errors import some
from nnunet_nacl.files import write_atomically
from nnunet_nacl.show.text_table import NOT_TESTED, Cell, Table, csv_text, latex_text, mark, markdown_text, number
from nnunet_nacl.show.worst_structures import worst_of

_BOTH_WAYS = "Higher DSC is better, lower of all else."
_MARKS = "Best bold, second underlined."
_TEN_WORST = " The ten structures with the lowest Dice are shown, all are in the CSV."
_FORMS = {"csv": csv_text, "md": markdown_text, "tex": latex_text}


def make_tables(comparison: Comparison) -> list[Table]:
    """All tables. With several data sets each has its own, named after it, and one overview is added."""
    makers = (_discrimination, _calibration, _masks, _statistics)
    overview = [_overview(comparison)] if len(comparison.datasets) > 1 else []
    return [*overview, *(make(comparison, dataset) for dataset in comparison.datasets for make in makers)]


def write_tables(tables: Sequence[Table], folder: Path, notes: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Write ``tables/<id>.csv``, ``.md`` and ``.tex`` of each; returns the entries of comparison.json."""
    entries = []
    for table in tables:
        files = [f"{TABLES}/{table.id}.{ending}" for ending in _FORMS]
        for name, text in zip(files, _FORMS.values()):
            write_atomically(folder / name, text(table, notes))
        rows = [[vars(cell) if isinstance(cell, Cell) else cell for cell in row] for row in table.rows]
        plain = {key: getattr(table, key) for key in ("id", "dataset", "title", "caption", "columns")}
        entries.append(plain | {"rows": rows, "files": files})
    return entries


def _cells(
    comparison: Comparison, dataset: Dataset, column_ids: Sequence[str], decimals: int | None = None
) -> list[list[Cell]]:
    """One list of cells per column, the methods in order."""
    result, ranked = [], [entry.ranked for entry in comparison.entries]
    for column_id in column_ids:
        values = [comparison.mean(dataset, column_id, name) for name in comparison.names]
        texts = [number(value, decimals or _decimals(column_id)) for value in values]
        result.append(mark(values, texts, comparison.columns[column_id].better, ranked))
    return result


def _decimals(column_id: str) -> int:
    return 2 if column_id.startswith("HD95") else 3


def _rows(comparison: Comparison, columns: Sequence[Sequence[Cell]]) -> list[list[Cell | str]]:
    return [[label, *cells] for label, *cells in zip(comparison.labels.values(), *columns)]


def _discrimination(comparison: Comparison, dataset: Dataset) -> Table:
    titles, metrics = comparison.columns_of(dataset), ("Dice", "HD95_mm")
    keys = list(dataset.structures) if len(dataset.structures) > 1 else []
    ids = [column_id for metric in metrics for column_id in (*(f"{metric}:{key}" for key in keys), metric)]
    header = ["method"]
    for column_id in ids:
        full, short = titles[column_id].title, titles[column_id].short
        header.append(full.replace(short, f"{short} mean") if column_id in metrics else full)
    columns = dict(zip(ids, _cells(comparison, dataset, ids)))
    rows, csv, title = _rows(comparison, list(columns.values())), None, "Discrimination"
    shown, more = _worst(comparison, dataset)
    if more:  # a row a structure, not a column
        title = "Discrimination, the ten structures with the lowest Dice"
        values = zip(*([cell.value for cell in cells] for cells in columns.values()))
        csv = header, [[label, *row] for label, row in zip(comparison.labels.values(), values)]
        header = ["structure", "method", *(titles[metric].title for metric in metrics)]
        places = [(dataset.structures[key], f":{key}") for key in shown] + [("mean", "")]
        rows = [
            [name, *row] for name, of in places for row in _rows(comparison, [columns[each + of] for each in metrics])
        ]
        ids = [metric + of for metric in metrics for _, of in places]
    caption = (
        f"Discrimination on {dataset.where}: mean over cases of the Dice coefficient (DSC) and the 95th percentile "
        f"of the surface distances (HD95, mm, both directions pooled); the mean {'rows' if more else 'columns'} "
        f"average the structures' means. {_BOTH_WAYS} {_MARKS}{_undefined(comparison, dataset, ids)}"
        f"{_not_averaged(comparison)}{_TEN_WORST * bool(more)}"
    )
    return Table(comparison.id_of("discrimination", dataset), title, caption, header, rows, dataset.name, csv)


def _calibration(comparison: Comparison, dataset: Dataset) -> Table:
    ids, header = ["ECE:foreground", "CECE_mean:foreground"], ["method", "ECE foreground", "CECE foreground"]
    classes = len(dataset.structures) + (0 if dataset.regions else 1)
    averaged = "regions" if dataset.regions else "classes, background included"
    caption = (
        f"Calibration on {dataset.where}: mean over cases of ECE and CECE ({dataset.settings.n_bins} bins) on the "
        "foreground, the voxels whose ground truth is not background. CECE is the mean over "
        f"{classes} {averaged}; the paper's formula sums them. "
        "Confidence is the probability of the segmentation's label. Lower is better. "
        f"{_MARKS}{_undefined(comparison, dataset, ids)}"
    )
    rows = _rows(comparison, _cells(comparison, dataset, ids))
    return Table(comparison.id_of("calibration", dataset), "Calibration", caption, header, rows, dataset.name)


def _masks(comparison: Comparison, dataset: Dataset) -> Table:
    metrics = {name: metric.title for name, metric in CALIBRATION_METRICS.items() if metric.printed}
    rows: list[list[Cell | str]] = []
    for mask in MASKS:
        cells = _cells(comparison, dataset, [f"{metric}:{mask}" for metric in metrics], decimals=4)
        rows += [[mask, *row] for row in _rows(comparison, cells)]
    masks = "; ".join(f"{mask}: {MASK_NOTES[mask].format(**vars(dataset.settings))}" for mask in MASKS)
    caption = (
        f"Calibration by mask on {dataset.where}: mean over cases of {', '.join(metrics.values())} (CECE: mean over "
        f"{'regions' if dataset.regions else 'classes'}; NLL: negative log likelihood in nats), "
        f"{dataset.settings.n_bins} bins. Masks: {masks}. Lower is better. Best of each mask bold, second underlined."
        f"{_undefined(comparison, dataset, [f'ECE:{mask}' for mask in MASKS])}"
    )
    header = ["mask", "method", *metrics.values()]
    return Table(
        comparison.id_of("calibration_masks", dataset), "Calibration by mask", caption, header, rows, dataset.name
    )


def _statistics(comparison: Comparison, dataset: Dataset) -> Table:
    titles, tests = comparison.columns_of(dataset), list(comparison.tests(dataset))
    rows: list[list[Cell | str]] = []
    shown, more = _worst(comparison, dataset)
    for row in tests:
        if titles[row.column].structure not in (None, *shown):
            continue
        difference, low, high = (
            number(value, _decimals(row.column), "+") for value in (row.difference, row.low, row.high)
        )
        rows.append(
            [
                *(titles[row.column].title, comparison.labels[row.trainer], Cell(str(row.n_patients), row.n_patients)),
                Cell(difference, row.difference),
                Cell("-" if math.isnan(row.low) else f"[{low}, {high}]", row.low),  # sorted by its lower end
                *(Cell("< 0.001" if p < 0.001 else number(p), p) for p in (row.p, row.p_holm)),
                {"none": "", "untested": NOT_TESTED}.get(row.verdict, row.verdict),
            ]
        )
    sizes = ", ".join(f"{family} {n}" for family, n in Counter(row.family for row in tests).items())
    powerless = ", ".join(comparison.powerless(dataset))
    few = f"Too few cases for p (Holm) below 0.05, however clear the difference: {powerless}. " if powerless else ""
    distances = "HD95 of a case: mean over the structures that have a distance for all methods. "
    over, test = "n cases", "two-sided, cases of equal value dropped"
    if dataset.patients:
        over, test = "cases of n patients", f"over the mean of each patient's cases, {test.replace('case', 'patient')}"
    caption = (
        f"Differences to {comparison.entries[0].label} on {dataset.where}: mean over the {over} in which both have a "
        f"value, with the 95 % percentile bootstrap interval over {dataset.unit} ({comparison.n_bootstrap:,} draws, "
        f"seed {comparison.seed}). p: Wilcoxon signed-rank test, {test}. p (Holm): "
        f"corrected over all methods and metrics of one table, CECE on the foreground only (tests: {sizes}). better, "
        "worse: p (Holm) below 0.05; mixed: then the mean points the other way than most cases. "
        f"{few}{distances if len(dataset.structures) > 1 else ''}One training per fold stands for each method: "
        f"what another training would give is not in these intervals.{_TEN_WORST * bool(more)}"
    )
    header = ["metric", "method", "n", "difference", "95 % interval", "p", "p (Holm)", "verdict"]
    title, full = f"Differences to {comparison.entries[0].label}", comparison.statistics
    csv = (list(full.columns), [list(row) for row in tests])
    return Table(comparison.id_of("statistics", dataset), title, caption, header, rows, dataset.name, csv)


def _overview(comparison: Comparison) -> Table:
    header, cells = ["method"], []
    for metric in MAIN_COLUMNS:
        for dataset in comparison.datasets:
            header.append(f"{comparison.columns[metric].title} {dataset.name}")
            cells += _cells(comparison, dataset, [metric])
    sizes = "; ".join(dataset.where for dataset in comparison.datasets)
    caption = (
        f"All data sets: {sizes}. Mean over cases; DSC and HD95 (mm) averaged over structures. {_BOTH_WAYS} "
        f"ECE and CECE on the foreground. {_MARKS}{_not_averaged(comparison)}"
    )
    return Table("overview", "All data sets", caption, header, _rows(comparison, cells))


def _worst(comparison: Comparison, dataset: Dataset) -> tuple[list[str], list[str]]:
    """Keys of the structures that tables show, and a line where there are more."""
    return worst_of(
        (key, comparison.mean(dataset, f"Dice:{key}", name)) for key in dataset.structures for name in comparison.names
    )


def _undefined(comparison: Comparison, dataset: Dataset, column_ids: Sequence[str]) -> str:
    """Names the cases that have no value: they are left out of a mean."""
    titles, parts = comparison.columns_of(dataset), []
    for column_id in column_ids:
        if column_id in ("Dice", "HD95_mm") and len(dataset.structures) > 1:
            continue  # the structures' columns tell it
        for name, label in comparison.labels.items():
            values = comparison.values[dataset.name][column_id][name]
            if missing := list(values.index[values.isna()]):
                parts.append(f"{titles[column_id].title}, {label}: {len(missing)} ({some(missing)})")
    return f" Undefined and left out of the means: {'; '.join(parts)}." if parts else ""


def _not_averaged(comparison: Comparison) -> str:
    """Names the structures that are in no mean over structures."""
    parts = []
    for dataset in comparison.datasets:
        of = f" of {dataset.name}" if len(comparison.datasets) > 1 else ""
        for metric in ("Dice", "HD95_mm"):
            lost = [key for key in dataset.structures if key not in comparison.averaged(dataset, metric)]
            parts += [comparison.columns_of(dataset)[f"{metric}:{key}"].title + of for key in lost]
    return f" Without a value for some method, so in no mean over structures: {some(parts)}." if parts else ""
