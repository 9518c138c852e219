"""A comparison: everything that tables, figures and comparison.json are made from, computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nnunet_nacl.comparison.alignment import Dataset
from nnunet_nacl.comparison.columns import RANK_METRICS, Column, case_value, family_of, make_columns
from nnunet_nacl.comparison.entries import Entry
from nnunet_nacl.comparison.ranks import case_ranks, mean_case_ranks, sum_ranks
from nnunet_nacl.comparison.statistics import MIN_CASES, PairedDifference, holm, paired_difference
from nnunet_nacl.documents.results import nanmean
from nnunet_nacl.metrics.bootstrap import Interval, mean_interval

__all__ = ["Comparison", "Difference", "compare"]

ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """One row of the statistics: a trainer against the reference in one column of one data set.

    Attributes:
        dataset: Name.
        column: Id.
        family: Table whose tests were corrected together (within the data set).
        trainer: Name.
        reference: Name of the first trainer.
        paired: The numbers.
        p_holm: p after Holm's correction; NaN where no test was made.
        verdict: ``better`` or ``worse`` than the reference where ``p_holm`` is below 0.05; ``mixed`` where the mean
            difference then points the other way than the ranks, that is than most cases do; ``none`` otherwise;
            ``untested`` with too few cases.
    """

    dataset: str
    column: str
    family: str
    trainer: str
    reference: str
    paired: PairedDifference
    p_holm: float
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Entries, the first of which is the reference, on one or more data sets.

    Attributes:
        entries: In the order given.
        datasets: In the order given.
        columns: By id.
        n_bootstrap: Number of bootstrap draws.
        seed: Of the draws.
        values: By data set, column and entry: one value per case, NaN where undefined. ``HD95_mm`` is the mean over
            those structures of the case that have a distance for all entries.
        statistics: Every tested difference to the reference.
        notes: What must be said on every output.
    """

    entries: Sequence[Entry]
    datasets: Sequence[Dataset]
    columns: Mapping[str, Column]
    n_bootstrap: int
    seed: int
    values: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]
    statistics: Sequence[Difference]
    notes: Sequence[str]

    @property
    def names(self) -> list[str]:
        """Names of the entries."""
        return [entry.name for entry in self.entries]

    @property
    def labels(self) -> dict[str, str]:
        """Label by name."""
        return {entry.name: entry.label for entry in self.entries}

    def columns_of(self, dataset: Dataset) -> dict[str, Column]:
        """The columns that this data set has, titles with its own names of structures."""
        return make_columns([dataset.structures])

    @cached_property
    def means(self) -> dict[str, dict[str, dict[str, Interval]]]:
        """By data set, column and trainer: mean over the cases with a value, and its interval."""
        return {
            dataset: {
                column: {name: self._mean(values) for name, values in by_trainer.items()}
                for column, by_trainer in by_column.items()
            }
            for dataset, by_column in self.values.items()
        }

    def _mean(self, values: np.ndarray) -> Interval:
        return mean_interval(values, n_bootstrap=self.n_bootstrap, seed=self.seed)

    def powerless(self, dataset: Dataset) -> list[str]:
        """Families of tests in which no result can pass: the smallest possible p times their number is 0.05 or more.

        The smallest two-sided p of Wilcoxon's test over n cases is 2 / 2**n. Families without any test are left out.
        """
        tests: dict[str, list[int]] = {}
        for row in self.statistics:
            if row.dataset == dataset.name and row.verdict != "untested":
                tests.setdefault(row.family, []).append(row.paired.n)
        return [family for family, sizes in tests.items() if len(sizes) * 2 / 2 ** max(sizes) >= ALPHA]

    def mean(self, dataset: Dataset, column_id: str, name: str) -> float:
        """What tables show: for all structures together nnU-Net's foreground mean (the mean of structures' means).

        nnU-Net has no such mean where a structure has no value in any case; here it is that of the other structures.
        """
        column = self.columns[column_id]
        means = self.means[dataset.name]
        if column.group == "discrimination" and column.structure is None:
            return nanmean(means[f"{column.metric}:{key}"][name].mean for key in self.averaged(dataset, column.metric))
        return means[column_id][name].mean

    def averaged(self, dataset: Dataset, metric: str) -> list[str]:
        """Structures in the mean of all: those for which every trainer has a value in some case.

        Else whoever never finds the hardest structure would have the mean of the easier ones.
        """
        means = self.means[dataset.name]
        return [
            key
            for key in dataset.structures
            if not any(np.isnan(interval.mean) for interval in means[f"{metric}:{key}"].values())
        ]

    @cached_property
    def ranks(self) -> dict[str, Any]:
        """Ranks as in the paper's fig. 2, both ways, of the metrics that every data set has."""
        sums: dict[str, dict[str, float]] = {name: {} for name in self.names}
        means: dict[str, dict[str, Interval]] = {name: {} for name in self.names}
        by_metric: list[list[np.ndarray]] = []
        for metric in RANK_METRICS:
            better = self.columns[metric].better
            table = np.array([[self.mean(dataset, metric, name) for name in self.names] for dataset in self.datasets])
            per_case = [
                case_ranks(np.stack([self.values[d.name][metric][name] for name in self.names], axis=1), better)
                for d in self.datasets
            ]
            by_metric.append(per_case)
            for name, total, mean in zip(self.names, sum_ranks(table, better), self._mean_ranks(per_case)):
                sums[name][metric], means[name][metric] = float(total), mean
        together = [np.mean([per_case[i] for per_case in by_metric], axis=0) for i in range(len(self.datasets))]
        for name, mean in zip(self.names, self._mean_ranks(together)):
            sums[name]["total"] = float(sum(sums[name][metric] for metric in RANK_METRICS))
            means[name]["total"] = mean
        return {"metrics": list(RANK_METRICS), "sum": sums, "mean": means}

    def _mean_ranks(self, per_case: list[np.ndarray]) -> list[Interval]:
        return mean_case_ranks(per_case, n_bootstrap=self.n_bootstrap, seed=self.seed)


