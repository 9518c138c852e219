"""What is compared on each data set, column by column; the means, intervals and tests that follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from nnunet_nacl.case.case import MASKS, EvaluationSettings
from nnunet_nacl.case.record import CaseRecord, scores, table
from nnunet_nacl.compare.entries import Entry, Options
from nnunet_nacl.errors import UserError
from nnunet_nacl.numbers.calibration_error import MASK_METRICS, nanmean
from nnunet_nacl.numbers.statistics import (
    FEWEST_FOR_A_TEST,
    Interval,
    PairedDifference,
    holm,
    mean_interval,
    paired_difference,
)

ALPHA = 0.05
_TESTS = ("dataset", "column", "family", "trainer", "reference", *PairedDifference.__annotations__)
CALIBRATION_METRICS = {name: metric for name, metric in MASK_METRICS.items() if metric.meaning}
MAIN_COLUMNS = ("Dice", "HD95_mm", "ECE:foreground", "CECE_mean:foreground")
"""What is shown first of every comparison."""
OVERLAP = {"Dice": ("DSC", "higher", ""), "HD95_mm": ("HD95", "lower", "mm")}


@dataclass(frozen=True)
class Column:
    """One number of each case, as comparison.json describes it."""

    title: str  # metric and what it was measured on, for people
    group: str  # `discrimination` or `calibration`
    better: str  # `lower` or `higher`
    unit: str  # `mm` or empty
    metric: str  # `Dice`, `HD95_mm`, or one of CALIBRATION_METRICS
    mask: str | None = None  # of a calibration metric
    structure: str | None = None  # nnU-Net's key of one structure; None for all together

    @property
    def family(self) -> str | None:
        """The table whose tests are corrected together with this column's; None if it is not tested.

        ``CECE_sum`` is ``CECE_mean`` times the number of classes: testing both would count one question twice. Of CECE
        only the foreground's is tested, the paper's: with it on five more masks all other tests would lose power.
        """
        if self.group == "discrimination":
            return "discrimination"
        if f"{self.metric}:{self.mask}" in MAIN_COLUMNS:
            return "calibration"
        return "calibration_masks" if CALIBRATION_METRICS[self.metric].tested else None


def make_columns(structures: Iterable[Mapping[str, str]]) -> dict[str, Column]:
    """All columns by id, ``Dice``, ``Dice:1``, ``ECE:foreground``, ..., by the names of each data set's structures.

    A title holds a structure's name where all data sets with that key agree on it, else the key.
    """
    names: dict[str | None, str] = {None: ""}
    for key, name in (item for names_by_key in structures for item in names_by_key.items()):
        names[key] = name if names.get(key, name) == name else f"structure {key}"
    result = {}
    for metric, (short, better, unit) in OVERLAP.items():
        for structure, name in names.items():
            title = f"{short} {name}".rstrip() + (f" ({unit})" if unit else "")
            column_id = f"{metric}:{structure}" if structure else metric
            result[column_id] = Column(title, "discrimination", better, unit, metric, structure=structure)
    for name, shown in CALIBRATION_METRICS.items():
        result |= {f"{name}:{m}": Column(f"{shown.title} {m}", "calibration", "lower", "", name, m) for m in MASKS}
    return result


@dataclass(frozen=True)
class Dataset:
    """One data set as all entries saw it."""

    name: str  # nnU-Net's name
    folds: Sequence[str]  # of the models; empty where only paths are compared
    options: Options = Options()
    entries: Sequence[Entry] = ()  # with their folders
    notes: Sequence[str] = ()  # sentences for every output
    regions: bool = False  # from here on what is known once all is measured: whether the heads are sigmoid regions
    structures: Mapping[str, str] = field(default_factory=dict)  # names by nnU-Net's key
    settings: EvaluationSettings = EvaluationSettings()
    records: Mapping[str, list[CaseRecord]] = field(default_factory=dict)  # by entry, of the cases that all have
    patients: Mapping[str, str] = field(default_factory=dict)  # by case; empty where each case is its own

    @property
    def cases(self) -> list[str]:
        """Names of the cases that all entries have, in the order of the records."""
        return [record.case for record in next(iter(self.records.values()), ())]

    @property
    def groups(self) -> list[str] | None:
        """Patient of each case; None where each case is its own."""
        return [self.patients[case] for case in self.cases] if self.patients else None

    @property
    def unit(self) -> str:
        """What is drawn for intervals and counted in tests."""
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

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each entry, case and structure, see :func:`nnunet_nacl.case.record.table`."""
        parts = {name: table(records) for name, records in self.records.items()}
        return pd.concat(parts, names=["entry"]).reset_index("entry").reset_index(drop=True)

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The columns that this data set has, by id, titles with its own names of structures."""
        return make_columns([self.structures])

    @cached_property
    def values(self) -> pd.DataFrame:
        """A row a case, and of each column and entry (``[column][name]``) its value; NaN where it is not defined.

        ``Dice`` and ``HD95_mm`` of all structures are the mean over those of the case that are defined. A structure
        that one entry missed has a Dice of 0 but no distance, and those that are hard to find have the largest: without
        it, whoever misses it would look closer than whoever finds it. So its distance counts for none.
        """
        rows = self.table.set_index(["case", "entry", "key"])[list(OVERLAP)]
        for_all = rows["HD95_mm"].groupby(["case", "key"]).transform("count") == len(self.records)
        means = rows.assign(HD95_mm=rows["HD95_mm"].where(for_all)).groupby(["case", "entry"]).agg(nanmean)
        by_structure = rows.unstack("key")
        by_structure.columns = [":".join(pair) for pair in by_structure.columns]
        of_masks = pd.concat({name: scores(records) for name, records in self.records.items()}, names=["entry", "case"])
        joined = pd.concat([means, by_structure, of_masks.swaplevel()], axis=1)
        wanted = pd.MultiIndex.from_product([self.columns, self.records])
        return joined[list(self.columns)].unstack("entry").reindex(self.cases, columns=wanted)

    @cached_property
    def means(self) -> pd.DataFrame:
        """What tables show: a row an entry, a column for each id.

        For all structures together it is nnU-Net's foreground mean, the mean of structures' means: of those that have a
        value in some case of every entry.
        """
        result = self.values.mean().unstack(0).loc[list(self.records), list(self.columns)]
        for metric in OVERLAP:
            result[metric] = result[[f"{metric}:{key}" for key in self.structures]].dropna(axis="columns").mean(axis=1)
        return result


@dataclass(frozen=True)
class Comparison:
    """Entries, the first of which is the reference, on one or more data sets, each with the records of all entries.

    UserError where two data sets were evaluated with other bins.
    """

    entries: Sequence[Entry]
    datasets: Sequence[Dataset]
    n_bootstrap: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        bins = {dataset.name: dataset.settings.n_bins for dataset in self.datasets}
        if len(set(bins.values())) > 1:
            listed = ", ".join(f"{name} {n}" for name, n in bins.items())
            raise UserError(f"evaluated with other bins ({listed}); run `nnunet_nacl evaluate` with the same -bins.")

    @property
    def labels(self) -> dict[str, str]:
        """Label of each entry by name."""
        return {entry.name: entry.label for entry in self.entries}

    def id_of(self, kind: str, dataset: Dataset) -> str:
        """Name of the files of a table or figure of a data set: among several, it has the data set's name in it."""
        return f"{kind}_{dataset.name}" if len(self.datasets) > 1 else kind

    @property
    def notes(self) -> list[str]:
        """Sentences for every output."""
        return [note for dataset in self.datasets for note in (*dataset.notes, *_few(dataset))]

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The columns of all data sets, by id."""
        return make_columns([dataset.structures for dataset in self.datasets])

    @property
    def draws(self) -> dict[str, Any]:
        """Number and seed of the bootstrap's draws, as arguments."""
        return {"n_bootstrap": self.n_bootstrap, "seed": self.seed}

    @cached_property
    def means(self) -> dict[tuple[str, str, str], Interval]:
        """By data set, column and entry: mean over the cases with a value, and its interval."""
        return {
            (dataset.name, column, name): mean_interval(values, groups=dataset.groups, **self.draws)
            for dataset in self.datasets
            for (column, name), values in dataset.values.items()
        }

    @cached_property
    def statistics(self) -> pd.DataFrame:
        """Every tested difference to the first entry, in the order of the columns.

        ``dataset``, ``column``, ``trainer`` and ``reference`` say what is compared, ``family`` which tests were
        corrected together; then come the fields of :class:`~nnunet_nacl.numbers.statistics.PairedDifference`;
        ``p_holm`` is p after Holm's correction, NaN where no test was made, and ``verdict`` is :func:`verdict_of`.
        """
        reference, rows = self.entries[0].name, []
        tested = [entry.name for entry in self.entries if entry.ranked and entry.name != reference]
        for dataset in self.datasets:
            for column_id, column in dataset.columns.items():
                family, values = column.family, dataset.values[column_id]
                if family is None or (column.structure is not None and len(dataset.structures) == 1):
                    continue  # a single structure is the mean as well
                for name in tested:
                    paired = paired_difference(values[reference], values[name], groups=dataset.groups, **self.draws)
                    rows.append((dataset.name, column_id, family, name, reference, *astuple(paired)))
        result = pd.DataFrame(rows, columns=_TESTS)
        result["p_holm"] = result.groupby(["dataset", "family"]).p.transform(holm)
        better = [self.columns[column].better for column in result["column"]]
        result["verdict"] = [verdict_of(row, row.p_holm, up) for row, up in zip(result.itertuples(), better)]
        return result

    def tests(self, dataset: Dataset) -> pd.DataFrame:
        """Rows of :attr:`statistics` of one data set."""
        return self.statistics[self.statistics.dataset == dataset.name]

    def powerless(self, dataset: Dataset) -> list[str]:
        """Families of tests in which no result can pass: the smallest possible p times their number is 0.05 or more.

        The smallest two-sided p of Wilcoxon's test over n patients is 2 / 2**n. Families without any test are left out.
        """
        families = self.tests(dataset).query("verdict != 'untested'").groupby("family", sort=False).n_patients
        return [family for family, sizes in families if len(sizes) * 2.0 ** (1 - sizes.max()) >= ALPHA]


def verdict_of(paired: Any, p_holm: float, better: str) -> str:
    """What a test says of a method, by its :class:`~nnunet_nacl.numbers.statistics.PairedDifference` and p.

    ``better`` or ``worse`` than the reference where ``p_holm`` is below 0.05; ``mixed`` where the mean difference then
    points the other way than the ranks, that is than most cases do; else ``none``; ``untested`` with too few cases.
    """
    if np.isnan(p_holm):
        return "untested"
    if p_holm >= ALPHA:
        return "none"
    if paired.difference * paired.rank_biserial <= 0:
        return "mixed"
    return "better" if (paired.difference > 0) == (better == "higher") else "worse"


def _few(dataset: Dataset) -> list[str]:
    if dataset.n_patients >= FEWEST_FOR_A_TEST:
        return []
    intervals = "intervals are too narrow to rely on." if dataset.n_patients > 1 else "there are no intervals."
    return [f"{dataset.name}: only {dataset.size}, fewer than {FEWEST_FOR_A_TEST}: no test is made, and {intervals}"]
