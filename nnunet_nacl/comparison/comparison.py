"""What is compared on a data set, column by column; the means, intervals and tests that follow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from typing_extensions import TypedDict

from nnunet_nacl.cases.case import MASKS, TRUTH_MASKS, EvaluationSettings
from nnunet_nacl.cases.record import CaseRecord, scores, table
from nnunet_nacl.comparison.located import LocatedComparison
from nnunet_nacl.comparison.structure_metrics import (
    COMPONENT_METRICS,
    OVERLAP_METRICS,
    lesion_structures,
)
from nnunet_nacl.metrics.calibration_error import MASK_METRICS, nanmean
from nnunet_nacl.metrics.statistics import (
    ALPHA,
    PairedDifference,
    holm,
    paired_difference,
    smallest_sign_flip_p,
    verdict_of,
    without_noise,
)

# of a comparison's statistics; a folder of predictions is a "trainer" there, too
_COLUMNS_OF_TESTS = ("dataset", "column", "family", "trainer", "reference")
CALIBRATION_METRICS = {name: metric for name, metric in MASK_METRICS.items() if metric.meaning}
"""Those of a mask that tables explain in words."""
LEADING_COLUMNS = ("NLL:predicted", "Brier:predicted", "NLL:all", "Dice", "HD95_mm")
"""What is told first of every comparison: proper scores on masks known in use, then overlap and
distance. Their tests are a family of their own, and every other test is exploratory."""
PAPER_COLUMNS = ("ECE:foreground", "CECE_mean:foreground")
"""The paper's calibration errors, whose tests are a family."""
BY_TRUTH = "\u2020"
"""A dagger, behind the name of a mask that is chosen with the truth, or of a value on it."""
BY_TRUTH_MEANING = (
    f"{BY_TRUTH}: masks that are chosen with the truth ({', '.join(TRUTH_MASKS)}), so even perfect"
    " calibration has an error there, and what is better or worse there need not be so in use."
)

LEADING = "leading"
"""Family of the tests of the leading columns."""
FAMILY_TITLES = {
    LEADING: "leading values",
    "exploratory_structures": "overlap and distance of single structures",
    "exploratory_components": "components",
    "exploratory_foreground": "ECE and CECE on the foreground",
    "exploratory_masks": "calibration on other masks, and other scores",
}
"""Of each family of tests, in words."""


@dataclass(frozen=True)
class Column:
    """One number of each case, as comparison.json describes it.

    Attributes:
        title: Metric and what it was measured on, for people.
        group: ``segmentation`` or ``calibration``.
        better: ``lower`` or ``higher``.
        unit: ``mm`` or empty.
        metric: One of ``OVERLAP_METRICS``, ``COMPONENT_METRICS`` or ``CALIBRATION_METRICS``.
        mask: Of a calibration metric; else None.
        structure: nnU-Net's key of one structure; None for all together.
        family: Of the tests that are corrected together with this column's, one of
            ``FAMILY_TITLES``; None if it is not tested.
    """

    title: str
    group: str
    better: str
    unit: str
    metric: str
    mask: str | None
    structure: str | None
    family: str | None

    @property
    def needs_truth(self) -> bool:
        """Whether its mask is chosen with the truth."""
        return self.mask in TRUTH_MASKS

    @property
    def full_title(self) -> str:
        """The title, with a dagger where the mask is chosen with the truth."""
        return f"{self.title} {BY_TRUTH}" if self.needs_truth else self.title

    @property
    def decimals(self) -> int:
        """How many decimals tables show."""
        if self.unit == "mm":
            return 2
        return 4 if self.group == "calibration" else 3


def make_columns(
    structures: Mapping[str, str], component_structures: Collection[str] = ()
) -> dict[str, Column]:
    """All columns by id: ``Dice``, ``Dice:1``, ``component_F1:1``, ``ECE:foreground``, ...

    ``CECE_sum`` is ``CECE_mean`` times the number of classes: testing both would count one question
    twice. Of CECE only the foreground's is tested, the paper's: with it on six more masks all other
    tests would lose power. Each family is corrected as it would be without the others.

    Args:
        structures: Names by nnU-Net's key.
        component_structures: Keys of those whose components are counted.
    """
    columns = {}
    for metric in OVERLAP_METRICS:
        columns[metric] = _structure_column(metric, None, "")
        for key, name in structures.items():
            columns[f"{metric}:{key}"] = _structure_column(metric, key, name)
    for metric in COMPONENT_METRICS:
        for key in component_structures:
            columns[f"{metric}:{key}"] = _structure_column(metric, key, structures[key])
    for metric in CALIBRATION_METRICS:
        for mask in MASKS:
            columns[f"{metric}:{mask}"] = _calibration_column(metric, mask)
    return columns


def _structure_column(metric: str, key: str | None, name: str) -> Column:
    """A metric of one structure, by nnU-Net's key and its name; None and empty: of all together."""
    described = (OVERLAP_METRICS | COMPONENT_METRICS)[metric]
    family = None
    if described.tested and metric in COMPONENT_METRICS:
        family = "exploratory_components"
    elif described.tested:
        is_leading = key is None and metric in LEADING_COLUMNS
        family = LEADING if is_leading else "exploratory_structures"
    return Column(
        title=described.heading_of(name),
        group="segmentation",
        better=described.better,
        unit=described.unit,
        metric=metric,
        mask=None,
        structure=key,
        family=family,
    )


