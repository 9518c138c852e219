"""The tables of a comparison: what stands in each cell, and the captions; and what is promised of cases, as text."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from nnunet_nacl.cases.case import MASKS
from nnunet_nacl.cases.groups import detected_in
from nnunet_nacl.cases.ownership import OwnedFiles
from nnunet_nacl.errors import named_together, some
from nnunet_nacl.evaluation.comparison import CALIBRATION_METRICS, MAIN_COLUMNS, OVERLAP, Comparison
from nnunet_nacl.files import to_csv_text, write_atomically
from nnunet_nacl.metrics.overlap import Detected
from nnunet_nacl.quality.learned_quality import quality_report
from nnunet_nacl.quality.presence import LearnedPresence
from nnunet_nacl.reports.tables import Rows, frames, number, ten_worst, text_of

MAE = "mean absolute difference to the true Dice over all structures of all cases that the segmentation has"
DICE, PROBABILITY = "Dice where present", "probability that"
TABLES = "tables"
"""Folder beside comparison.json."""
_OVERVIEW = "overview"
_KINDS = ("discrimination", "calibration", "statistics", "quality", "workload", "detected")
NOT_TESTED = "not tested"
WITHOUT_BAD = "-bad 0.7 adds how many bad scans a check finds."
_MOST_ROWS = 40  # on a terminal
_QUALITY = (
    f"MAE: {MAE}; coverage: share of the intervals, learned from other cases, that contain the true Dice; rho: "
    "Spearman's rank correlation of a case's lowest predicted Dice with its lowest true one, higher is better."
)


@dataclass(frozen=True, eq=False)
class Table:
    """A table of a comparison."""

    id: str  # name of its files
    title: str
    caption: str
    values: pd.DataFrame  # texts, and numbers in full precision
    texts: pd.DataFrame  # as they are shown
    better: Mapping[str, str] = field(default_factory=dict)  # `lower` or `higher`, of columns with marks
    unranked: Collection[str] = ()  # values of the column `method` whose rows cannot be best
    dataset: str | None = None  # None if it is about several
    csv: pd.DataFrame | None = None  # where that is more than the table

    @property
    def numeric(self) -> list[int]:
        """Which columns hold numbers; those before the first name a row."""
        return [i for i, kind in enumerate(self.values.dtypes) if is_numeric_dtype(kind)]

    @cached_property
    def marks(self) -> pd.DataFrame:
        """``best``, ``second`` or nothing for each cell.

        What is rounded to the same text counts as equal: a reader sees no difference. Where all are equal nothing is
        marked; of two methods only the best; where two or more are best, the next is no second. Where two columns name
        a row, rows that share the first name are marked together.
        """
        marks = pd.DataFrame("", self.values.index, self.values.columns)
        groups = self.values.iloc[:, 0] if self.numeric[0] > 1 else pd.Series(0, self.values.index)
        for column, better in self.better.items():
            ranked = self.texts.loc[~self.values["method"].isin(self.unranked), column]
            for _, shown in pd.to_numeric(ranked, errors="coerce").groupby(groups):
                rank = shown.rank(method="dense", ascending=better == "lower")
                if rank.max() > 1:
                    marks.loc[rank.index[rank == 1], column] = "best"
                    if len(rank) > 2 and (rank == 1).sum() == 1:
                        marks.loc[rank.index[rank == 2], column] = "second"
        return marks

    def to_text(self) -> str:
        """For a terminal, the first rows; ``*`` follows the best and ``+`` the second."""
        marked, texts = bool(self.better), self.texts.copy()
        signs = {"": "  " * marked, "best": " *", "second": " +"}
        for i in self.numeric:
            texts.isetitem(i, texts.iloc[:, i] + self.marks.iloc[:, i].map(signs))
        more = len(texts) - _MOST_ROWS
        end = f"\n... and {more} rows more in {TABLES}/{self.id}.csv" if more > 0 else ""
        heading = f"{self.title}{'   (* best, + second)' * marked}"
        return f"{heading}\n{text_of(texts[:_MOST_ROWS], self.numeric[0])}{end}"

    def to_csv(self, notes: Sequence[str] = ()) -> str:
        """In full precision; notes stand in a last column, in every row, so that no row loses them when it is moved."""
        frame = self.values if self.csv is None else self.csv
        frame = frame.assign(note=" ".join(notes)) if notes else frame
        return to_csv_text(list(frame), frame.itertuples(index=False, name=None))

    def rows(self) -> list[list[tuple[str, Any, str]]]:
        """Of each cell its text, its value (None for texts and what is undefined), and its mark."""
        numbers = self.values.apply(pd.to_numeric, errors="coerce").astype(object)
        cells = (frame.to_numpy().tolist() for frame in (self.texts, numbers.where(numbers.notna(), None), self.marks))
        return [list(zip(*row)) for row in zip(*cells)]


def write_tables(tables: Sequence[Table], files: OwnedFiles, notes: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Write ``tables/<id>.csv`` of each; what comparison.json says of them."""
    written = []
    for table in tables:
        place = _place(table.id)
        with files.staging(place) as work:
            write_atomically(work / Path(place).name, table.to_csv(notes))
        written.append(
            {
                "id": table.id,
                "dataset": table.dataset,
                "title": table.title,
                "caption": table.caption,
                "files": [place],
            }
        )
    return written


