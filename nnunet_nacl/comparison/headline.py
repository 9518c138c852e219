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
    LEADING_COLUMNS,
    VERDICTS,
    Column,
    Comparison,
)
from nnunet_nacl.comparison.comparison_report import TestedDifference
from nnunet_nacl.comparison.file_names import STATISTICS, template_of_names
from nnunet_nacl.comparison.table import NOT_TESTED
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
EQUAL = "equal"
"""Outcome of a test where both methods have the same value in every case."""
NO_DIFFERENCE = "no difference shown"
_OUTCOME_TEXTS = {
    "better": "better",
    "worse": "worse",
    "mixed": "mixed: the mean and the ranks disagree",
    "none": NO_DIFFERENCE,
    UNCONFIRMED: NO_DIFFERENCE,
    EQUAL: "equal in every case",
    "untested": NOT_TESTED,
}
_COUNTED_AS = {UNCONFIRMED: "none", EQUAL: "none"}
_SEGMENTATION = "segmentation"
_KNOWN_IN_USE = "calibration, masks known in use"
_TRUTH = f"calibration, masks by truth {BY_TRUTH}"
_KINDS = (_SEGMENTATION, _KNOWN_IN_USE, _TRUTH)


@dataclass(frozen=True)
class LeadingDifference:
    """What is told of a method in one leading column.

    Attributes:
        title: Of the column.
        meaning: Of the column, in words.
        outcome: A verdict, ``UNCONFIRMED`` or ``EQUAL``.
        outcome_text: It in words.
        why_unconfirmed: Why an interval that excludes 0 is no difference; empty of others.
        mean_reference: Mean of the reference, as a text.
        mean: Mean of the method.
        difference: Of the means, with the 95 % interval.
    """

    title: str
    meaning: str
    outcome: str
    outcome_text: str
    why_unconfirmed: str
    mean_reference: str
    mean: str
    difference: str


@dataclass(frozen=True)
class VerdictCounts:
    """How many tests of a kind have each verdict.

    Attributes:
        kind: What was tested; ``all`` of all tests.
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
        counts: Of all its tests, then of each kind.
    """

    label: str
    leading: Sequence[LeadingDifference]
    counts: Sequence[VerdictCounts]


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
    """The verdict; of ``none`` it is told where the interval excludes 0 or all values are equal."""
    if test["verdict"] != "none":
        return test["verdict"]
    if test["n_better"] == test["n_worse"] == 0:
        return EQUAL
    if test["low"] > 0 or test["high"] < 0:
        return UNCONFIRMED
    return "none"


def outcome_text(outcome: str, family_size: int) -> str:
    """An outcome in words; of ``UNCONFIRMED`` why there is no verdict."""
    if outcome == UNCONFIRMED:
        return why_unconfirmed(family_size)
    return _OUTCOME_TEXTS[outcome]


def why_unconfirmed(family_size: int) -> str:
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
    return MethodHeadline(label, leading, _count_verdicts(tests, comparison.columns))


def _count_verdicts(
    tests: Sequence[TestedDifference], columns: Mapping[str, Column]
) -> list[VerdictCounts]:
    """Counts of all tests, then of each kind that there is."""
    kinds = pd.Series([_kind_of_column(columns[test["column"]]) for test in tests])
    outcomes = pd.Series([outcome_of(test) for test in tests])
    counts = [_counts_of("all", outcomes)]
    for kind in _KINDS:
        outcomes_of_kind = outcomes[kinds == kind]
        if len(outcomes_of_kind):
            counts.append(_counts_of(kind, outcomes_of_kind))
    return counts


def _counts_of(kind: str, outcomes: pd.Series) -> VerdictCounts:
    verdicts = outcomes.replace(_COUNTED_AS)
    by_verdict = {verdict: int((verdicts == verdict).sum()) for verdict in VERDICTS}
    return VerdictCounts(kind, by_verdict, int((outcomes == UNCONFIRMED).sum()))


def _kind_of_column(column: Column) -> str:
    if column.group != "calibration":
        return _SEGMENTATION
    return _TRUTH if column.needs_truth else _KNOWN_IN_USE


def _leading_difference(
    column_id: str, test: TestedDifference, comparison: Comparison
) -> LeadingDifference:
    column = comparison.columns[column_id]
    outcome = outcome_of(test)
    family_size = comparison.family_sizes.get(test["family"], 0)
    difference, interval = difference_texts(test, column)
    return LeadingDifference(
        title=column.title,
        meaning=MEANINGS[column_id],
        outcome=outcome,
        outcome_text=_OUTCOME_TEXTS[outcome],
        why_unconfirmed=why_unconfirmed(family_size) if outcome == UNCONFIRMED else "",
        mean_reference=number(test["mean_reference"], column.decimals),
        mean=number(test["mean"], column.decimals),
        difference=difference if interval == "-" else f"{difference} {interval}",
    )


def _remarks(comparison: Comparison) -> list[str]:
    """What counts in brackets and masks by truth are, and tests that could show nothing."""
    if not comparison.family_sizes:
        return [f"No test was made: too few {comparison.unit}, or no method that is to be tested."]
    tests = cast(list[TestedDifference], comparison.statistics.to_dict("records"))
    remarks = []
    if UNCONFIRMED in map(outcome_of, tests):
        remarks.append(
            "In brackets: how many of these have an interval that excludes 0; they are not"
            " significant after correction for the tests of their family."
        )
    remarks.append(BY_TRUTH_MEANING)
    if comparison.powerless:
        families = "; ".join(FAMILY_TITLES[family] for family in comparison.powerless)
        remarks.append(
            f"Too few {comparison.unit} for a verdict, however clear the difference, in these"
            f" families of tests: {families}."
        )
    return remarks
