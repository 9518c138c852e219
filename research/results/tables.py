"""The tables of the pages: which rows of results.csv stand where."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from losses import LOSSES, SCHEDULE
from measure import MEMBERS, ORDERS, PEERS
from rows import KEYS

from nnunet_nacl.quality.recall import RECALLS

STOCK = {"dataset": "LIDC", "trainer": "DiceCE_25epochs_100iters_adam"}
EARLIER = {"trainer": "DiceCE_100epochs_50iters"}
LIMITS = {"EMIDEC": "0.3", "ACDC": "0.8", "Hippocampus": "0.8", "DRIVE": "0.75"}
CASES = {"outer": "test", "folds": "cross-validation"}
NOT_SHOWN = "not shown"
COSTS = {"times nnU-Net's": "2i?", "CPU s": "0?", "peak memory (GB)": "1?"}
"""Quantities of costs, and how they are shown."""

Row = tuple[str, Mapping[str, str] | None]
Column = tuple[str, Mapping[str, str], str]


class Values:
    """results.csv, whose rows are asked for by some of their keys."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table

    def cell(self, keys: Mapping[str, str], kind: str) -> str:
        """A value as text; ValueError where several rows have these keys.

        Args:
            keys: Of the row; `{NAME}` in one stands for another that is no column.
            kind: Digits of the value (`2`), with its interval (`2i`), `n` for patients and scans, or `p` for patients;
                a `?` behind it: nothing where there is no such row.
        """
        own = {key: value.format(**keys) for key, value in keys.items() if key in KEYS}
        found = self.table[np.all([self.table[key] == value for key, value in own.items()], axis=0)]
        if len(found) > 1:
            raise ValueError(f"{len(found)} rows have {dict(keys)}")
        if found.empty or pd.isna(found.value.iloc[0]):
            return NOT_SHOWN if not kind.endswith("?") else ""
        row = found.iloc[0]
        if kind == "n":
            return f"{row.n_patients:.0f} ({row.n_cases:.0f})"
        if kind == "p":
            return f"{row.n_patients:.0f}"
        digits, interval = int(kind[0]), "i" in kind and not pd.isna(row.low)
        value, low, high = (
            f"{each + 0:.{digits}f}".replace("-0.00", "0.00") for each in (row.value, row.low, row.high)
        )
        return f"{value} [{low}, {high}]" if interval else value

    def lines(self, title: str, rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
        """A table; a row without keys is a heading."""
        lines = [f"| {title} | {' | '.join(name for name, _, _ in columns)} |", f"| :-- |{' --: |' * len(columns)}"]
        for label, keys in rows:
            cells = [""] * len(columns)
            if keys is not None:
                cells = [self.cell({**keys, **own}, kind) for _, own, kind in columns]
                if set(cells) == {NOT_SHOWN}:
                    cells = [NOT_SHOWN] + [""] * (len(columns) - 1)
            lines.append(
                f"| {label} | {' | '.join(cells)} |" if keys is not None else f"| **{label}** |{' |' * len(columns)}"
            )
        return lines


def _quantities(names: Mapping[str, str], kind: str, **keys: str) -> list[Column]:
    return [(title, {"quantity": quantity, **keys}, kind) for title, quantity in names.items()]


def _readme(values: Values) -> list[str]:
    method = "-find 0.9 -bad "
    rows: list[Row] = [
        (f"lung nodules, {CASES[cases]} cases", {**STOCK, "cases": cases, "method": f"{method}0.5"}) for cases in CASES
    ]
    for name, title in (("EMIDEC", "infarcts"), ("ACDC", "heart"), ("Hippocampus", "brain")):
        keys = {"dataset": name, **EARLIER, "cases": "folds", "method": method + LIMITS[name]}
        rows.append((f"{title} ({name}), cross-validation cases", keys))
    columns = [("patients (scans)", {"quantity": "flagged"}, "n"), ("bad", {"quantity": "bad"}, "2")]
    columns += [("flagged", {"quantity": "flagged"}, "2i"), ("found of the bad", {"quantity": "found"}, "2i")]
    return values.lines("aim: nine of ten bad scans", rows, columns)


def _list(values: Values) -> list[str]:
    rows: list[Row] = []
    for cases, title in CASES.items():
        rows.append((f"{title} cases", None))
        rows += [
            (f"`{method}`", {**STOCK, "cases": cases, "method": f"{method} -bad 0.5"})
            for method in ("-find 0.8", "-find 0.9", "-find 0.95", "-miss 0.05")
        ]
    columns = [("patients with a bad scan", {"quantity": "found"}, "p")]
    columns += _quantities(
        {"found of the bad": "found", "flagged": "flagged", "bad, not flagged": "bad and not flagged"}, "2i"
    )
    return values.lines("bad: Dice below 0.5", rows, columns)


def _orders(values: Values) -> list[str]:
    rows: list[Row] = []
    for cases, title in CASES.items():
        rows.append((f"{title} cases", None))
        names = (*ORDERS, MEMBERS) if cases == "outer" else ORDERS
        rows += [(name, {**STOCK, "cases": cases, "order": name}) for name in names]
    columns: list[Column] = []
    for limit in ("0.5", "0.6", "0.7"):
        keys = {"quantity": "AUROC", "method": f"{{order}}, bad below {limit}"}
        columns.append((f"AUROC, bad below {limit}", keys, "2i" if limit == "0.5" else "2"))
    keys = {"quantity": "flagged to find 0.9", "method": "{order}, bad below 0.5"}
    return values.lines("order", rows, [*columns, ("flagged to find 0.9, bad below 0.5", keys, "2i")])


def _patients(values: Values) -> list[str]:
    rows: list[Row] = []
    for cases, title in CASES.items():
        rows.append((f"{title} cases", None))
        rows += [
            (f"{size}", {**STOCK, "cases": cases, "method": f"-find 0.9 -bad 0.5, {size} patients"})
            for size in (20, 40, 80, 160)
        ]
    columns = _quantities({"found of the bad": "found, mean over draws", "flagged": "flagged, mean over draws"}, "2i")
    columns += _quantities({"draws that found less than 0.8": "found below 0.8, share of draws"}, "2")
    columns += _quantities({"draws without a promise": "refused, share of draws"}, "2")
    return values.lines("calibration patients", rows, columns)


def _calibration(values: Values) -> list[str]:
    rows: list[Row] = []
    for cases, title in CASES.items():
        rows.append((f"{title} cases", None))
        rows += [
            (name, {**STOCK, "cases": cases, "method": name})
            for name in ("as trained", "map", "temperature", "shift", *PEERS)
        ]
    names = {"NLL, segmented": "NLL predicted", "NLL, all": "NLL all", "Brier, segmented": "Brier predicted"}
    kinds = ("2i", "4", "3")
    columns = [column[0] for column in (_quantities({k: v}, kind) for (k, v), kind in zip(names.items(), kinds))]
    columns += _quantities({"pooled ECE": "pooled ECE predicted"}, "3i")
    columns += _quantities({"gap to share of raters": "gap to share of raters"}, "3i?")
    return values.lines("probabilities", rows, columns)


def _recall(values: Values) -> list[str]:
    rows: list[Row] = []
    for cases, title in CASES.items():
        rows.append((f"{title} cases", None))
        methods = ["nnU-Net's labels", *(f"-recall {recall}" for recall in RECALLS)]
        rows += [
            (f"`{name}`" if name[0] == "-" else name, {**STOCK, "cases": cases, "method": name}) for name in methods
        ]
    columns = _quantities({"patients": "missed"}, "p") + _quantities({"share of voxels missed": "missed"}, "2i")
    columns += _quantities({"times larger (median)": "times larger, median"}, "2")
    return values.lines("labels", rows, columns + _quantities({"false voxels (median)": "false voxels, median"}, "0"))


def _losses(values: Values) -> list[str]:
    trained = [loss for loss in LOSSES if (values.table.trainer == f"{loss}_{SCHEDULE}").any()]
    rows: list[Row] = []
    for method in ("as trained", "map") if trained else ():
        rows.append((method if method == "as trained" else "with a map", None))
        for loss in trained:
            keys = {"trainer": f"{loss}_{SCHEDULE}", "method": method, "cases": "folds"}
            rows.append((loss.replace("DiceCE", "Dice + CE (nnU-Net's)"), keys))
    columns = _quantities({"patients (scans)": "NLL all"}, "n") + _quantities({"Dice": "Dice where present"}, "2")
    columns += _quantities({"missed": "missed", "invented": "invented"}, "2")
    columns += _quantities({"ECE foreground": "ECE foreground", "pooled ECE predicted": "pooled ECE predicted"}, "2i")
    lines = values.lines("loss", rows, columns + _quantities({"NLL": "NLL all"}, "4")) if rows else []
    said = [_difference(values, loss) for loss in ("NACL", "CE") if loss in trained]
    missing = [loss for loss in LOSSES if loss not in trained]
    said += [f"Not shown: {', '.join(missing)}."] if missing else []
    return [*lines, *([""] if lines and said else []), *said]


def _difference(values: Values, loss: str) -> str:
    """What a loss changes beside nnU-Net's, in the same cases of the same folds, as trained."""
    keys = {"trainer": f"{loss}_{SCHEDULE}", "method": f"as trained less {LOSSES[0]} as trained", "cases": "folds"}
    dice, error = (
        values.cell({**keys, "quantity": quantity}, "3i") for quantity in ("Dice where present", "ECE foreground")
    )
    return f"{loss} less nnU-Net's loss, in the same cases: ECE foreground {error}, Dice {dice}."


def _data_sets(values: Values) -> list[str]:
    rows: list[Row] = []
    for cases, title in CASES.items():
        rows.append((f"{title} cases", None))
        rows.append(("LIDC", {**STOCK, "cases": cases, "limit": "0.5"}))
        rows += [(name, {**EARLIER, "dataset": name, "cases": cases, "limit": limit}) for name, limit in LIMITS.items()]
    columns: list[Column] = [("patients (scans)", {"quantity": "NLL all", "method": "map"}, "n")]
    columns += _quantities({"found": "found", "flagged": "flagged"}, "2i", method="-find 0.9 -bad {limit}")
    columns += _quantities({"AUROC": "AUROC"}, "2", method="predicted Dice, bad below {limit}")
    columns += _quantities(
        {"true Dice in its interval": "coverage of Dice", "true volume in its interval": "coverage of volume"}, "2"
    )
    for name, quantity, digits in (("NLL", "NLL all", "4"), ("pooled ECE", "pooled ECE predicted", "3")):
        columns += _quantities({f"{name} as trained": quantity}, digits, method="as trained")
        columns += _quantities({"with a map": quantity}, digits, method="map")
    return values.lines("data set", rows, columns)


def _costs(values: Values) -> list[str]:
    names = dict.fromkeys(values.table.method[values.table.quantity.isin(COSTS)])
    rows: list[Row] = [(name, {"method": name, "dataset": ""}) for name in names]
    columns = [(name, {"quantity": name}, kind) for name, kind in COSTS.items()]
    return values.lines("what", rows, columns)


def _every(values: Values) -> list[str]:
    text = values.table.to_csv(index=False)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return [f"All {len(values.table)} values: `research/results/results.csv` (checksum `{digest}`)."]


TABLES: dict[str, Callable[[Values], list[str]]] = {
    "readme": _readme,
    "list": _list,
    "orders": _orders,
    "patients": _patients,
    "calibration": _calibration,
    "recall": _recall,
    "losses": _losses,
    "data_sets": _data_sets,
    "costs": _costs,
    "every": _every,
}