def places_of_tables(comparisons: Sequence[Comparison]) -> list[str]:
    """Where :func:`write_tables` may write tables of comparisons, of which only the names are known yet."""
    form = named_after(comparisons)
    ids = [_OVERVIEW]
    for comparison in comparisons:
        ids += [form.format(kind=kind, name=comparison.name) for kind in _KINDS]
    return [_place(table_id) for table_id in ids]


def _place(table_id: str) -> str:
    return f"{TABLES}/{table_id}.csv"


def comparison_tables(comparisons: Sequence[Comparison]) -> list[Table]:
    """All tables: an overview of several data sets, then those of each, named after it; none without a row."""
    makers = [_Tables(comparison, named_after(comparisons)) for comparison in comparisons]
    tables = [_overview(makers)] if len(makers) > 1 else []
    tables += [table for make in makers for table in make.of_values()]
    tables += [table for make in makers for table in make.of_cases()]
    return [table for table in tables if len(table.values)]


def named_after(comparisons: Sequence[Comparison]) -> str:
    """How files of tables and figures are called: of several data sets, after theirs."""
    return "{kind}_{name}" if len(comparisons) > 1 else "{kind}"


def _overview(makers: Sequence[_Tables]) -> Table:
    of = {f"{make.columns[column].title} {make.of.name}": (make, column) for column in MAIN_COLUMNS for make in makers}
    means = pd.DataFrame({header: make.means[column] for header, (make, column) in of.items()})
    better = {header: make.columns[column].better for header, (make, column) in of.items()}
    caption = "; ".join(make.of.where for make in makers) + ": mean over cases and structures."
    return Table(_OVERVIEW, "All data sets", caption, *frames(makers[0].rows(means)), better, makers[0].unranked)


