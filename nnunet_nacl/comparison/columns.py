"""What is compared of each case: the columns of a comparison, their titles and their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nnunet_nacl.documents.results import CHOSEN_MASKS, MASKS, CaseResult, nanmean
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.calibration_error import cece, ece
from nnunet_nacl.metrics.chosen import chosen_ece
from nnunet_nacl.metrics.scores import brier, nll

__all__ = ["CALIBRATION_METRICS", "CHOSEN", "RANK_METRICS", "Column", "case_value", "family_of", "make_columns"]

CALIBRATION_METRICS: dict[str, Callable[[BinStats], float]] = {
    "ECE": ece,
    "CECE_mean": cece,
    "CECE_sum": lambda stats: cece(stats, reduction="sum"),
    "NLL": nll,
    "Brier": brier,
}
CHOSEN = "ECE_chosen"
"""ECE of the segmentation's own label, on ``CHOSEN_MASKS``. That of the probabilities asks about the likeliest label:
another question where the segmentation is decided or postprocessed, so the two are never one column."""

_SHORT = {
    "ECE_chosen": "ECE of the chosen label",
    "Dice": "DSC",
    "HD95_mm": "HD95",
    "CECE_mean": "CECE",
    "CECE_sum": "CECE (sum)",
}

RANK_METRICS = ("Dice", "HD95_mm", "ECE:foreground", "CECE_mean:foreground")
"""The four metrics of the paper's ranks (fig. 2)."""


@dataclass(frozen=True)
class Column:
    """One number of each case.

    Attributes:
        title: Metric and what it was measured on, for people.
        group: ``discrimination`` or ``calibration``.
        better: ``lower`` or ``higher``.
        unit: ``mm`` or empty.
        metric: ``Dice``, ``HD95_mm``, ``CHOSEN``, or a key of ``CALIBRATION_METRICS``.
        mask: Of a calibration metric.
        structure: nnU-Net's key of one structure; None for all together.
    """

    title: str
    group: str
    better: str
    unit: str
    metric: str
    mask: str | None = None
    structure: str | None = None

    @property
    def short(self) -> str:
        """The metric's name alone."""
        return _SHORT.get(self.metric, self.metric)

    @property
    def unitless_title(self) -> str:
        """Where the unit is given apart."""
        return self.title.removesuffix(f" ({self.unit})")


def make_columns(structures: Sequence[Mapping[str, str]]) -> dict[str, Column]:
    """All columns by id: ``Dice``, ``Dice:1``, ``HD95_mm:2``, ``ECE:foreground``, ...

    Args:
        structures: Names by nnU-Net's key, of each data set. A column's title holds a structure's name where all data
            sets with that key agree on it, else the key.
    """
    names: dict[str, set[str]] = {}
    for entry in structures:
        for key, name in entry.items():
            names.setdefault(key, set()).add(name)
    shown = {key: next(iter(found)) if len(found) == 1 else f"structure {key}" for key, found in names.items()}
    result = {}
    for metric, better, unit in (("Dice", "higher", ""), ("HD95_mm", "lower", "mm")):
        suffix = f" ({unit})" if unit else ""
        result[metric] = Column(_SHORT[metric] + suffix, "discrimination", better, unit, metric)
        for key, name in shown.items():
            title = f"{_SHORT[metric]} {name}{suffix}"
            result[f"{metric}:{key}"] = Column(title, "discrimination", better, unit, metric, structure=key)
    for metric in CALIBRATION_METRICS:
        for mask in MASKS:
            title = f"{_SHORT.get(metric, metric)} {mask}"
            result[f"{metric}:{mask}"] = Column(title, "calibration", "lower", "", metric, mask)
    for mask in CHOSEN_MASKS:
        result[f"{CHOSEN}:{mask}"] = Column(f"{_SHORT[CHOSEN]} {mask}", "calibration", "lower", "", CHOSEN, mask)
    return result


def case_value(case: CaseResult, column: Column) -> float:
    """The column's value in a case; NaN where it is undefined, or the data set has no such structure.

    ``Dice`` and ``HD95_mm`` of all structures together are the mean over those that are defined in the case; a
    comparison takes for ``HD95_mm`` only those that are defined for all trainers.
    """
    if column.mask is not None:
        if column.metric == CHOSEN:
            return chosen_ece(case.chosen[column.mask]) if case.chosen else math.nan
        return float(CALIBRATION_METRICS[column.metric](case.stats[column.mask]))
    found = case.structures if column.structure is None else {column.structure: case.structures.get(column.structure)}
    values = (
        structure.overlap.dice if column.metric == "Dice" else structure.hd95_mm
        for structure in found.values()
        if structure is not None
    )
    return nanmean(values)


def family_of(column_id: str, column: Column) -> str | None:
    """The table whose tests are corrected together with this column's; None if it is not tested.

    ``CECE_sum`` is ``CECE_mean`` times the number of classes: testing both would count one question twice. Of CECE
    only the foreground's is tested, the paper's: with it on five more masks all other tests would lose power.
    The ECE of the chosen label is not tested: where the likeliest label is delivered, as mostly, it is the ECE.
    """
    if column.group == "discrimination":
        return "discrimination"
    if column_id in ("ECE:foreground", "CECE_mean:foreground"):
        return "calibration"
    return "calibration_masks" if column.metric in ("ECE", "NLL", "Brier") else None
