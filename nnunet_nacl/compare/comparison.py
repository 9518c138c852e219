"""The values of all compared entries, with the means, intervals and tests that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from nnunet_nacl.compare.dataset import OVERLAP, Column, Dataset, make_columns
from nnunet_nacl.compare.entries import Entry
from nnunet_nacl.errors import UserError
from nnunet_nacl.numbers.calibration_error import nanmean
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


@dataclass(frozen=True)
class Comparison:
    """Entries, the first of which is the reference, on one or more data sets, each with the records of all entries.

    UserError where two data sets were evaluated with other settings.
    """

    entries: Sequence[Entry]
    datasets: Sequence[Dataset]
    n_bootstrap: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        first = self.datasets[0]
        for dataset in self.datasets:
            if differing := dataset.settings.differing(first.settings):
                raise UserError(
                    f"{dataset.name} and {first.name} were evaluated with other settings ({differing}); run "
                    "`nnunet_nacl evaluate` with the same options for both."
                )

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
    def shown_means(self) -> dict[str, pd.DataFrame]:
        """By data set what tables show: a row an entry, a column for each id.

        For all structures together it is nnU-Net's foreground mean, the mean of structures' means: of those that have a
        value in some case of every entry.
        """
        result = {}
        for dataset in self.datasets:
            rows = [[self.means[dataset.name, c, name].mean for c in dataset.columns] for name in dataset.records]
            shown = pd.DataFrame(rows, list(dataset.records), list(dataset.columns))
            for metric in OVERLAP:
                of_structures = shown[[f"{metric}:{key}" for key in dataset.structures]].dropna(axis="columns")
                shown[metric] = [nanmean(row) for row in of_structures.to_numpy()]
            result[dataset.name] = shown
        return result

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
        return [family for family, sizes in families if len(sizes) * 2 / 2 ** sizes.max() >= ALPHA]


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
