"""The tables of a comparison: what stands in each cell, and the captions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import pandas as pd

from nnunet_nacl.calibration.quality_report import QualityReport, quality_report
from nnunet_nacl.calibration.quality_texts import (
    PREDICTED_DICE_ERROR_MEANING,
    detected_rows,
    quality_rows,
    workload_rows,
)
from nnunet_nacl.cases.case import MASKS, TRUTH_MASKS
from nnunet_nacl.cases.groups import detected_in
from nnunet_nacl.comparison.comparison import (
    BY_TRUTH,
    BY_TRUTH_MEANING,
    CALIBRATION_METRICS,
    FAMILY_TITLES,
    LEADING_COLUMNS,
    PAPER_COLUMNS,
    Comparison,
)
from nnunet_nacl.comparison.comparison_report import TestedDifference
from nnunet_nacl.comparison.file_names import OVERVIEW, STATISTICS, template_of_names
from nnunet_nacl.comparison.headline import difference_texts, outcome_text
from nnunet_nacl.comparison.structure_metrics import (
    COMPONENT_METRICS,
    OVERLAP_METRICS,
    better_text,
)
from nnunet_nacl.comparison.table import Table
from nnunet_nacl.utilities.errors import some
from nnunet_nacl.utilities.tables import Rows, frames, number

_ABOUT_COMPONENTS = (
    " A component is a set of connected voxels; voxels that touch at a corner are connected."
    " Touched: the share of the true components that share a voxel with the segmentation, over the"
    " cases that have any. False: components of the segmentation that share none with the truth, in"
    " a case. F1: 2 touched / (2 touched + missed + false)."
)


def comparison_tables(comparisons: Sequence[Comparison]) -> list[Table]:
    """All tables that have a row: an overview of several data sets, then those of each."""
    makers = [_TableMaker(comparison, template_of_names(comparisons)) for comparison in comparisons]
    tables = []
    if len(makers) > 1:
        tables.append(_overview(makers))
    for maker in makers:
        tables += [maker.segmentation(), maker.calibration(), maker.statistics()]
    for maker in makers:
        tables += [maker.quality(), maker.workload(), maker.detected()]
    return [table for table in tables if len(table.values)]


def _overview(makers: Sequence[_TableMaker]) -> Table:
    """The leading columns of every data set and the paper's, side by side."""
    means = {}
    better = {}
    names_in_csv = {}
    for column_id in (*LEADING_COLUMNS, *PAPER_COLUMNS):
        for maker in makers:
            column = maker.comparison.columns[column_id]
            header = f"{column.full_title} {maker.comparison.name}"
            names_in_csv[header] = f"{column.title} {maker.comparison.name}"
            means[header] = maker.comparison.means[column_id]
            better[header] = column.better
    where = "; ".join(maker.comparison.where for maker in makers)
    caption = f"{where}: mean over cases and structures. {BY_TRUTH_MEANING}"
    values, texts = frames(makers[0].rows_of_methods(pd.DataFrame(means)))
    return Table(
        OVERVIEW,
        "All data sets",
        caption,
        values,
        texts,
        better,
        makers[0].unranked,
        csv=values.rename(columns=names_in_csv),
    )


