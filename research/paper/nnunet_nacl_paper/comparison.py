"""What `nnunet_nacl compare` wrote into comparison.json, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from nnunet_nacl.metrics.statistics import Interval, percentile_interval, resamples
from nnunet_nacl_paper.files import InputError, read_json

RANK_METRICS = ("Dice", "HD95_mm", "ECE:foreground", "CECE_mean:foreground")
"""Columns of the four metrics that the paper ranks by and draws."""

SHORT = {"Dice": "DSC", "HD95_mm": "HD95", "ECE:foreground": "ECE", "CECE_mean:foreground": "CECE"}


class Dataset(BaseModel):
    """A data set as all methods saw it.

    Attributes:
        name: nnU-Net's name.
        cases: Their names.
        structures: Names by nnU-Net's key.
        values: By column and method's name, one number a case; None where it is undefined.
        means: By column and method's name, the fields of an ``Interval``.
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
        return pd.DataFrame(
            {name: self.values[column][name] for name in names}, dtype=float
        ).to_numpy()

    def interval(self, column: str, name: str) -> Interval:
        """Mean over the cases with its 95 % interval."""
        found = {
            key: np.nan if value is None else value
            for key, value in self.means[column][name].items()
        }
        return Interval(found["mean"], found["low"], found["high"], int(found["n"]))

    def mean(self, column: str, name: str) -> float:
        """What tables show: of ``Dice`` and ``HD95_mm`` the mean of the structures' means, as
        nnU-Net's.

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


class Comparison(BaseModel):
    """comparison.json, as far as it is needed.

    nnunet_nacl/evaluation/comparison_report.py says what its keys mean.
    """

    settings: dict[str, Any]
    trainers: list[dict[str, Any]]
    columns: dict[str, dict[str, Any]]
    tables: list[dict[str, Any]]
    datasets: list[Dataset]

    @property
    def labels(self) -> dict[str, str]:
        """Label for people by name."""
        return {one["name"]: one["label"] for one in self.trainers}

    @property
    def ranked(self) -> list[str]:
        """Names of the methods that take part in ranks: all but those that are there for reference
        only."""
        return [one["name"] for one in self.trainers if one["ranked"]]

    @property
    def draws(self) -> dict[str, Any]:
        """Number and seed of the bootstrap's draws, as arguments."""
        return {key: self.settings[key] for key in ("n_bootstrap", "seed")}


def read_comparison(folder: Path) -> Comparison:
    """Reads a comparison's folder.

    Raises:
        InputError: It holds no comparison.json, or a damaged one.
    """
    path, fix = folder / "comparison.json", "give a folder that `nnunet_nacl compare` wrote"
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
) -> Interval:
    """100 (mean of values / mean of reference - 1) in percent over the cases where both are defined
    (fig. 7).

    With a 95 % bootstrap interval over cases, or over patients where ``groups`` names them. NaN
    where the reference's mean is 0 or no case is left.
    """
    old, new = np.asarray(reference, np.float64), np.asarray(values, np.float64)
    both = ~(np.isnan(old) | np.isnan(new))
    old, new = old[both], new[both]
    n, nan = len(old), float("nan")
    if n == 0 or old.mean() == 0:
        return Interval(nan, nan, nan, n)
    percent = 100 * (float(new.mean()) / float(old.mean()) - 1)
    patients = (
        np.arange(n)
        if groups is None
        else np.unique(np.asarray(groups)[both], return_inverse=True)[1]
    )
    old, new = (np.bincount(patients, one).astype(np.float64) for one in (old, new))
    if len(old) == 1:
        return Interval(percent, nan, nan, n)
    counts = resamples(len(old), n_bootstrap, seed)
    below = counts @ old
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = 100 * (counts @ new / np.where(below > 0, below, np.nan) - 1)
    return Interval(percent, *percentile_interval(drawn), n)