class _Tables:
    def __init__(self, comparison: Comparison, name: str) -> None:
        self.of, self.name = comparison, name
        self.labels, self.columns, self.means = comparison.labels, comparison.columns, comparison.means
        self.unranked = [method.label for method in comparison.methods if not method.ranked]

    def make(self, kind: str, title: str, caption: str, rows: Rows, decimals: int = 3, **more: Any) -> Table:
        name, caption = self.name.format(kind=kind, name=self.of.name), f"{self.of.where}: {caption}"
        frame = frames(rows, decimals)
        return Table(name, title, caption, *frame, unranked=self.unranked, dataset=self.of.name, **more)

    def rows(self, means: pd.DataFrame) -> list[dict[Any, Any]]:
        """A row a method, which has its label."""
        return means.rename(index=self.labels).rename_axis("method").reset_index().to_dict("records")

    def of_values(self) -> Iterator[Table]:
        """Overlap and distances, calibration, and tests."""
        names, means = self.of.structures, self.means
        parts = {name: f":{key}" for key, name in names.items()}
        if len(names) > 1:
            parts = {"mean of all": "", **parts}
        rows = []
        for structure, part in parts.items():
            shown = pd.DataFrame({"DSC": means[f"Dice{part}"], "HD95 (mm)": means[f"HD95_mm{part}"]})
            rows += [{"structure": structure} | row for row in self.rows(shown)]
        ids = [f"{metric}:{key}" for metric in OVERLAP for key in names]
        lost = [self.columns[column].title for column in ids if means[column].isna().any()]
        without = f" Without a value for some method, so in no mean over structures: {some(lost)}." if lost else ""
        caption = (
            "mean over cases of the Dice coefficient (DSC) and the 95th percentile of the surface distances (HD95, mm, "
            "both directions pooled); the mean of all structures is that of their means. Higher DSC is better, lower "
            f"HD95.{self._undefined(ids)}{without}"
        )
        better = {"DSC": "higher", "HD95 (mm)": "lower"}
        yield self.make("discrimination", "Discrimination", caption, rows, better=better)
        metrics, rows = {name: metric.title for name, metric in CALIBRATION_METRICS.items() if metric.printed}, []
        for mask in MASKS:
            of_mask = pd.DataFrame({title: self.means[f"{metric}:{mask}"] for metric, title in metrics.items()})
            rows += [{"mask": mask} | row for row in self.rows(of_mask)]
        settings, classes = self.of.settings, "regions" if self.of.regions else "classes, background included"
        caption = (
            f"mean over cases ({settings.n_bins} bins; NLL in nats; masks reach {settings.reach}). The paper's are "
            f"those on the foreground. CECE is the mean over {classes}; the paper's formula sums them. Lower is better."
            f"{self._undefined(f'ECE:{mask}' for mask in MASKS)}"
        )
        better = dict.fromkeys(metrics.values(), "lower")
        yield self.make("calibration", "Calibration", caption, rows, 4, better=better)
        yield self._statistics()

    def _statistics(self) -> Table:
        tests, unit, draws = self.of.statistics, self.of.unit, self.of.draws
        rows = []
        for row in tests.itertuples():
            column = self.columns[row.column]
            digits = 2 if column.metric == "HD95_mm" else 3
            difference, low, high = (number(value, digits, "+") for value in (row.difference, row.low, row.high))
            p, p_holm = ((value, "< 0.001" if value < 0.001 else number(value)) for value in (row.p, row.p_holm))
            rows.append(
                {"metric": column.title, "method": self.labels[row.trainer], "n": row.n_patients}
                | {"difference": (row.difference, difference)}
                | {"95 % interval": (row.low, "-" if low == "-" else f"[{low}, {high}]"), "p": p, "p (Holm)": p_holm}
                | {"verdict": {"none": "", "untested": NOT_TESTED}.get(row.verdict, row.verdict)}
            )
        sizes = ", ".join(f"{family} {n}" for family, n in tests.family.value_counts(sort=False).items())
        powerless = ", ".join(self.of.powerless)
        few = f" Too few for p (Holm) below 0.05, however clear the difference: {powerless}." if powerless else ""
        caption = (
            f"mean over the cases in which both have a value, with the 95 % percentile bootstrap interval over {unit} "
            f"({draws['n_bootstrap']:,} samples, seed {draws['seed']}). p: Wilcoxon's signed-rank test, two-sided, "
            f"over n {unit}, equal values dropped; p (Holm): corrected over all methods and metrics of one family "
            f"(tests: {sizes}; calibration: ECE and CECE on the foreground). better, worse: p (Holm) below 0.05; "
            f"mixed: then the mean points the other way than most {unit}.{few} HD95 of a case: mean over structures "
            "that have a distance for all methods. One training per fold stands for each method: what another training "
            "would give is not in these intervals."
        )
        return self.make("statistics", f"Differences to {self.of.methods[0].label}", caption, rows, csv=tests)

    def of_cases(self) -> Iterator[Table]:
        """What is promised of single cases."""
        names, bad = self.of.structures, self.of.bad
        found = {self.labels[name]: promises for name, promises in self.of.promises.items()}
        reports = {label: quality_report(promises.table, bad) for label, promises in found.items()}
        notes = "".join(f" {label}: {text}" for label, promises in found.items() for text in promises.caveats)
        better = {"MAE predicted": "lower", "rho": "higher"}
        yield self.make("quality", "Quality as promised", _QUALITY + notes, _quality_rows(reports), better=better)
        below = ", ".join(f"{limit:g} ({names[key]})" for key, limit in (bad or {}).items())
        caption = (
            f"a case is bad where the Dice of some structure is below {below}. Of the bad cases, the share that is "
            "found by looking at so many percent, in an order."
        )
        yield self.make("workload", "Cases to look at", caption, _workload_rows(reports))
        by_method = self.of.table.groupby("method", sort=False)
        detected = {self.labels[name]: detected_in(table) for name, table in by_method}
        caption = (
            "for structures that a method misses or invents, the mean Dice of the scans whose truth has them, a missed "
            "one counting 0; in how many of these the segmentation lacks it; in how many of the others it has it."
        )
        yield self.make("detected", "What is found", caption, _detected_rows(detected, names))

    def _undefined(self, column_ids: Iterable[str]) -> str:
        """Names the cases that have no value: they are left out of a mean."""
        parts, values = [], self.of.values
        for column in column_ids:
            for name, label in self.labels.items():
                if missing := values.index[values[column][name].isna()].tolist():
                    parts.append(f"{self.columns[column].title}, {label}: {len(missing)} ({some(missing)})")
        return f" Undefined and left out of the means: {some(parts)}." if parts else ""


