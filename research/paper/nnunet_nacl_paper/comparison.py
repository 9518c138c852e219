"""What `nnunet_nacl compare` wrote into comparison.json, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from nnunet_nacl.metrics.statistics import Interval, percentile_interval, resamples
from nnunet_nacl_paper.files import InputError, read_json

RANK_METRICS = ("Dice", "HD95_mm", "ECE:foreground", "CECE_mean:foreground")
"""Columns of the four metrics that the paper ranks by and draws."""


@dataclass(frozen=True)
class CountedInterval(Interval):
    """An interval of ``n`` cases."""

    n: int


SHORT = {"Dice": "DSC", "HD95_mm": "HD95", "ECE:foreground": "ECE", "CECE_mean:foreground": "CECE"}


class Dataset(BaseModel):
    """A data set as all methods saw it.

    Attributes:
        name: nnU-Net's name.
        cases: Their names.
        structures: Names by nnU-Net's key.
        values: By column and method's name, one number a case; None where it is undefined.
        means: By column and method's name, the fields of a ``CountedInterval``.
        patients: Of each case the patient; empty where each case is its own.
    """

    name: str
    cases: list[str]
    structures: dict[str, str]
    values: dict[str, dict[str, list[float | None]]]
    means: dict[str, dict[str, dict[str, float | None]]]
    patients: dict[str, str]

    def table(self, column: str, names: Sequence[str]) -> np.ndarray:
        """(cases, names) values of a column; NaN where undefined."""
        values = {name: self.values[column][name] for name in names}
        return pd.DataFrame(values, dtype=float).to_numpy()

    def interval(self, column: str, name: str) -> CountedInterval:
        """Mean over the cases with its 95 % interval."""
        fields = pd.Series(self.means[column][name], dtype=float)  # None becomes NaN
        return CountedInterval(
            float(fields["mean"]), float(fields["low"]), float(fields["high"]), int(fields["n"])
        )

    def mean(self, column: str, name: str) -> float:
        """What tables show; of ``Dice`` and ``HD95_mm`` the mean of the structures' means.

        Structures that have no value in any case of some method are in no mean.
        """
        if column not in ("Dice", "HD95_mm"):
            return self.interval(column, name).mean
        means = pd.DataFrame({key: self.means[f"{column}:{key}"] for key in self.structures})
        table = means.map(lambda interval: interval["mean"]).astype(float).dropna(axis="columns")
        return float(table.loc[name].mean())

    @property
    def groups(self) -> list[str] | None:
        """Patient of each case; None where each case is its own."""
        return [self.patients[case] for case in self.cases] if self.patients else None


class Settings(BaseModel):
    """Number and seed of the bootstrap's draws."""

    n_bootstrap: int
    seed: int


class Trainer(BaseModel):
    """A method.

    Attributes:
        name: Unique, in all tables.
        label: For people.
        trainer: Class of nnU-Net; None for predictions that were given as a folder.
        ranked: False for one that is there for reference only.
    """

    name: str
    label: str
    trainer: str | None
    ranked: bool


class Column(BaseModel):
    """A metric: ``better`` is ``higher`` or ``lower``."""

    title: str
    unit: str
    better: str


class Table(BaseModel):
    """A table and the files that hold it, by name in the comparison's folder."""

    id: str
    files: list[str]


class Comparison(BaseModel):
    """comparison.json as far as it is needed.

    nnunet_nacl/comparison/comparison_report.py says what its keys mean.
    """

    settings: Settings
    trainers: list[Trainer]
    columns: dict[str, Column]
    tables: list[Table]
    datasets: list[Dataset]

    @property
    def labels(self) -> dict[str, str]:
        """Label for people by name."""
        return {trainer.name: trainer.label for trainer in self.trainers}

    @property
    def ranked(self) -> list[str]:
        """Names of the methods that take part in ranks."""
        return [trainer.name for trainer in self.trainers if trainer.ranked]


def read_comparison(folder: Path) -> Comparison:
    """Reads a comparison's folder.

    Raises:
        InputError: It holds no comparison.json, or a damaged one.
    """
    path = folder / "comparison.json"
    fix = "give a folder that `nnunet_nacl compare` wrote"
    try:
        return Comparison.model_validate(read_json(path, fix))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise InputError(f"{path}: {where}: {error.errors()[0]['msg']}; {fix}.") from None


def relative_difference(
    reference: Sequence[float] | np.ndarray,
    values: Sequence[float] | np.ndarray,
    *,
    n_bootstrap: int,
    seed: int,
    groups: Sequence[str] | None = None,
) -> CountedInterval:
    """100 (mean of values / mean of reference - 1), in percent (fig. 7).

    Over the cases where both are defined, with a 95 % bootstrap interval over cases, or over
    patients where ``groups`` names them. NaN where the reference's mean is 0 or no case is left.
    """
    cases = pd.DataFrame({"old": reference, "new": values}, dtype=float)
    cases["patient"] = cases.index if groups is None else list(groups)
    cases = cases.dropna()
    n = len(cases)
    if n == 0 or cases["old"].mean() == 0:
        return CountedInterval(np.nan, np.nan, np.nan, n)
    percent = 100 * (float(cases["new"].mean()) / float(cases["old"].mean()) - 1)
    sums = cases.groupby("patient").sum()
    if len(sums) == 1:
        return CountedInterval(percent, np.nan, np.nan, n)
    counts = resamples(len(sums), n_bootstrap, seed)
    old = counts @ sums["old"].to_numpy()
    new = counts @ sums["new"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = 100 * (new / np.where(old > 0, old, np.nan) - 1)
    low, high = percentile_interval(drawn)
    return CountedInterval(percent, low, high, n)
