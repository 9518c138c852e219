"""The form of a calibration map in a file: common slopes, and a row where a label and structure differ from them."""

from __future__ import annotations

import numpy as np
from pydantic import NonNegativeInt
from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.json_types import Coefficient, Size
from nnunet_nacl.numbers.log_odds_map import LogOddsMap


class MapRow(TypedDict):
    """What a map does with one structure where the network chose one label.

    Attributes:
        label: Index of the label (regions: 1 in, 0 out).
        structure: Index of the structure.
        slope: Of the structure's own log-odds.
        total: Of v, see :mod:`nnunet_nacl.numbers.log_odds_map`.
        offset: Added.
        others: By index, the slopes of other structures' log-odds.
    """

    label: NonNegativeInt
    structure: NonNegativeInt
    slope: Coefficient
    total: Coefficient
    offset: Coefficient
    others: NotRequired[dict[int, Coefficient]]


class StoredMap(TypedDict):
    """A map: rows by label that differ from what is common to all.

    Attributes:
        slopes: One row, the same for every label; a column a structure.
        offsets: Alike.
        rows: What differs by label.
        ridge: Of the fit; null for none.
    """

    slopes: list[list[Coefficient]]
    offsets: list[list[Coefficient]]
    rows: NotRequired[list[MapRow]]
    ridge: NotRequired[Size]


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
        others = {} if calibration.regions else {j: a for j, a in enumerate(slopes) if a and j != structure}
        if (own[label, structure], total, offset) == (common, 0, 0) and not others:
            continue
        slope = float(own[label, structure])
        row: MapRow = {"label": label, "structure": structure, "slope": slope, "total": total, "offset": offset}
        if others:
            row["others"] = others
        rows.append(row)
    num = calibration.num_structures
    return {"slopes": [[float(common)] * num], "offsets": [[0.0] * num], "rows": rows}


def loaded_map(stored: StoredMap, regions: bool) -> LogOddsMap:
    """Inverse of :func:`stored_map`; ValueError where it is none."""
    plain = LogOddsMap(np.array(stored["slopes"], float), np.array(stored["offsets"], float), regions)
    if "rows" not in stored:
        return plain
    table = plain.coefficients()
    for row in stored["rows"]:
        label, structure, others = row["label"], row["structure"], row.get("others", {})
        try:
            table[label, structure] = 0
            for other, slope in others.items():
                table[label, structure, other] = slope
        except IndexError:
            raise ValueError(f"no label {label}, or no structure {[structure, *others]}") from None
        table[label, structure, 0 if regions else structure] = row["slope"]
        table[label, structure, -2:] = row["total"], row["offset"]
    return LogOddsMap(table[..., :-1], table[..., -1], regions)
