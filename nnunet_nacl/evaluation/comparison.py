"""What is compared on a data set, column by column; the means, intervals and tests that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from nnunet_nacl.cases.case import MASKS, EvaluationSettings
from nnunet_nacl.cases.record import CaseRecord, scores, table
from nnunet_nacl.evaluation.methods import ComparedMethod, ComparisonOptions
from nnunet_nacl.metrics.calibration_error import MASK_METRICS, nanmean
from nnunet_nacl.metrics.statistics import PairedDifference, holm, paired_difference

ALPHA = 0.05
_TESTS = ("dataset", "column", "family", "trainer", "reference", *PairedDifference.__annotations__)
CALIBRATION_METRICS = {name: metric for name, metric in MASK_METRICS.items() if metric.meaning}
MAIN_COLUMNS = ("Dice", "HD95_mm", "ECE:foreground", "CECE_mean:foreground")
"""What is shown first of every comparison."""
OVERLAP = {"Dice": ("DSC", "higher", ""), "HD95_mm": ("HD95", "lower", "mm")}


class Column(NamedTuple):
    """One number of each case, as comparison.json describes it."""

    title: str  # metric and what it was measured on, for people
    group: str  # `discrimination` or `calibration`
    better: str  # `lower` or `higher`
    unit: str  # `mm` or empty
    metric: str  # `Dice`, `HD95_mm`, or one of CALIBRATION_METRICS
    mask: str | None  # of a calibration metric
    structure: str | None  # nnU-Net's key of one structure; None for all together
    family: str | None  # the table whose tests are corrected together with this column's; None if it is not tested


def make_columns(structures: Mapping[str, str]) -> dict[str, Column]:
    """All columns by id, ``Dice``, ``Dice:1``, ``ECE:foreground``, ..., by the names of the structures.

    ``CECE_sum`` is ``CECE_mean`` times the number of classes: testing both would count one question twice. Of CECE only
    the foreground's is tested, the paper's: with it on six more masks all other tests would lose power.
    """
    names: dict[Any, str] = {None: "", **structures}
    result, group = {}, "discrimination"
    for metric, (short, better, unit) in OVERLAP.items():
        for key, name in names.items():
            title = f"{short} {name}".rstrip() + (f" ({unit})" if unit else "")
            column = Column(title, group, better, unit, metric, None, key, group)
            result[f"{metric}:{key}" if key else metric] = column
    for metric, shown in CALIBRATION_METRICS.items():
        for mask in MASKS:
            name, title = f"{metric}:{mask}", f"{shown.title} {mask}"
            family = "calibration" if name in MAIN_COLUMNS else "calibration_masks" if shown.tested else None
            result[name] = Column(title, "calibration", "lower", "", metric, mask, None, family)
    return result


class Promises(NamedTuple):
    """What is promised of a model's cases, beside what is true."""

    table: pd.DataFrame  # a row for each case and structure; intervals of predicted Dice where other cases taught them
    caveats: Sequence[str] = ()  # what must be said beside the intervals


