"""The form of a calibration map in a file: common slopes, and a row where a label and structure differ from them."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import NonNegativeInt
from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.json_types import Coefficient, Size, doc
from nnunet_nacl.numbers.log_odds_map import LogOddsMap


class MapRow(TypedDict):
    """What a map does with one structure where the network chose one label."""

    label: Annotated[NonNegativeInt, doc("Index c of the label (regions: 1 in, 0 out).")]
    structure: Annotated[NonNegativeInt, doc("Index k of the structure.")]
    slope: Annotated[Coefficient, doc("a_ckk, of the structure's own log-odds.")]
    total: Annotated[Coefficient, doc("g_ck, of v.")]
    offset: Annotated[Coefficient, doc("b_ck.")]
    others: NotRequired[Annotated[dict[int, Coefficient], doc("a_ckj by index j, of other structures' log-odds.")]]


class StoredMap(TypedDict):
    """A map: rows by label that differ from what is common to all."""

    slopes: Annotated[list[list[Coefficient]], doc("One row for all labels: a_ckk of each structure.")]
    offsets: Annotated[list[list[Coefficient]], doc("One row for all labels: b_ck of each structure.")]
    rows: NotRequired[Annotated[list[MapRow], doc("Where a label and structure differ from these.")]]
    ridge: NotRequired[Annotated[Size, doc("Penalty of the fit; null for none.")]]


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