def compare(
    entries: Sequence[Entry], datasets: Sequence[Dataset], *, n_bootstrap: int = 10_000, seed: int = 0
) -> Comparison:
    """Compute a comparison from evaluated data sets; the first entry is the reference.

    Args:
        entries: Two or more.
        datasets: One or more, each with the results of all entries.
        n_bootstrap: Number of bootstrap draws.
        seed: Of the draws.
    """
    names, draws = [entry.name for entry in entries], {"n_bootstrap": n_bootstrap, "seed": seed}
    values, statistics, notes = {}, [], []
    for dataset in datasets:
        columns = make_columns([dataset.structures])
        values[dataset.name] = _values(dataset, columns, names)
        statistics += _differences(dataset, columns, values[dataset.name], names, draws)
        notes += dataset.notes
        if len(dataset.cases) < MIN_CASES:
            notes.append(
                f"{dataset.name}: only {dataset.size}, fewer than {MIN_CASES}: no test is made, and "
                + ("intervals are too narrow to rely on." if len(dataset.cases) > 1 else "there are no intervals.")
            )
    columns = make_columns([dataset.structures for dataset in datasets])
    return Comparison(entries, datasets, columns, n_bootstrap, seed, values, statistics, notes)


def _values(dataset: Dataset, columns: Mapping[str, Column], names: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    result = {
        column_id: {
            name: np.array([case_value(case, column) for case in dataset.results[name]], dtype=np.float64)
            for name in names
        }
        for column_id, column in columns.items()
    }
    # A structure that one trainer missed has a Dice of 0 but no distance, and those that are hard to find have the
    # largest: without it, whoever misses it would look closer than whoever finds it. So it counts for none.
    distances = np.array([[result[f"HD95_mm:{key}"][name] for key in dataset.structures] for name in names])
    known = ~np.isnan(distances).any(axis=0)  # (n_structures, n_cases)
    sums, counts = np.where(known, distances, 0).sum(axis=1), known.sum(axis=0)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    result["HD95_mm"] = dict(zip(names, means))
    return result


def _differences(
    dataset: Dataset,
    columns: Mapping[str, Column],
    values: Mapping[str, Mapping[str, np.ndarray]],
    names: Sequence[str],
    draws: Mapping[str, int],
) -> list[Difference]:
    reference, *others = names
    families: dict[str, list[tuple[str, str, PairedDifference]]] = {}
    for column_id, column in columns.items():
        family = family_of(column_id, column)
        if family is None or (column.structure is not None and len(dataset.structures) == 1):
            continue  # a single structure is the mean as well
        for name in others:
            paired = paired_difference(values[column_id][reference], values[column_id][name], **draws)
            families.setdefault(family, []).append((column_id, name, paired))
    result = []
    for family, rows in families.items():
        for (column_id, name, paired), p in zip(rows, holm([paired.p for _, _, paired in rows])):
            verdict = _verdict(paired, p, columns[column_id].better)
            result.append(Difference(dataset.name, column_id, family, name, reference, paired, p, verdict))
    return sorted(result, key=lambda row: list(columns).index(row.column))


def _verdict(paired: PairedDifference, p: float, better: str) -> str:
    if np.isnan(p):
        return "untested"
    if p >= ALPHA:
        return "none"
    if paired.difference * paired.rank_biserial <= 0:
        return "mixed"
    return "better" if (paired.difference > 0) == (better == "higher") else "worse"


def difference_to_json(row: Difference, better: str) -> dict[str, Any]:
    """A row of ``statistics`` in comparison.json."""
    values = asdict(row)
    values |= values.pop("paired")
    lower, higher = values.pop("n_lower"), values.pop("n_higher")
    n_better, n_worse = (higher, lower) if better == "higher" else (lower, higher)
    return values | {"n_better": n_better, "n_worse": n_worse, "n_equal": row.paired.n - n_better - n_worse}