def _quality_rows(reports: Mapping[str, Mapping[str, Any]]) -> Rows:
    """How far the predicted Dice of each method holds."""
    learned = any(report["coverage"] for report in reports.values())
    rows = []
    for method, report in reports.items():
        row: dict[str, Any] = {"method": method, "MAE predicted": report["MAE predicted"]}
        if learned:
            share, n = (report["coverage"].share, report["coverage"].n) if report["coverage"] else (math.nan, 0)
            row |= {"coverage": (share, f"{100 * share:.0f} % of {n}" if n else "-"), "mean width": report["width"]}
        rows.append(row | {"rho": report["rho"]})
    return rows


def _workload_rows(reports: Mapping[str, Mapping[str, Any]]) -> Rows:
    """What a look at some cases finds, by method and order."""
    rows = []
    for method, report in reports.items():
        limit, n_bad = report["threshold"], report["n_bad"]
        below = f"{limit:g}" if isinstance(limit, float) else "their thresholds"
        bad = {f"cases below {below}": (n_bad, f"{n_bad} of {report['n_cases']}")}
        for order, looks in report["workload"].items():
            names = [f"look at {100 * look['looked_at']:g} %" for look in looks]
            found = [(x, "-" if math.isnan(x) else f"{100 * x:.0f} %") for x in (look["caught"] for look in looks)]
            rows.append({"method": method, "order": order, **bad, **dict(zip(names, found))})
    return rows


def _detected_rows(detected: Mapping[str, Mapping[str, Detected]], names: Mapping[str, str]) -> Rows:
    """What is found, by structure and method, of structures that some method misses or invents."""
    rows = []
    for key, name in names.items():
        of_methods = {method: by_key[key] for method, by_key in detected.items()}
        for method, seen in of_methods.items() if any(s.missed or s.invented for s in of_methods.values()) else ():
            counts = {"missed": (seen.missed, f"{seen.missed} of {seen.n_there}")}
            counts["invented"] = (seen.invented, f"{seen.invented} of {seen.n_absent}")
            rows.append({"structure": name, "method": method, DICE: seen.dice, **counts})
    return rows


def quality_text(table: pd.DataFrame, bad: Mapping[str, float] | None) -> str:
    """How far predicted Dice holds, each number on a line, and what a look at some cases finds, if any are called bad.

    The arguments are those of :func:`~nnunet_nacl.quality.learned_quality.quality_report`.
    """
    reports = {"": quality_report(table, bad)}
    quality, rows = frames(_quality_rows(reports))[1].drop(columns="method"), _workload_rows(reports)
    looks = text_of(frames(rows)[1].drop(columns="method")) if rows else ""
    found = f"bad cases found by looking at some, in an order:\n{looks}" if rows else WITHOUT_BAD
    return (
        f"quality as promised by the probabilities (MAE of predicted Dice: {MAE})\n"
        f"{quality.T.to_string(header=False)}\n{found}"
    )


def detected_text(detected: Mapping[str, Detected], names: Mapping[str, str]) -> str:
    """What the segmentations find of each structure, or of the ten worst; empty where nothing is missed or invented."""
    shown, more = ten_worst(_detected_rows({"": detected}, names), "structure", itemgetter(DICE))
    return "\n".join([text_of(frames(shown)[1].drop(columns="method")), *more]) if shown else ""


def presence_text(presence: LearnedPresence, names: Mapping[str, str]) -> str:
    """How far the probability holds that a structure is in the scan, of the ten worst, and why nothing is said."""
    checks = {name: presence.checks.get(key) for key, name in names.items() if key in presence.listed}
    rows = [
        {PROBABILITY: f"{name} is in the scan", "Brier": check.brier, "of a constant": check.brier_of_constant}
        | {"AUROC": check.auroc, "ECE": check.ece, "n": check.n}
        for name, check in checks.items()
        if check
    ]
    shown, more = ten_worst(rows, PROBABILITY, lambda row: -row["Brier"])
    why_not = {names[key]: why for key, why in presence.why_not.items()}
    lines = [text_of(shown), *more] if shown else []
    return "\n".join([*lines, *(f"nothing is said of {line}" for line in named_together(why_not))])
