"""What is compared of each case: the columns of a comparison, their titles and their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnunet_nacl.case.results import MASKS, CaseResult
from nnunet_nacl.numbers.calibration_error import MASK_METRICS, nanmean

CALIBRATION_METRICS = {name: metric for name, metric in MASK_METRICS.items() if metric.meaning}
_SHORT = {"Dice": "DSC", "HD95_mm": "HD95"} | {name: metric.title for name, metric in CALIBRATION_METRICS.items()}

MAIN_COLUMNS = ("Dice", "HD95_mm", "ECE:foreground", "CECE_mean:foreground")
"""What is shown first of every comparison."""


@dataclass(frozen=True)
class Column:
    """One number of each case.

    Attributes:
        title: Metric and what it was measured on, for people.
        group: ``discrimination`` or ``calibration``.
        better: ``lower`` or ``higher``.
        unit: ``mm`` or empty.
        metric: ``Dice``, ``HD95_mm``, or one of ``CALIBRATION_METRICS``.
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


def make_columns(structures: Sequence[Mapping[str, str]]) -> dict[str, Column]:
    """All columns by id: ``Dice``, ``Dice:1``, ``HD95_mm:2``, ``ECE:foreground``, ...

    Args:
        structures: Names by nnU-Net's key, of each data set. A column's title holds a structure's name where all data
            sets with that key agree on it, else the key.
    """
    names: dict[str | None, str] = {None: ""}
    for key, name in (item for names_by_key in structures for item in names_by_key.items()):
        names[key] = name if names.get(key, name) == name else f"structure {key}"
    result = {}
    for metric, better, unit in (("Dice", "higher", ""), ("HD95_mm", "lower", "mm")):
        for structure, name in names.items():
            title = f"{_SHORT[metric]} {name}".rstrip() + (f" ({unit})" if unit else "")
            column_id = f"{metric}:{structure}" if structure else metric
            result[column_id] = Column(title, "discrimination", better, unit, metric, structure=structure)
    for metric in CALIBRATION_METRICS:
        for mask in MASKS:
            title = f"{_SHORT[metric]} {mask}"
            result[f"{metric}:{mask}"] = Column(title, "calibration", "lower", "", metric, mask)
    return result


def column_values(case: CaseResult) -> dict[str, float]:
    """The value of each column of a case's data set, by id; NaN where it is undefined.

    ``Dice`` and ``HD95_mm`` of all structures together are the mean over those that are defined in the case; a
    comparison takes for ``HD95_mm`` only those that are defined for all trainers.
    """
    values: dict[str, float] = {}
    distances = {key: structure.HD95_mm for key, structure in case.metrics.items()}
    for metric, by_structure in (("Dice", case.dice), ("HD95_mm", distances)):
        values[metric] = nanmean(by_structure.values())
        values |= {f"{metric}:{key}": value for key, value in by_structure.items()}
    for mask in MASKS:
        values |= {f"{metric}:{mask}": case.calibration[mask][metric] for metric in CALIBRATION_METRICS}
    return values


def family_of(column_id: str, column: Column) -> str | None:
    """The table whose tests are corrected together with this column's; None if it is not tested.

    ``CECE_sum`` is ``CECE_mean`` times the number of classes: testing both would count one question twice. Of CECE
    only the foreground's is tested, the paper's: with it on five more masks all other tests would lose power.
    """
    if column.group == "discrimination":
        return "discrimination"
    if column_id in ("ECE:foreground", "CECE_mean:foreground"):
        return "calibration"
    return "calibration_masks" if CALIBRATION_METRICS[column.metric].tested else None