@dataclass(frozen=True)
class Comparison:
    """Models, the first of which is the reference, on one data set; from ``regions`` on, what measuring them tells."""

    name: str  # nnU-Net's, of the data set
    folds: Sequence[str]  # of the models; empty where only folders are compared
    options: ComparisonOptions = ComparisonOptions()
    methods: Sequence[ComparedMethod] = ()  # with their folders
    notes: Sequence[str] = ()  # sentences for every output
    bad: Mapping[str, float] | None = None  # the Dice below which a case is bad, by nnU-Net's key
    regions: bool = False  # whether the heads are sigmoid regions
    structures: Mapping[str, str] = field(default_factory=dict)  # names by nnU-Net's key
    settings: EvaluationSettings = EvaluationSettings()
    records: Mapping[str, list[CaseRecord]] = field(default_factory=dict)  # by method, of the cases that all have
    patients: Mapping[str, str] = field(default_factory=dict)  # by case; empty where each case is its own
    promises: Mapping[str, Promises] = field(default_factory=dict)  # by method

    @property
    def labels(self) -> dict[str, str]:
        """Label of each method by name."""
        return {method.name: method.label for method in self.methods}

    @property
    def cases(self) -> list[str]:
        """Names of the cases that all methods have, in the order of the records."""
        return [record.case for record in next(iter(self.records.values()), ())]

    @property
    def groups(self) -> list[str] | None:
        """Patient of each case; None where each case is its own."""
        return [self.patients[case] for case in self.cases] if self.patients else None

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
        counts = {"case": len(self.cases)} | ({"patient": self.n_patients} if self.patients else {})
        return " of ".join(f"{n} {what}{'s' * (n != 1)}" for what, n in counts.items())

    @property
    def where(self) -> str:
        """Data set, configuration, folds and number of cases."""
        folds = f"fold{'s' * (len(self.folds) > 1)} {', '.join(self.folds)}" if self.folds else ""
        return ", ".join(filter(None, (self.name, self.options.configuration, folds, self.size)))

    @property
    def draws(self) -> dict[str, Any]:
        """Number and seed of the bootstrap's samples, and the patients that it resamples, as arguments."""
        return {"n_bootstrap": self.options.n_bootstrap, "seed": self.options.seed, "groups": self.groups}

    @cached_property
    def columns(self) -> dict[str, Column]:
        """What is compared, by id."""
        return make_columns(self.structures)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each method, case and structure, see :func:`nnunet_nacl.cases.record.table`."""
        parts = {name: table(records) for name, records in self.records.items()}
        return pd.concat(parts, names=["method"]).reset_index("method").reset_index(drop=True)

    @cached_property
    def values(self) -> pd.DataFrame:
        """A row a case, and of each column and method (``[column][name]``) its value; NaN where it is not defined.

        ``Dice`` and ``HD95_mm`` of all structures are the mean over those of the case that are defined. A structure
        that one method missed has a Dice of 0 but no distance, and those hard to find have the largest: without
        it, whoever misses it would look closer than whoever finds it. So its distance counts for none.
        """
        rows = self.table.set_index(["case", "method", "key"])[list(OVERLAP)]
        for_all = rows["HD95_mm"].groupby(["case", "key"]).transform("count") == len(self.records)
        means = rows.assign(HD95_mm=rows["HD95_mm"].where(for_all)).groupby(["case", "method"]).agg(nanmean)
        by_structure = rows.unstack("key")
        by_structure.columns = [":".join(pair) for pair in by_structure.columns]
        of_masks = pd.concat(
            {name: scores(records) for name, records in self.records.items()}, names=["method", "case"]
        )
        joined = pd.concat([means, by_structure, of_masks.swaplevel()], axis=1)
        wanted = pd.MultiIndex.from_product([self.columns, self.records])
        return joined[list(self.columns)].unstack("method").reindex(self.cases, columns=wanted)

    @cached_property
    def means(self) -> pd.DataFrame:
        """What tables show: a row a method, a column for each id.

        For all structures together it is nnU-Net's foreground mean, the mean of structures' means: of those that have a
        value in some case of every method.
        """
        result = self.values.mean().unstack(0).loc[list(self.records), list(self.columns)]
        for metric in OVERLAP:
            result[metric] = result[[f"{metric}:{key}" for key in self.structures]].dropna(axis="columns").mean(axis=1)
        return result

    @cached_property
    def statistics(self) -> pd.DataFrame:
        """Every tested difference to the first method, in the order of the columns, as comparison.json has them.

        ``p_holm`` is p after Holm's correction over the family, NaN where no test was made. ``verdict``: ``better`` or
        ``worse`` where it is below 0.05, ``mixed`` where the mean difference then points the other way than the ranks,
        that is than most cases do; else ``none``; ``untested`` with too few cases.
        """
        reference, rows = self.methods[0].name, []
        tested = [method.name for method in self.methods[1:] if method.ranked]
        for column_id, column in self.columns.items():
            if not column.family or (column.structure and len(self.structures) == 1):
                continue  # a single structure is the mean as well
            for name in tested:
                paired = paired_difference(*(self.values[column_id][one] for one in (reference, name)), **self.draws)
                rows.append((self.name, column_id, column.family, name, reference, *astuple(paired)))
        result = pd.DataFrame(rows, columns=_TESTS)
        up = np.array([self.columns[column].better == "higher" for column in result["column"]], bool)
        lower, higher = result.pop("n_lower"), result.pop("n_higher")
        result["n_better"], result["n_worse"] = higher.where(up, lower), lower.where(up, higher)
        result["n_equal"] = result.n_patients - lower - higher
        result["p_holm"] = p = result.groupby("family").p.transform(holm)
        against = result.difference * result.rank_biserial <= 0
        said = [p.isna(), p >= ALPHA, against, (result.difference > 0) == up]
        return result.assign(verdict=np.select(said, ["untested", "none", "mixed", "better"], "worse"))

    @property
    def powerless(self) -> list[str]:
        """Families of tests in which no result can pass: the smallest possible p times their number is 0.05 or more.

        The smallest two-sided p of Wilcoxon's test over n patients is 2 / 2**n. Families without any test are left out.
        """
        families = self.statistics.query("verdict != 'untested'").groupby("family", sort=False).n_patients
        return [family for family, sizes in families if len(sizes) * 2.0 ** (1 - sizes.max()) >= ALPHA]