class _TableMaker:
    """Makes the tables of one data set.

    Attributes:
        comparison: Of the data set.
        file_name: Of the tables, with braces for kind and name.
        unranked: Labels of the methods that cannot be best.
    """

    def __init__(self, comparison: Comparison, file_name: str) -> None:
        self.comparison = comparison
        self.file_name = file_name
        self.unranked = [method.label for method in comparison.methods if not method.ranked]

    def make(
        self,
        kind: str,
        title: str,
        caption: str,
        rows: Rows,
        *,
        decimals: int = 3,
        better: Mapping[str, str] | None = None,
        csv: pd.DataFrame | None = None,
    ) -> Table:
        """A table of rows; its caption begins with what was compared."""
        values, texts = frames(rows, decimals)
        return Table(
            id=self.file_name.format(kind=kind, name=self.comparison.name),
            title=title,
            caption=f"{self.comparison.where}: {caption}",
            values=values,
            texts=texts,
            better=better or {},
            unranked=self.unranked,
            dataset=self.comparison.name,
            csv=csv,
        )

    def rows_of_methods(self, means: pd.DataFrame) -> list[dict[Any, Any]]:
        """A row a method, which has its label, of a frame with a row a method."""
        return (
            means.rename(index=self.comparison.labels)
            .rename_axis("method")
            .reset_index()
            .to_dict("records")
        )

    def segmentation(self) -> Table:
        """Overlap, distances and found components of each structure, and of all together."""
        rows = []
        for structure, suffix in self._suffixes().items():
            means = self._overlap(suffix)
            if self.comparison.component_structures:
                means = means.join(self._components(suffix))
            rows += [{"structure": structure} | row for row in self.rows_of_methods(means)]
        better = {metric.heading_of(): metric.better for metric in OVERLAP_METRICS.values()}
        if self.comparison.component_structures:
            better |= {metric.title: metric.better for metric in COMPONENT_METRICS.values()}
        caption = self._segmentation_caption()
        return self.make("segmentation", "Segmentation", caption, rows, better=better)

    def _suffixes(self) -> dict[str, str]:
        """By name of each structure what ends the ids of its columns; empty for all together.

        Those of several structures begin with all together.
        """
        suffixes = {}
        if len(self.comparison.structures) > 1:
            suffixes["mean of all"] = ""
        for key, name in self.comparison.structures.items():
            suffixes[name] = f":{key}"
        return suffixes

    def _overlap(self, suffix: str) -> pd.DataFrame:
        """Means of overlap and distances of a structure, see :meth:`_suffixes`: a row a method."""
        columns = {}
        for column, metric in OVERLAP_METRICS.items():
            columns[metric.heading_of()] = self.comparison.means[f"{column}{suffix}"]
        return pd.DataFrame(columns)

    def _segmentation_caption(self) -> str:
        """What the columns are, and which cases and columns the means leave out."""
        overlap = list(OVERLAP_METRICS.values())
        column_ids = []
        for metric in OVERLAP_METRICS:
            column_ids += [f"{metric}:{key}" for key in self.comparison.structures]
        without_value = [
            self.comparison.columns[column].title
            for column in column_ids
            if self.comparison.means[column].isna().any()
        ]
        about_components = _ABOUT_COMPONENTS if self.comparison.component_structures else ""
        in_no_mean = ""
        if without_value:
            in_no_mean = (
                " Without a value for some method, so in no mean over structures:"
                f" {some(without_value)}."
            )
        return (
            f"mean over cases of {' and '.join(metric.in_caption for metric in overlap)}; the mean"
            f" of all structures is that of their means. {better_text(overlap)}{about_components}"
            f"{self._undefined(column_ids)}{in_no_mean}"
        )

    def _components(self, suffix: str) -> pd.DataFrame:
        """What is found of the components of a structure, see :meth:`_suffixes`: a row a method.

        NaN where they are not counted.
        """
        means = self.comparison.means
        found = pd.DataFrame(index=means.index)
        for name, metric in COMPONENT_METRICS.items():
            found[metric.title] = means.get(f"{name}{suffix}", math.nan)
        return found

    def calibration(self) -> Table:
        """The printed scores on each mask."""
        titles = {
            name: metric.title for name, metric in CALIBRATION_METRICS.items() if metric.printed
        }
        rows = []
        for mask in MASKS:
            of_mask = {
                title: self.comparison.means[f"{metric}:{mask}"] for metric, title in titles.items()
            }
            cell = (mask, f"{mask} {BY_TRUTH}" if mask in TRUTH_MASKS else mask)
            rows += [{"mask": cell} | row for row in self.rows_of_methods(pd.DataFrame(of_mask))]
        settings = self.comparison.settings
        classes = "regions" if self.comparison.regions else "classes, background included"
        undefined = self._undefined([f"ECE:{mask}" for mask in MASKS])
        caption = (
            f"mean over cases ({settings.n_bins} bins; NLL in nats; masks reach {settings.reach})."
            f" CECE is the mean over {classes}. The NACL paper measures ECE and CECE on the"
            f" foreground, and its CECE is the sum. Lower is better. {BY_TRUTH_MEANING}{undefined}"
        )
        better = dict.fromkeys(titles.values(), "lower")
        return self.make("calibration", "Calibration", caption, rows, decimals=4, better=better)

    def statistics(self) -> Table:
        """The tested differences to the first method."""
        tests = self.comparison.statistics
        unit = self.comparison.unit
        draws = self.comparison.draws
        rows = []
        for test in tests.to_dict("records"):
            rows.append(self._statistics_row(cast(TestedDifference, test)))
        n_tests = self.comparison.family_sizes
        sizes = "; ".join(f"{FAMILY_TITLES[family]}: {n}" for family, n in n_tests.items())
        powerless = ""
        if self.comparison.powerless:
            families = "; ".join(FAMILY_TITLES[family] for family in self.comparison.powerless)
            powerless = (
                f" Too many for so few {unit}, so that no p (Holm) can be below 0.05: {families}."
            )
        caption = (
            "mean over the cases in which both have a value, with the 95 % percentile bootstrap"
            f" interval over {unit} ({draws['n_bootstrap']:,} samples, seed {draws['seed']}). p:"
            f" sign-flip permutation test of the same mean, two-sided, over n {unit}; p (Holm):"
            " corrected over all methods and metrics of one family (numbers of tests:"
            f" {sizes or 'none'}). better, worse: p (Holm) below 0.05. All families but the leading"
            " values are exploratory. What is equal in every case, or has the values of another"
            f" method, is not tested again. Intervals are not corrected.{powerless}"
            f" {BY_TRUTH_MEANING} HD95 of a"
            " case: mean over structures that have a distance for all methods. One training per"
            " fold stands for each method: the intervals do not include the variation between"
            " trainings."
        )
        reference = self.comparison.methods[0].label
        return self.make(STATISTICS, f"Differences to {reference}", caption, rows, csv=tests)

    def _statistics_row(self, test: TestedDifference) -> dict[str, Any]:
        column = self.comparison.columns[test["column"]]
        difference, interval = difference_texts(test, column)
        family_size = self.comparison.family_sizes.get(test["family"], 0)
        return {
            "metric": column.full_title,
            "method": self.comparison.labels[test["trainer"]],
            "n": test["n_patients"],
            "difference": (test["difference"], difference),
            "95 % interval": (test["low"], interval),
            "p": (test["p"], _p_text(test["p"])),
            "p (Holm)": (test["p_holm"], _p_text(test["p_holm"])),
            "verdict": outcome_text(test, family_size),
        }

    @cached_property
    def _quality_reports(self) -> dict[str, QualityReport]:
        """By label how far the predicted Dice of each method holds."""
        reports = {}
        for name, estimates in self.comparison.estimates.items():
            reports[self.comparison.labels[name]] = quality_report(
                estimates.table, self.comparison.bad
            )
        return reports

    def quality(self) -> Table:
        """How far the predicted Dice of each method holds."""
        caveats = ""
        for name, estimates in self.comparison.estimates.items():
            for caveat in estimates.caveats:
                caveats += f" {self.comparison.labels[name]}: {caveat}"
        caption = (
            f"MAE: {PREDICTED_DICE_ERROR_MEANING}; coverage: share of the intervals, learned from"
            " other cases, that contain the true Dice; rho: Spearman's rank correlation of a case's"
            f" lowest predicted Dice with its lowest true one, higher is better.{caveats}"
        )
        better = {"MAE predicted": "lower", "rho": "higher"}
        rows = quality_rows(self._quality_reports)
        return self.make("quality", "Predicted Dice and true Dice", caption, rows, better=better)

    def workload(self) -> Table:
        """What a look at some cases finds of the bad ones."""
        limits = [
            f"{limit:g} ({self.comparison.structures[key]})"
            for key, limit in (self.comparison.bad or {}).items()
        ]
        caption = (
            f"a case is bad where the Dice of some structure is below {', '.join(limits)}. Of the"
            " bad cases, the share that is found by looking at so many percent of all cases, in the"
            " order of the lowest predicted Dice or of the highest mean entropy."
        )
        return self.make(
            "workload", "Cases to look at", caption, workload_rows(self._quality_reports)
        )

    def detected(self) -> Table:
        """What the segmentations find of structures that some method misses or invents."""
        detected = {}
        for name, rows_of_method in self.comparison.table.groupby("method", sort=False):
            detected[self.comparison.labels[str(name)]] = detected_in(rows_of_method)
        caption = (
            "for structures that a method misses or invents, the mean Dice of the scans whose truth"
            " has them, a missed one counting 0; in how many of these the segmentation lacks it; in"
            " how many of the others it has it."
        )
        return self.make(
            "detected",
            "What is found",
            caption,
            detected_rows(detected, self.comparison.structures),
        )

    def _undefined(self, column_ids: Sequence[str]) -> str:
        """Names the cases that have no value: they are left out of a mean.

        Columns and methods that lack the same cases are named together.
        """
        columns_by_cases: dict[tuple[str, ...], list[str]] = {}
        for column in column_ids:
            for cases, methods in self._methods_by_missing_cases(column).items():
                title = self.comparison.columns[column].title
                if len(methods) < len(self.comparison.labels):
                    title += f" of {', '.join(methods)}"
                columns_by_cases.setdefault(cases, []).append(title)
        parts = []
        for cases, titles in columns_by_cases.items():
            parts.append(f"{', '.join(titles)}: {len(cases)} ({some(cases)})")
        if not parts:
            return ""
        return f" Undefined and left out of the means: {some(parts, separator='; ')}."

    def _methods_by_missing_cases(self, column: str) -> dict[tuple[str, ...], list[str]]:
        """By the cases without a value in a column the labels of the methods that lack them."""
        values = self.comparison.values[column]
        methods: dict[tuple[str, ...], list[str]] = {}
        for name, label in self.comparison.labels.items():
            missing = values.index[values[name].isna()]
            if len(missing):
                methods.setdefault(tuple(missing), []).append(label)
        return methods


def _p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else number(p)
