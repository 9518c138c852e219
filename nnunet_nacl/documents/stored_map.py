"""A calibration map as files hold it: what all labels share once, and a row for each number that differs by label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.calibration.log_odds_map import LogOddsMap


class MapRow(TypedDict):
    """What a map does with one structure where the network chose one label.

    Attributes:
        label: Index of the label (regions: 1 in, 0 out).
        structure: Index of the structure.
        slope: Of the structure's own log-odds.
        total: Of v, see :mod:`nnunet_nacl.calibration.log_odds_map`.
        offset: Added.
        others: By index, the slopes of other structures' log-odds.
    """

    label: int
    structure: int
    slope: float
    total: float
    offset: float
    others: NotRequired[dict[str, float]]


class StoredMap(TypedDict):
    """A map: rows by label that differ from what is common to all; or, of earlier versions, whole tables.

    Attributes:
        slopes: The same for every label, a column a structure; earlier: a row a label.
        offsets: Alike.
        rows: What differs by label.
        ridge: Of the fit; null for none.
    """

    slopes: list[list[Any]]
    offsets: list[list[float]]
    rows: NotRequired[list[MapRow]]
    ridge: NotRequired[float | None]


def stored_map(calibration: LogOddsMap) -> StoredMap:
    """A map as files hold it."""
    if calibration.is_affine:
        return {"slopes": calibration.slopes.tolist(), "offsets": calibration.offsets.tolist()}
    table, own = calibration.coefficients(), calibration.own_slopes
    values, counts = np.unique(own, return_counts=True)
    common = values[counts.argmax()]  # of what stays as a centre of one slope has it
    rows: list[MapRow] = []
    for label, structure in np.argwhere(np.ones(own.shape, bool)).tolist():
        *slopes, total, offset = table[label, structure].tolist()
        others = {} if calibration.regions else {str(j): a for j, a in enumerate(slopes) if a and j != structure}
        if (own[label, structure], total, offset) == (common, 0, 0) and not others:
            continue
        slope = float(own[label, structure])
        row: MapRow = {"label": label, "structure": structure, "slope": slope, "total": total, "offset": offset}
        if others:
            row["others"] = others
        rows.append(row)
    num = calibration.num_structures
    return {"slopes": [[float(common)] * num], "offsets": [[0.0] * num], "rows": rows}


def loaded_map(stored: Mapping[str, Any], regions: bool) -> LogOddsMap:
    """Inverse of :func:`stored_map`; KeyError, IndexError or ValueError where it is none."""
    plain = LogOddsMap(np.array(stored["slopes"], float), np.array(stored["offsets"], float), regions)
    if "rows" not in stored:
        return plain
    table = plain.coefficients()
    for row in stored["rows"]:
        label, structure = row["label"], row["structure"]
        if min(label, structure) < 0:
            raise ValueError(f"no label {label} or structure {structure}")
        table[label, structure] = 0
        for other, slope in row.get("others", {}).items():
            table[label, structure, int(other)] = slope
        table[label, structure, 0 if regions else structure] = row["slope"]
        table[label, structure, -2:] = row["total"], row["offset"]
    return LogOddsMap(table[..., :-1], table[..., -1], regions)


def same_map(one: LogOddsMap, other: LogOddsMap) -> bool:
    """Whether two maps do the same."""
    tables = one.coefficients(), other.coefficients()
    return tables[0].shape == tables[1].shape and np.allclose(*tables)
