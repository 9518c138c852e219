"""What the tests of a comparison show: the leading differences first, then counts of all verdicts.

Terminal and page begin with it. It claims nothing that a test does not show, and says of each count
whether its masks are chosen with the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import pandas as pd

from nnunet_nacl.comparison.comparison import (
    BY_TRUTH,
    BY_TRUTH_MEANING,
    FAMILY_TITLES,
    LEADING,
    LEADING_COLUMNS,
    Column,
    Comparison,
)
from nnunet_nacl.comparison.comparison_report import TestedDifference
from nnunet_nacl.comparison.file_names import STATISTICS, template_of_names
from nnunet_nacl.metrics.statistics import FEWEST_FOR_A_TEST, VERDICT_TEXTS
from nnunet_nacl.utilities.tables import number

MEANINGS = {
    "NLL:predicted": "confidence in the segmented voxels",
    "Brier:predicted": "the same, milder on single bad voxels",
    "NLL:all": "confidence in all voxels",
    "Dice": "overlap with the truth",
    "HD95_mm": "distance of the surfaces",
}
"""Of each leading column, in words."""
UNCONFIRMED = "unconfirmed"
"""Outcome of a test that does not reject, where the interval excludes 0."""
_COUNTED = ("better", "worse", "none", "untested")
"""Verdicts that are counted: what is equal in every case is no test."""
_LEADING = "leading values"
_SEGMENTATION = "exploratory, segmentation"
_KNOWN_IN_USE = "exploratory, masks known in use"
_TRUTH = f"exploratory, masks by truth {BY_TRUTH}"
_KINDS = (_LEADING, _SEGMENTATION, _KNOWN_IN_USE, _TRUTH)


@dataclass(frozen=True)
class LeadingDifference:
    """What is told of a method in one leading column.

    Attributes:
        title: Of the column.
        meaning: Of the column, in words.
        outcome: A verdict, or ``UNCONFIRMED``.
        verdict_text: The verdict in words.
        remark: Why an interval that excludes 0 is no difference, or whose values these are; mostly
            empty.
        mean_reference: Mean of the reference, as a text.
        mean: Mean of the method.
        difference: Of the means, with the 95 % interval.
    """

    title: str
    meaning: str
    outcome: str
    verdict_text: str
    remark: str
    mean_reference: str
    mean: str
    difference: str


@dataclass(frozen=True)
class VerdictCounts:
    """How many tests of a kind have each verdict.

    Attributes:
        kind: What was tested.
        by_verdict: Number of tests by verdict.
        n_unconfirmed: Of those without a difference how many intervals exclude 0.
    """

    kind: str
    by_verdict: Mapping[str, int]
    n_unconfirmed: int

    @property
    def n_tests(self) -> int:
        """How many differences there are, with those that could not be tested."""
        return sum(self.by_verdict.values())

    @property
    def no_difference_text(self) -> str:
        """How many show no difference; in brackets how many of these intervals exclude 0."""
        n_none = self.by_verdict["none"]
        return f"{n_none} ({self.n_unconfirmed})" if self.n_unconfirmed else f"{n_none}"


@dataclass(frozen=True)
class MethodHeadline:
    """What the tests show of one method.

    Attributes:
        label: Of the method.
        leading: Its leading differences.
        counts: Of its tests of each kind.
        worse: Every value that is worse, in a sentence; empty where none is.
    """

    label: str
    leading: Sequence[LeadingDifference]
    counts: Sequence[VerdictCounts]
    worse: str


@dataclass(frozen=True)
class Headline:
    """What the tests of one data set show.

    Attributes:
        dataset: Its name.
        where: Data set, configuration, folds and number of cases.
        unit: What intervals resample and tests count.
        reference: Label of the method that others are compared with.
        methods: All that were tested.
        remarks: What must be known of the tests, in sentences.
        table_id: Of the table with every test.
    """

    dataset: str
    where: str
    unit: str
    reference: str
    methods: Sequence[MethodHeadline]
    remarks: Sequence[str]
    table_id: str


def make_headlines(comparisons: Sequence[Comparison]) -> list[Headline]:
    """What is told first of each data set."""
    table_name = template_of_names(comparisons)
    headlines = []
    for comparison in comparisons:
        methods = []
        for name, rows in comparison.statistics.groupby("trainer", sort=False):
            label = comparison.labels[str(name)]
            methods.append(_headline_of_method(label, rows, comparison))
        headline = Headline(
            dataset=comparison.name,
            where=comparison.where,
            unit=comparison.unit,
            reference=comparison.methods[0].label,
            methods=methods,
            remarks=_remarks(comparison),
            table_id=table_name.format(kind=STATISTICS, name=comparison.name),
        )
        headlines.append(headline)
    return headlines


def outcome_of(test: TestedDifference) -> str:
    """The verdict; of ``none`` it is told where the interval excludes 0."""
    excludes_0 = test["low"] > 0 or test["high"] < 0
    return UNCONFIRMED if test["verdict"] == "none" and excludes_0 else test["verdict"]


def outcome_text(test: TestedDifference, family_size: int) -> str:
    """What a test shows in words, of ``UNCONFIRMED`` why there is no verdict; and whether the test
    is exploratory."""
    text = VERDICT_TEXTS[test["verdict"]]
    if outcome_of(test) == UNCONFIRMED:
        text = _why_unconfirmed(family_size)
    is_exploratory = test["family"] != LEADING and test["verdict"] in ("better", "worse", "none")
    return f"{text} (exploratory)" if is_exploratory else text


def _why_unconfirmed(family_size: int) -> str:
    """Why an interval that excludes 0 is no difference, of so many tests corrected together."""
    return (
        "interval excludes 0; not significant after correction for the"
        f" {family_size} tests of its family"
    )


def difference_texts(test: TestedDifference, column: Column) -> tuple[str, str]:
    """A difference and its interval; ``-`` where they are undefined."""
    difference = number(test["difference"], column.decimals, "+")
    low = number(test["low"], column.decimals, "+")
    high = number(test["high"], column.decimals, "+")
    interval = "-" if low == "-" else f"[{low}, {high}]"
    return difference, interval


def _headline_of_method(label: str, rows: pd.DataFrame, comparison: Comparison) -> MethodHeadline:
    tests = cast(list[TestedDifference], rows.to_dict("records"))
    by_column = {test["column"]: test for test in tests}
    leading = []
    for column_id in LEADING_COLUMNS:
        leading.append(_leading_difference(column_id, by_column[column_id], comparison))
    return MethodHeadline(
        label=label,
        leading=leading,
        counts=_count_verdicts(tests, comparison.columns),
        worse=_name_worse(tests, comparison.columns),
    )


def _count_verdicts(
    tests: Sequence[TestedDifference], columns: Mapping[str, Column]
) -> list[VerdictCounts]:
    """Counts of each kind that there is; copies of other methods' values are in none."""
    outcomes: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    for test in tests:
        if not test["same_as"]:
            outcomes[_kind_of(test, columns[test["column"]])].append(outcome_of(test))
    return [_counts_of(kind, of_kind) for kind, of_kind in outcomes.items() if of_kind]


