"""A comparison: the values of all data sets, and the means and tests that follow from them, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from nnunet_nacl.compare.dataset import Column, Dataset, make_columns
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
    """Entries, the first of which is the reference, on one or more data sets.

    Attributes:
        entries: In the order given.
        datasets: In the order given, each with the records of all entries.
        n_bootstrap: Number of bootstrap draws.
        seed: Of the random numbers that the draws are made with.

    Raises:
        UserError: Two data sets were evaluated with other settings.
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

    @cached_property
    def means(self) -> dict[tuple[str, str, str], Interval]:
        """By data set, column and entry: mean over the cases with a value, and its interval."""
        draws: dict[str, Any] = {"n_bootstrap": self.n_bootstrap, "seed": self.seed}
        return {
            (dataset.name, column, name): mean_interval(values, groups=dataset.groups, **draws)
            for dataset in self.datasets
            for (column, name), values in dataset.values.items()
        }

    def mean(self, dataset: Dataset, column_id: str, name: str) -> float:
        """What tables show: for all structures together nnU-Net's foreground mean (the mean of structures' means).

        nnU-Net has no such mean where a structure has no value in any case; here it is that of the other structures.
        """
        if column_id in ("Dice", "HD95_mm"):
            ids = [f"{column_id}:{key}" for key in self.averaged(dataset, column_id)]
            return nanmean(self.means[dataset.name, structure_id, name].mean for structure_id in ids)
        interval = self.means.get((dataset.name, column_id, name))
        return interval.mean if interval else float("nan")

    def averaged(self, dataset: Dataset, metric: str) -> list[str]:
        """Keys of the structures that :meth:`mean` averages: those that have a mean for every entry."""
        return [key for key in dataset.structures if dataset.values[f"{metric}:{key}"].notna().any().all()]

    @cached_property
    def statistics(self) -> pd.DataFrame:
        """Every tested difference to the first entry, in the order of the columns.

        ``dataset``, ``column``, ``trainer`` and ``reference`` say what is compared, ``family`` which tests were
        corrected together; then come the fields of :class:`~nnunet_nacl.numbers.statistics.PairedDifference`;
        ``p_holm`` is p after Holm's correction, NaN where no test was made, and ``verdict`` is :func:`verdict_of`.
        """
        draws: dict[str, Any] = {"n_bootstrap": self.n_bootstrap, "seed": self.seed}
        reference, rows = self.entries[0].name, []
        tested = [entry.name for entry in self.entries if entry.ranked and entry.name != reference]
        for dataset in self.datasets:
            for column_id, column in dataset.columns.items():
                family, values = column.family, dataset.values[column_id]
                if family is None or (column.structure is not None and len(dataset.structures) == 1):
                    continue  # a single structure is the mean as well
                for name in tested:
                    paired = paired_difference(values[reference], values[name], groups=dataset.groups, **draws)
                    rows.append((dataset.name, column_id, family, name, reference, *astuple(paired)))
        result = pd.DataFrame(rows, columns=_TESTS)
        result["p_holm"] = result.groupby(["dataset", "family"]).p.transform(holm)
        result["verdict"] = [
            verdict_of(row, row.p_holm, self.columns[row.column].better) for row in result.itertuples()
        ]
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
    """What a test says of a method.

    Args:
        paired: With ``difference`` and ``rank_biserial``.
        p_holm: p after correction.
        better: ``lower`` or ``higher``.

    Returns:
        ``better`` or ``worse`` than the reference where ``p_holm`` is below 0.05; ``mixed`` where the mean difference
        then points the other way than the ranks, that is than most cases do; ``none`` otherwise; ``untested`` with too
        few cases.
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