def _calibration_column(metric: str, mask: str) -> Column:
    described = CALIBRATION_METRICS[metric]
    column_id = f"{metric}:{mask}"
    family = None
    if column_id in LEADING_COLUMNS:
        family = LEADING
    elif column_id in PAPER_COLUMNS:
        family = "exploratory_foreground"
    elif described.tested:
        family = "exploratory_masks"
    return Column(
        f"{described.title} {mask}", "calibration", "lower", "", metric, mask, None, family
    )


class Draws(TypedDict):
    """How bootstrap and tests draw, as arguments of :mod:`nnunet_nacl.metrics.statistics`.

    Attributes:
        n_bootstrap: Number of samples.
        seed: Of the random numbers.
        groups: Patient of each case, which are resampled; None where each case is its own.
    """

    n_bootstrap: int
    seed: int
    groups: list[str] | None


class Estimates(NamedTuple):
    """What a model says of its cases without the truth, beside the truth.

    Attributes:
        table: A row for each case and structure; with intervals of predicted Dice where other cases
            taught them.
        caveats: What must be said beside the intervals.
    """

    table: pd.DataFrame
    caveats: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Comparison(LocatedComparison):
    """Methods on one data set, the first of which is the reference, with what was measured of them.

    Attributes:
        regions: Whether the heads are sigmoid regions.
        structures: Names by nnU-Net's key.
        settings: What was measured.
        records: By method, of the cases that all have.
        patients: By case; empty where each case is its own.
        estimates: By method.
    """

    regions: bool
    structures: Mapping[str, str]
    settings: EvaluationSettings
    records: Mapping[str, list[CaseRecord]]
    patients: Mapping[str, str] = field(default_factory=dict)
    estimates: Mapping[str, Estimates] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, str]:
        """Label of each method by name."""
        return {method.name: method.label for method in self.methods}

    @property
    def cases(self) -> list[str]:
        """Names of the cases that all methods have, in the order of the records."""
        records_of_first = next(iter(self.records.values()), [])
        return [record.name for record in records_of_first]

    @property
    def groups(self) -> list[str] | None:
        """Patient of each case; None where each case is its own."""
        if not self.patients:
            return None
        return [self.patients[case] for case in self.cases]

    @property
    def unit(self) -> str:
        """What intervals resample and tests count."""
        return "patients" if self.patients else "cases"

    @property
    def n_patients(self) -> int:
        """How many independent patients, or cases, there are."""
        return len(set(self.groups or self.cases))

    @property
    def size(self) -> str:
        """``40 cases``, ``1 case``, ``40 cases of 20 patients``."""
        size = _counted(len(self.cases), "case")
        if self.patients:
            size += f" of {_counted(self.n_patients, 'patient')}"
        return size

    @property
    def where(self) -> str:
        """Data set, configuration, folds and number of cases."""
        parts = [self.name, self.options.configuration]
        if self.folds:
            plural = "s" if len(self.folds) > 1 else ""
            parts.append(f"fold{plural} {', '.join(self.folds)}")
        parts.append(self.size)
        return ", ".join(part for part in parts if part)

    @property
    def draws(self) -> Draws:
        """How bootstrap and tests draw."""
        return Draws(
            n_bootstrap=self.options.n_bootstrap, seed=self.options.seed, groups=self.groups
        )

    @cached_property
    def columns(self) -> dict[str, Column]:
        """What is compared, by id."""
        return make_columns(self.structures, self.component_structures)

    @cached_property
    def component_structures(self) -> list[str]:
        """nnU-Net's keys of the structures whose components are counted."""
        if self.findings is not None:
            return list(self.findings)
        return lesion_structures(self.table)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each method, case and structure, see :func:`nnunet_nacl.cases.record.table`."""
        parts = {name: table(records) for name, records in self.records.items()}
        return pd.concat(parts, names=["method"]).reset_index("method").reset_index(drop=True)

    @cached_property
    def values(self) -> pd.DataFrame:
        """A row a case, and of each column and method (``[column][name]``) its value.

        NaN where it is not defined. ``Dice`` and ``HD95_mm`` of all structures are the mean over
        those of the case that are defined. A structure that one method missed has a Dice of 0 but
        no distance, and those hard to find have the largest: without it, whoever misses it would
        look closer than whoever finds it. So its distance counts for none.
        """
        of_structures = self.table.set_index(["case", "method", "key"])
        rows = of_structures[list(OVERLAP_METRICS)]
        n_methods_with_distance = rows["HD95_mm"].groupby(["case", "key"]).transform("count")
        for_all_methods = n_methods_with_distance == len(self.records)
        comparable = rows.assign(HD95_mm=rows["HD95_mm"].where(for_all_methods))
        means = comparable.groupby(["case", "method"]).agg(nanmean)
        by_structure = of_structures[[*OVERLAP_METRICS, *COMPONENT_METRICS]].unstack("key")
        by_structure.columns = [f"{metric}:{key}" for metric, key in by_structure.columns]
        of_methods = {method: scores(records) for method, records in self.records.items()}
        of_masks = pd.concat(of_methods, names=["method", "case"]).swaplevel()
        joined = pd.concat([means, by_structure, of_masks], axis=1)
        wanted = pd.MultiIndex.from_product([self.columns, self.records])
        return joined[list(self.columns)].unstack("method").reindex(self.cases, columns=wanted)

    @cached_property
    def means(self) -> pd.DataFrame:
        """What tables show: a row a method, a column for each id.

        For all structures together it is nnU-Net's foreground mean, the mean of structures' means:
        of those that have a value in some case of every method.
        """
        result = self.values.mean().unstack(0).loc[list(self.records), list(self.columns)]
        for metric in OVERLAP_METRICS:
            of_structures = result[[f"{metric}:{key}" for key in self.structures]]
            result[metric] = of_structures.dropna(axis="columns").mean(axis=1)
        return result

    @cached_property
    def statistics(self) -> pd.DataFrame:
        """Every difference to the first method, as comparison.json has them.

        They are in the order of the columns. ``p_holm`` is p after Holm's correction over the
        family, NaN where no test was made. ``verdict``: what it shows, a key of
        :data:`~nnunet_nacl.metrics.statistics.VERDICT_TEXTS`. A method that has the values of
        another in every case is named ``same_as`` it, and not tested again: where that is the
        reference it is ``equal``, else it has the p and the verdict of the other.
        """
        reference = self.methods[0].name
        rows = []
        for column_id, column in self.columns.items():
            is_of_only_structure = column.structure is not None and len(self.structures) == 1
            is_mean_too = is_of_only_structure and column.metric in OVERLAP_METRICS
            if not column.family or is_mean_too:
                continue
            values = self.values[column_id]
            compared_before = [reference]
            for name in self.tested:
                paired = paired_difference(
                    values[reference],
                    values[name],
                    **self.draws,
                    higher_is_better=column.better == "higher",
                )
                same_as = [
                    other for other in compared_before if _are_same(values[other], values[name])
                ]
                compared_before.append(name)
                key = (self.name, column_id, column.family, name, reference)
                row = {**dict(zip(_COLUMNS_OF_TESTS, key)), **paired}
                rows.append({**row, "same_as": same_as[0] if same_as else ""})
        columns = [*_COLUMNS_OF_TESTS, *PairedDifference.__annotations__, "same_as"]
        return self._with_verdicts(pd.DataFrame(rows, columns=columns))

    @property
    def tested(self) -> list[str]:
        """Names of the methods that are tested against the first."""
        return [method.name for method in self.methods[1:] if method.ranked]

    def _with_verdicts(self, tests: pd.DataFrame) -> pd.DataFrame:
        """The tests with p after Holm's correction and a verdict each."""
        is_equal = tests.same_as == tests.reference
        tests.loc[is_equal, ["p", "p_wilcoxon"]] = np.nan
        p_of_new = tests.p.where(tests.same_as == "")
        tests["p_holm"] = p_of_new.groupby(tests.family).transform(holm)
        verdicts: list[str] = []
        index_of_test: dict[tuple[str, str], int] = {}
        for index, test in enumerate(tests.itertuples(index=False)):
            index_of_test[test.column, test.trainer] = index
            if test.same_as == test.reference:
                verdict = "equal"
            elif test.same_as:
                original = index_of_test[test.column, test.same_as]
                verdict = verdicts[original]
                tests.loc[index, "p_holm"] = tests.loc[original, "p_holm"]
            else:
                higher_is_better = self.columns[test.column].better == "higher"
                verdict = verdict_of(
                    test.difference, test.p_holm, higher_is_better=higher_is_better
                )
            verdicts.append(verdict)
        return tests.assign(verdict=verdicts)

    @property
    def tests_made(self) -> pd.DataFrame:
        """The rows of ``statistics`` for which a test was made: those that correction counts."""
        tests = self.statistics
        return tests[(tests.same_as == "") & (tests.verdict != "untested")]

    @cached_property
    def family_sizes(self) -> dict[str, int]:
        """By family how many tests were made, for which its p are corrected."""
        return self.tests_made["family"].value_counts(sort=False).to_dict()

    @property
    def powerless(self) -> list[str]:
        """Families with too many tests for any result to pass.

        The smallest possible p, see :func:`~nnunet_nacl.metrics.statistics.smallest_sign_flip_p`,
        times the number of tests is 0.05 or more. Families without any test are left out.
        """
        powerless = []
        for family, tests in self.tests_made.groupby("family", sort=False):
            if len(tests) * smallest_sign_flip_p(tests.n_patients.max()) >= ALPHA:
                powerless.append(str(family))
        return powerless


def _are_same(values: pd.Series, others: pd.Series) -> bool:
    """Whether both have the same values, rounding apart, and lack the same ones."""
    return np.array_equal(
        without_noise(values.to_numpy(float)), without_noise(others.to_numpy(float)), equal_nan=True
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