def _counts_of(kind: str, outcomes: Sequence[str]) -> VerdictCounts:
    by_verdict = {verdict: outcomes.count(verdict) for verdict in _COUNTED}
    n_unconfirmed = outcomes.count(UNCONFIRMED)
    by_verdict["none"] += n_unconfirmed
    return VerdictCounts(kind, by_verdict, n_unconfirmed)


def _kind_of(test: TestedDifference, column: Column) -> str:
    if test["family"] == LEADING:
        return _LEADING
    if column.group != "calibration":
        return _SEGMENTATION
    return _TRUTH if column.needs_truth else _KNOWN_IN_USE


def _name_worse(tests: Sequence[TestedDifference], columns: Mapping[str, Column]) -> str:
    """Every value that is worse, the leading ones first, copies of other methods' values too."""
    worse = [test for test in tests if test["verdict"] == "worse"]
    leading = [columns[test["column"]].title for test in worse if test["family"] == LEADING]
    others = [columns[test["column"]].full_title for test in worse if test["family"] != LEADING]
    parts = []
    if leading:
        parts.append(", ".join(leading))
    if others:
        parts.append(f"exploratory: {', '.join(others)}")
    return f"Worse: {'; '.join(parts)}." if parts else ""


def _leading_difference(
    column_id: str, test: TestedDifference, comparison: Comparison
) -> LeadingDifference:
    column = comparison.columns[column_id]
    outcome = outcome_of(test)
    difference, interval = difference_texts(test, column)
    remark = ""
    if outcome == UNCONFIRMED:
        remark = _why_unconfirmed(comparison.family_sizes.get(test["family"], 0))
    is_copy = test["same_as"] not in ("", test["reference"])
    if is_copy:
        remark = f"the values of {comparison.labels[test['same_as']]}, not tested again"
    return LeadingDifference(
        title=column.title,
        meaning=MEANINGS[column_id],
        outcome=outcome,
        verdict_text=VERDICT_TEXTS[test["verdict"]],
        remark=remark,
        mean_reference=number(test["mean_reference"], column.decimals),
        mean=number(test["mean"], column.decimals),
        difference=difference if interval == "-" else f"{difference} {interval}",
    )


def _remarks(comparison: Comparison) -> list[str]:
    """Why there is no test; else what is exploratory, what counts in brackets and masks by truth
    are, and what was not tested or could show nothing."""
    if not comparison.family_sizes:
        return [_why_no_test(comparison)]
    tests = cast(list[TestedDifference], comparison.statistics.to_dict("records"))
    remarks = [
        "Exploratory: not named before the data were seen as what decides, so a reason to look"
        " again on other cases."
    ]
    if UNCONFIRMED in map(outcome_of, tests):
        remarks.append(
            "In brackets: how many of these have an interval that excludes 0; they are not"
            " significant after correction for the tests of their family."
        )
    if (comparison.statistics.same_as != "").any():
        remarks.append(
            "What is equal to the reference, or has the values of another method, in every case is"
            " not tested again and not counted."
        )
    remarks.append(BY_TRUTH_MEANING)
    if comparison.powerless:
        families = "; ".join(FAMILY_TITLES[family] for family in comparison.powerless)
        remarks.append(
            f"Too many tests for so few {comparison.unit}: no difference, however clear, could get"
            f" a verdict in these families of tests: {families}."
        )
    return remarks


def _why_no_test(comparison: Comparison) -> str:
    if not comparison.tested:
        return "No test was made: no method but the reference is to be tested."
    if (comparison.statistics.same_as != "").all():
        return "No test was made: in every case all methods have the values of the reference."
    return (
        f"No test was made: too few {comparison.unit} with values of both methods, it takes"
        f" {FEWEST_FOR_A_TEST}."
    )
