"""The tables of the pages: which rows of results.csv stand where."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from calibration_rows import PEERS
from decisions import BIAS, LEFT_OUT, OWN_CHANGE, TUNED
from decisions import LOSSES as DECIDED_LOSSES
from few_patients import OWN_SIZES
from heart import ACE as HEART_ACE
from heart import DICE as HEART_DICE
from heart import MEAN, SINGLE
from level_of_tests import FILE as LEVELS
from losses import EACH_FOLD, LOSSES, REFERENCE, SCHEDULE
from mapie_rows import ENDS, JACKKNIFE, MAPIE_GRIDS, SLICES
from marginal_ace import ACE, ACE_WITH_BACKGROUND, DICE
from recall_rows import NNUNET
from rows import KEYS, read_csv
from scans import (
    AS_TRAINED,
    AURC,
    BEST,
    BY_CHANCE,
    ENTROPY,
    EXCESS_AURC,
    MEMBERS,
    ORDERS,
    PREDICTED,
    PRESENCE,
    PRESENT,
    SEGMENTED,
)
from study import MAP, RAW
from tuned_networks import TUNED_MAP, cases_of_study
from weighted_limits import (
    NO_INTERVAL,
    NO_RECALL,
    ONLY_FLAGGED,
    UNWEIGHTED,
    WEIGHTED,
    WITH_INTERVAL,
)

from nnunet_nacl.estimators.recall import RECALLS

STOCK = {"dataset": "LIDC", "trainer": "DiceCE_25epochs_100iters_adam"}
EARLIER = {"trainer": "DiceCE_100epochs_50iters"}
BREAST = {"dataset": "BUS-BRA", "trainer": "DiceCE_25epochs_100iters_adam"}
OTHER_SCANNERS = {"logiq5": "Logiq 5", "toshiba": "Toshiba", "usystems": "U-Systems"}
SCANNERS = {
    "folds": "Logiq 7, cross-validation cases",
    "outer": "Logiq 7, test cases",
    **OTHER_SCANNERS,
}
"""Of BUS-BRA, by what results.csv calls its cases."""
GE = {"dataset": "LIDC-GE-networks", "trainer": "DiceCE_25epochs_100iters_adam"}
MANUFACTURERS = {
    "folds": "GE, cross-validation cases",
    "outer": "GE, test cases",
    "SIEMENS": "Siemens",
    "Philips": "Philips",
    "TOSHIBA": "Toshiba",
}
"""Of the lung nodules, by what results.csv calls the cases of networks of GE patients alone."""
AUGMENTED_SCHEDULE = "25epochs_100iters_adam"
"""Of the losses that are compared with nnU-Net's augmentation."""
ACE_SCHEDULE = "100epochs_50iters"
"""Of the losses that are compared by marginal ACE."""
STRUCTURE_OF = {"LIDC": "nodule", "BUS-BRA": "lesion"}
"""Of the data sets whose tuned networks are tested."""
LIMITS = {"EMIDEC": "0.3", "ACDC": "0.8", "Hippocampus": "0.8", "DRIVE": "0.75"}
CASES = {"outer": "test", "folds": "cross-validation"}
NOT_SHOWN = "not shown"
COSTS = {"times nnU-Net's": "2i?", "CPU s": "0?", "peak memory (GB)": "1?"}
"""Quantities of costs, and how they are shown."""

Keys = Mapping[str, str]
"""Some keys of a row of results.csv; `{NAME}` in one stands for another that is no column."""


class Line(NamedTuple):
    """A row of a table: its name and keys; without keys it is a heading."""

    name: str
    keys: Keys | None = None


class Column(NamedTuple):
    """A column of a table: its name, its keys, and how its values are shown, see
    :meth:`Values.cell`."""

    name: str
    keys: Keys
    kind: str


class Values:
    """results.csv, whose rows are asked for by some of their keys."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table

    def cell(self, keys: Keys, kind: str) -> str:
        """A value as text; ValueError where several rows have these keys.

        Args:
            keys: Of the row.
            kind: Digits of the value (`2`), with its interval (`2i`), `e` for one digit that
                counts, `n` for patients and scans, or `p` for patients; a `?` behind it: nothing
                where there is no such row.
        """
        wanted = {key: value.format(**keys) for key, value in keys.items() if key in KEYS}
        rows = self.table[
            np.all([self.table[key] == value for key, value in wanted.items()], axis=0)
        ]
        if len(rows) > 1:
            raise ValueError(f"{len(rows)} rows have {dict(keys)}")
        if rows.empty or pd.isna(rows.value.iloc[0]):
            return "" if kind.endswith("?") else NOT_SHOWN
        row = rows.iloc[0]
        if kind == "n":
            return f"{row.n_patients:.0f} ({row.n_cases:.0f})"
        if kind == "p":
            return f"{row.n_patients:.0f}"
        if kind.startswith("e"):
            return f"{row.value:.1g}" if row.value > 0 else "below 1e-9"
        digits = int(kind[0])
        value = fixed(row.value, digits)
        if "i" in kind and not pd.isna(row.low):
            return f"{value} [{fixed(row.low, digits)}, {fixed(row.high, digits)}]"
        return value

    def lines(self, title: str, rows: Sequence[Line], columns: Sequence[Column]) -> list[str]:
        """A table; a row without any value says so once."""
        lines = [
            f"| {title} | {' | '.join(column.name for column in columns)} |",
            f"| :-- |{' --: |' * len(columns)}",
        ]
        for row in rows:
            if row.keys is None:
                lines.append(f"| **{row.name}** |{' |' * len(columns)}")
                continue
            cells = [self.cell({**row.keys, **column.keys}, column.kind) for column in columns]
            if set(cells) == {NOT_SHOWN}:
                cells = [NOT_SHOWN] + [""] * (len(columns) - 1)
            lines.append(f"| {row.name} | {' | '.join(cells)} |")
        return lines


def fixed(value: float, digits: int) -> str:
    """A number with so many decimals, and no sign before what is 0."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def quantity_columns(quantities: Mapping[str, str], kind: str, **keys: str) -> list[Column]:
    """A column for each quantity by the name that the page has for it."""
    return [
        Column(name, {"quantity": quantity, **keys}, kind) for name, quantity in quantities.items()
    ]


def readme_table(values: Values) -> list[str]:
    """What a list finds: on the largest test set, on another scanner, of a structure that may be
    absent, and where it failed."""
    rows = []
    for title, keys, cases, limit in (
        ("lung nodules, the largest test set", STOCK, "outer", "0.5"),
        ("another scanner, ultrasound (Logiq 5)", BREAST, "logiq5", "0.7"),
        (
            "infarcts, which may be absent (EMIDEC)",
            {**EARLIER, "dataset": "EMIDEC"},
            "outer",
            "0.3",
        ),
        ("hippocampus", {**EARLIER, "dataset": "Hippocampus"}, "outer", "0.8"),
    ):
        method = f"-find 0.9 -bad {limit}"
        rows.append(Line(f"{title}, `-bad {limit}`", {**keys, "cases": cases, "method": method}))
    columns = [
        Column("patients (scans)", {"quantity": "flagged"}, "n"),
        Column("patients with a bad scan", {"quantity": "found"}, "p"),
        Column("bad", {"quantity": "bad"}, "2"),
        Column("flagged", {"quantity": "flagged"}, "2i"),
        Column("found of the bad", {"quantity": "found"}, "2i"),
    ]
    return values.lines("new cases", rows, columns)


def list_table(values: Values) -> list[str]:
    """What a list finds by its aims."""
    rows = []
    for cases, title in CASES.items():
        rows.append(Line(f"{title} cases"))
        for method in ("-find 0.8", "-find 0.9", "-find 0.95", "-miss 0.05"):
            rows.append(
                Line(f"`{method}`", {**STOCK, "cases": cases, "method": f"{method} -bad 0.5"})
            )
    quantities = {
        "found of the bad": "found",
        "flagged": "flagged",
        "bad, not flagged": "bad and not flagged",
    }
    columns = [
        Column("patients with a bad scan", {"quantity": "found"}, "p"),
        *quantity_columns(quantities, "2i"),
    ]
    return values.lines("bad: Dice below 0.5", rows, columns)


def orders_table(values: Values) -> list[str]:
    """How well orders bring bad scans to the top."""
    rows = []
    for cases, title in CASES.items():
        rows.append(Line(f"{title} cases"))
        orders = (*ORDERS, MEMBERS) if cases == "outer" else ORDERS
        rows += [Line(order, {**STOCK, "cases": cases, "order": order}) for order in orders]
    columns = []
    for limit, kind in (("0.5", "2i"), ("0.6", "2"), ("0.7", "2")):
        keys = {"quantity": "AUROC", "method": f"{{order}}, bad below {limit}"}
        columns.append(Column(f"AUROC, bad below {limit}", keys, kind))
    keys = {"quantity": "flagged to find 0.9", "method": "{order}, bad below 0.5"}
    columns.append(Column("flagged to find 0.9, bad below 0.5", keys, "2i"))
    return values.lines("order", rows, columns)


def areas_table(values: Values) -> list[str]:
    """Areas under the risk-coverage curves of orders."""
    lines = [
        Line(f"lung nodules, {CASES[cases]} cases", {**STOCK, "cases": cases}) for cases in CASES
    ]
    lines += scanner_lines()
    for cases, title in CASES.items():
        keys = {**EARLIER, "dataset": "EMIDEC", "cases": cases}
        lines.append(Line(f"EMIDEC, {title} cases", keys))
    columns = [Column("patients (scans)", {"quantity": AURC, "method": PREDICTED}, "n")]
    for order in (BEST, BY_CHANCE):
        columns.append(Column(order, {"quantity": AURC, "method": order}, "3"))
    columns.append(Column(PREDICTED, {"quantity": AURC, "method": PREDICTED}, "3i"))
    columns.append(Column("its excess", {"quantity": EXCESS_AURC, "method": PREDICTED}, "3i"))
    for order in (AS_TRAINED, ENTROPY, MEMBERS, PRESENCE):
        keys = {"quantity": AURC, "method": f"{order} less {PREDICTED}"}
        columns.append(Column(f"{order}, less predicted Dice", keys, "3i?"))
    return values.lines("AURC", lines, columns)


def members_table(values: Values) -> list[str]:
    """Members' Dice beside predicted Dice, of all nodules and of some."""
    lines = []
    for which, suffix in (
        ("all scans", ""),
        (SEGMENTED, f", {SEGMENTED}"),
        (PRESENT, f", {PRESENT}"),
    ):
        lines.append(Line(which, {**STOCK, "cases": "outer", "which": suffix}))
    columns = [
        Column("patients (scans)", {"quantity": f"{AURC}{{which}}", "method": PREDICTED}, "n")
    ]
    for order in (PREDICTED, MEMBERS, f"{MEMBERS} less {PREDICTED}"):
        columns.append(Column(order, {"quantity": f"{AURC}{{which}}", "method": order}, "3i"))
    return values.lines("AURC, lung nodules, test cases", lines, columns)


def patients_table(values: Values) -> list[str]:
    """What a list finds that was learned from few patients."""
    rows = []
    for cases, title in CASES.items():
        rows.append(Line(f"{title} cases"))
        for size in (20, 40, 80, 160):
            rows.append(
                Line(
                    f"{size}",
                    {**STOCK, "cases": cases, "method": f"-find 0.9 -bad 0.5, {size} patients"},
                )
            )
    means = {"found of the bad": "found, mean over draws", "flagged": "flagged, mean over draws"}
    shares = {
        "draws that found less than 0.8": "found below 0.8, share of draws",
        "draws without a limit": "refused, share of draws",
    }
    columns = [*quantity_columns(means, "2i"), *quantity_columns(shares, "2")]
    return values.lines("calibration patients", rows, columns)


def scanners_table(values: Values) -> list[str]:
    """What lists, intervals and larger labels hold on each scanner."""
    return values.lines("scanner", scanner_lines(), held_columns("-find 0.9 -bad 0.7"))


def manufacturers_table(values: Values) -> list[str]:
    """The same of the lung nodules, with networks, map and limits of GE patients alone."""
    lines = [Line(title, {**GE, "cases": cases}) for cases, title in MANUFACTURERS.items()]
    return values.lines("scanner", lines, held_columns("-find 0.9 -bad 0.5"))


def held_columns(option: str) -> list[Column]:
    """What lists with an option, intervals and larger labels hold."""
    return [
        Column("patients (scans)", {"quantity": "bad", "method": option}, "n"),
        *quantity_columns({"bad": "bad"}, "2", method=option),
        *quantity_columns({"found of the bad": "found", "flagged": "flagged"}, "2i", method=option),
        Column(
            "true Dice in its interval",
            {"quantity": "coverage of Dice", "method": MAP},
            "2i",
        ),
        Column(
            "true volume in its interval",
            {"quantity": "coverage of volume", "method": MAP},
            "2i",
        ),
        Column("missed by `-recall 0.9`", {"quantity": "missed", "method": "-recall 0.9"}, "2i"),
    ]


def scanner_lines() -> list[Line]:
    """A line for each scanner of BUS-BRA."""
    return [Line(title, {**BREAST, "cases": cases}) for cases, title in SCANNERS.items()]


def scanner_probabilities_table(values: Values) -> list[str]:
    """Probabilities and orders on each scanner."""
    columns = []
    for name, quantity, kind in (
        ("NLL", "NLL all", "3"),
        ("pooled ECE", "pooled ECE predicted", "3i"),
    ):
        columns += quantity_columns({f"{name} as trained": quantity}, kind, method=RAW)
        columns += quantity_columns({f"{name} with the map": quantity}, kind, method=MAP)
    for order in (PREDICTED, ENTROPY):
        columns.append(
            Column(
                f"AUROC of {order}",
                {"quantity": "AUROC", "method": f"{order}, bad below 0.7"},
                "2i",
            )
        )
    return values.lines("scanner", scanner_lines(), columns)


def unlike_table(values: Values) -> list[str]:
    """Whether scans of each scanner are recognised as unlike those of the networks'."""
    columns = [
        Column("scans marked unlike", {"quantity": "scans marked unlike"}, "2i"),
        Column(
            "scans outside the training's sizes",
            {"quantity": "scans that differ in geometry"},
            "2i",
        ),
        Column(
            "scans that stand out of the batch",
            {"quantity": "scans that stand out of the batch"},
            "2",
        ),
        Column("p of the batch, by scans", {"quantity": "p of the batch, by scans"}, "e"),
        Column("p of the batch, by patients", {"quantity": "p of the batch, by patients"}, "e"),
    ]
    lines = [line for line in scanner_lines() if line.keys and line.keys["cases"] != "folds"]
    return values.lines("scanner", lines, columns)


def weighted_table(values: Values) -> list[str]:
    """Limits by calibration patients that weigh as much as scans like theirs are more frequent on
    the new scanner."""
    rows = []
    for line in scanner_lines():
        if line.keys is None or line.keys["cases"] == "folds":
            continue
        rows.append(Line(line.name))
        for method in (UNWEIGHTED, WEIGHTED):
            rows.append(Line(method, {**line.keys, "method": method}))
    quantities = {
        "true Dice in its interval": "coverage of Dice",
        "width of that interval": "width of Dice",
        "true volume in its interval": "coverage of volume",
        "found of the bad": "found",
        "flagged": "flagged",
        "missed by `-recall 0.9`": "missed",
    }
    with_interval = {
        f"true Dice in its interval, {WITH_INTERVAL}": f"coverage of Dice, {WITH_INTERVAL}"
    }
    refused = {name: name for name in (NO_INTERVAL, ONLY_FLAGGED, NO_RECALL)}
    effective = "effective calibration patients"
    columns = [
        *quantity_columns({effective: effective}, "0?"),
        *quantity_columns(refused, "2"),
        *quantity_columns(quantities, "2i"),
        *quantity_columns(with_interval, "2i"),
    ]
    return values.lines("limits", rows, columns)


def own_lines(values: Values) -> list[Line]:
    """By other scanner a line for each number of own calibration patients that was tried."""
    is_breast = values.table.dataset == BREAST["dataset"]
    lines = []
    for cases, title in OTHER_SCANNERS.items():
        methods = set(values.table.method[is_breast & (values.table.cases == cases)])
        sizes = [size for size in OWN_SIZES if f"own map, {size} patients" in methods]
        if sizes:
            lines.append(Line(title))
        for size in sizes:
            keys = {**BREAST, "cases": cases, "method": f"own map, {size} patients"}
            lines.append(Line(f"{size}", keys))
    return lines


def own_columns(means: Mapping[str, str], kind: str) -> list[Column]:
    """A column for each quantity, a mean over draws, by the name that the page has for it."""
    quantities = {name: f"{quantity}, mean over draws" for name, quantity in means.items()}
    return quantity_columns(quantities, kind)


def own_table(values: Values) -> list[str]:
    """What a map of few patients of another scanner gives."""
    refused = {
        "`-find 0.9` refused": "-find 0.9 -bad 0.7 refused, share of draws",
        "`-recall 0.9` refused": "-recall 0.9 refused, share of draws",
    }
    means = {
        "found of the bad": "found",
        "flagged": "flagged",
        "true Dice in its interval": "true Dice in its interval",
        "width of that interval": "width of Dice",
        "true volume in its interval": "true volume in its interval",
        "missed by `-recall 0.9`": "missed",
    }
    losses = {"NLL": "NLL all", "NLL under the map of Logiq 7": "NLL all, map of the folds"}
    columns = [
        *quantity_columns(refused, "2"),
        *own_columns(means, "2i"),
        *own_columns(losses, "3"),
    ]
    return values.lines("calibration patients", own_lines(values), columns)


def calibration_table(values: Values) -> list[str]:
    """Proper scores and calibration under each map."""
    rows = []
    for cases, title in CASES.items():
        rows.append(Line(f"{title} cases"))
        methods = (RAW, MAP, "temperature", *PEERS)
        rows += [Line(method, {**STOCK, "cases": cases, "method": method}) for method in methods]
        for training in ("first training",):
            keys = {**STOCK, "cases": f"{cases}, {training}"}
            rows += [
                Line(f"{method}, {training}", {**keys, "method": method}) for method in (RAW, MAP)
            ]
    columns = [
        Column("NLL, segmented", {"quantity": "NLL predicted"}, "2i"),
        Column("NLL, all", {"quantity": "NLL all"}, "4"),
        Column("Brier, segmented", {"quantity": "Brier predicted"}, "3"),
        Column("pooled ECE", {"quantity": "pooled ECE predicted"}, "3i"),
        Column("gap to share of raters", {"quantity": "gap to share of raters"}, "3i?"),
    ]
    return values.lines("probabilities", rows, columns)


def recall_table(values: Values) -> list[str]:
    """Sensitive labels."""
    rows = []
    for cases, title in CASES.items():
        rows.append(Line(f"{title} cases"))
        rows.append(Line(NNUNET, {**STOCK, "cases": cases, "method": NNUNET}))
        for recall in RECALLS:
            option = f"-recall {recall}"
            rows.append(Line(f"`{option}`", {**STOCK, "cases": cases, "method": option}))
    columns = [
        Column("patients", {"quantity": "missed"}, "p"),
        Column("share of voxels missed", {"quantity": "missed"}, "2i"),
        Column("times larger (median)", {"quantity": "times larger, median"}, "2"),
        Column("false voxels (median)", {"quantity": "false voxels, median"}, "0"),
    ]
    return values.lines("labels", rows, columns)


def mapie_intervals_table(values: Values) -> list[str]:
    """Intervals of Dice by the package and by MAPIE."""
    lines = []
    for cases, title in CASES.items():
        lines.append(Line(f"lung nodules, {title} cases", {**STOCK, "cases": cases}))
    for cases in CASES:
        lines.append(Line(SCANNERS[cases], {**BREAST, "cases": cases}))
    columns = [Column("patients (scans)", {"quantity": "width of Dice", "method": JACKKNIFE}, "n")]
    for name, quantity, kind in (
        ("holds the true Dice", "coverage of Dice", "3i"),
        ("width", "width of Dice", "3"),
    ):
        for method in ENDS:
            keys = {"quantity": quantity, "method": method}
            columns.append(Column(f"{name}, {method}", keys, kind))
    return values.lines("90 % intervals of Dice", lines, columns)


def mapie_slices_table(values: Values) -> list[str]:
    """Labels that miss less by the package and by MAPIE."""
    methods = [NNUNET]
    for recall in RECALLS:
        methods += [f"-recall {recall}", *(f"{name}, recall {recall}" for name in MAPIE_GRIDS)]
    lines = [Line(name, {**STOCK, "cases": SLICES, "method": name}) for name in methods]
    columns = [
        Column("missed, patients", {"quantity": "missed"}, "3i"),
        Column("missed, slices", {"quantity": "missed, mean over slices"}, "3i"),
        Column("times larger (median)", {"quantity": "times larger, median"}, "2"),
        Column("false voxels (median)", {"quantity": "false voxels, median"}, "0"),
    ]
    return values.lines("labels of slices", lines, columns)


def losses_table(values: Values) -> list[str]:
    """Losses as trained and with a map, and two differences in words."""
    trained = [loss for loss in LOSSES if (values.table.trainer == f"{loss}_{SCHEDULE}").any()]
    missing = [loss for loss in LOSSES if loss not in trained]
    sentences = [loss_difference(values, loss) for loss in ("NACL", "CE") if loss in trained]
    if missing:
        sentences.append(f"Not shown: {', '.join(missing)}.")
    if not trained:
        return sentences
    rows = []
    for method, title in ((RAW, RAW), (MAP, "with a map")):
        rows.append(Line(title))
        for loss in trained:
            keys = {"trainer": f"{loss}_{SCHEDULE}", "method": method, "cases": "folds"}
            rows.append(Line(loss_title(loss), keys))
    columns = [
        Column("patients (scans)", {"quantity": "NLL all"}, "n"),
        Column("Dice", {"quantity": "Dice where present"}, "2"),
        Column("missed", {"quantity": "missed"}, "2"),
        Column("invented", {"quantity": "invented"}, "2"),
        Column("ECE foreground", {"quantity": "ECE foreground"}, "2i"),
        Column("pooled ECE predicted", {"quantity": "pooled ECE predicted"}, "2i"),
        Column("NLL", {"quantity": "NLL all"}, "4"),
    ]
    lines = values.lines("loss", rows, columns)
    return [*lines, "", *sentences] if sentences else lines


def loss_difference(values: Values, loss: str) -> str:
    """What a loss changes beside nnU-Net's, in the same cases of the same folds, as trained."""
    keys = {
        "trainer": f"{loss}_{SCHEDULE}",
        "method": f"{RAW} less {REFERENCE} {RAW}",
        "cases": "folds",
    }
    dice = values.cell({**keys, "quantity": "Dice where present"}, "3i")
    error = values.cell({**keys, "quantity": "ECE foreground"}, "3i")
    return f"{loss} minus nnU-Net's loss, in the same cases: ECE foreground {error}, Dice {dice}."


def equal_dice_table(values: Values) -> list[str]:
    """Losses with nnU-Net's augmentation, as trained and with a map of each, and what changes
    beside nnU-Net's in the same cases."""
    is_compared = (values.table.dataset == "LIDC") & (values.table.cases == EACH_FOLD)
    trainers = sorted(set(values.table.trainer[is_compared]))
    losses = [trainer.removesuffix(f"_{AUGMENTED_SCHEDULE}") for trainer in trainers]
    losses.sort(key=lambda loss: loss != REFERENCE)  # nnU-Net's first
    rows = []
    for method, title in ((RAW, RAW), (MAP, "with a map of each fold")):
        rows.append(Line(title))
        rows += [equal_dice_line(loss_title(loss), loss, method) for loss in losses]
    for method, other, title in (
        (RAW, RAW, "minus nnU-Net's loss, both as trained"),
        (MAP, MAP, "minus nnU-Net's loss, both with a map"),
        (RAW, MAP, "as trained, minus nnU-Net's loss with a map"),
    ):
        rows.append(Line(title))
        differing = [loss for loss in losses if loss != REFERENCE]
        rows += [
            equal_dice_line(loss, loss, f"{method} less {REFERENCE} {other}") for loss in differing
        ]
    columns = [
        Column("patients (scans)", {"quantity": "NLL all"}, "n"),
        Column("Dice where present", {"quantity": "Dice where present"}, "3i"),
        *quantity_columns({"missed": "missed", "invented": "invented"}, "3"),
        Column("ECE foreground", {"quantity": "ECE foreground"}, "3i"),
        Column("pooled ECE predicted", {"quantity": "pooled ECE predicted"}, "3i?"),
        Column("NLL", {"quantity": "NLL all"}, "4i"),
        Column("NLL, segmented", {"quantity": "NLL predicted"}, "2i"),
        Column("Brier", {"quantity": "Brier all"}, "4i"),
    ]
    return values.lines("loss", rows, columns)


def decisions_table(values: Values) -> list[str]:
    """Losses with argmax and with a bias of each structure, and what that changes beside nnU-Net's
    own loss in the same cases."""
    rows = values.table[(values.table.cases == LEFT_OUT) & (values.table.quantity == BIAS)]
    lines: list[Line] = []
    for (dataset, structure, training), of_structure in rows.groupby(
        ["dataset", "structure", "training"], sort=False
    ):
        lines.append(Line(f"{dataset}, {structure}, {training}"))
        loss_of = {trainer: re.split(r"_\d+epochs", trainer)[0] for trainer in of_structure.trainer}
        for trainer in sorted(loss_of, key=lambda name: DECIDED_LOSSES.index(loss_of[name])):
            loss = loss_of[trainer]
            keys = {"dataset": dataset, "structure": structure, "trainer": trainer}
            lines.append(Line(loss_title(loss), {**keys, "cases": LEFT_OUT}))
    columns = [
        Column("patients (scans)", {"method": RAW, "quantity": "NLL all"}, "n"),
        Column("bias", {"method": TUNED, "quantity": BIAS}, "2"),
        Column("Dice, argmax", {"method": RAW, "quantity": "Dice"}, "3"),
        Column("tuned", {"method": TUNED, "quantity": "Dice"}, "3"),
        Column("tuned less argmax", {"method": OWN_CHANGE, "quantity": "Dice"}, "3i"),
        Column(
            "less nnU-Net's argmax",
            {"method": f"{TUNED} less {REFERENCE} {RAW}", "quantity": "Dice"},
            "3i?",
        ),
        Column(
            "less nnU-Net's tuned",
            {"method": f"{TUNED} less {REFERENCE} {TUNED}", "quantity": "Dice"},
            "3i?",
        ),
        Column("missed", {"method": RAW, "quantity": "missed"}, "2?"),
        Column("tuned", {"method": TUNED, "quantity": "missed"}, "2?"),
        Column("invented", {"method": RAW, "quantity": "invented"}, "2?"),
        Column("tuned", {"method": TUNED, "quantity": "invented"}, "2?"),
        Column("NLL", {"method": RAW, "quantity": "NLL all"}, "4"),
        Column(
            "less nnU-Net's",
            {"method": f"{RAW} less {REFERENCE} {RAW}", "quantity": "NLL all"},
            "4i?",
        ),
        Column("tuned", {"method": TUNED, "quantity": "NLL all"}, "4"),
    ]
    return values.lines("loss", lines, columns)


def tuned_table(values: Values) -> list[str]:
    """Tuned networks of all validation cases on test cases and other scanners, with maps, and what
    lists make of them."""
    rows = values.table[
        values.table.cases.str.endswith(cases_of_study("")) & (values.table.quantity == "AUROC")
    ]
    lines: list[Line] = []
    for dataset, kind in rows[["dataset", "cases"]].drop_duplicates().itertuples(index=False):
        short = kind.removesuffix(cases_of_study(""))
        title = {"outer": "test cases", **OTHER_SCANNERS}.get(short, short)
        lines.append(Line(f"{dataset}, {title}"))
        of_kind = rows[(rows.dataset == dataset) & (rows.cases == kind)]
        loss_of = {trainer: re.split(r"_\d+epochs", trainer)[0] for trainer in of_kind.trainer}
        for trainer in sorted(loss_of, key=lambda name: DECIDED_LOSSES.index(loss_of[name])):
            keys = {"dataset": dataset, "trainer": trainer, "cases": kind}
            keys |= {"structure": STRUCTURE_OF[dataset], "own": loss_of[trainer]}
            lines.append(Line(loss_title(loss_of[trainer]), keys))
    of_list = {"structure": ""}
    against_argmax = f"{TUNED} less {REFERENCE} {RAW}"
    against_tuned = f"{TUNED} less {REFERENCE} {TUNED}"
    map_against_map = f"{MAP} less {REFERENCE} {MAP}"
    columns = [
        Column("patients (scans)", {"method": RAW, "quantity": "NLL all"}, "n"),
        Column("Dice, argmax", {"method": RAW, "quantity": "Dice"}, "3"),
        Column("tuned", {"method": TUNED, "quantity": "Dice"}, "3?"),
        Column(
            "tuned less argmax",
            {"method": "tuned less {own} as trained", "quantity": "Dice"},
            "3i?",
        ),
        Column("less nnU-Net's argmax", {"method": against_argmax, "quantity": "Dice"}, "3i?"),
        Column("less nnU-Net's tuned", {"method": against_tuned, "quantity": "Dice"}, "3i?"),
        Column("missed", {"method": RAW, "quantity": "missed"}, "2?"),
        Column("tuned", {"method": TUNED, "quantity": "missed"}, "2?"),
        Column("NLL with a map", {"method": MAP, "quantity": "NLL all"}, "4"),
        Column("less nnU-Net's", {"method": map_against_map, "quantity": "NLL all"}, "4i?"),
        Column("tuned, with its map", {"method": TUNED_MAP, "quantity": "NLL all"}, "4?"),
    ]
    for name, quantity in (("AUROC", "AUROC"), ("found", "found"), ("flagged", "flagged")):
        columns.append(Column(name, {**of_list, "method": RAW, "quantity": quantity}, "2?"))
        columns.append(Column("tuned", {**of_list, "method": TUNED, "quantity": quantity}, "2?"))
    return values.lines("loss", lines, columns)


def heart_table(values: Values) -> list[str]:
    """Dice and ACE of the official test set of the heart, beside published values."""
    lines = [Line("published, one network each")]
    published = values.table[
        (values.table.dataset == "ACDC") & (values.table.method == "published")
    ]
    for name in dict.fromkeys(published.trainer):
        keys = {"dataset": "ACDC", "trainer": name, "cases": "outer", "method": "published"}
        lines.append(Line(name, {**keys, "shown": "published"}))
    losses = ("DiceCE", "DiceCE_anneal", "NACL", "DiceACE")
    titles = {SINGLE: "here, network of fold 0", "outer": "here, five-fold ensemble"}
    for cases, title in titles.items():
        lines.append(Line(title))
        for loss in losses:
            for method, suffix in ((RAW, ", as trained"), (MAP, ", with a map")):
                keys = {
                    "dataset": "ACDC",
                    "trainer": f"{loss}_{AUGMENTED_SCHEDULE}",
                    "cases": cases,
                }
                is_there = (values.table.dataset == "ACDC") & (
                    values.table.trainer == keys["trainer"]
                )
                if (is_there & (values.table.cases == cases)).any():
                    keys |= {"method": method, "shown": method}
                    lines.append(Line(loss_title(loss) + suffix, keys))
    soft = "{shown} less published soft mL1-ACE"
    columns = [
        Column("patients (volumes)", {"structure": MEAN, "quantity": HEART_ACE}, "n"),
        Column("Dice", {"structure": MEAN, "quantity": HEART_DICE}, "3i"),
        Column("ACE", {"structure": MEAN, "quantity": HEART_ACE}, "3i"),
        Column(
            "ACE less soft mL1-ACE",
            {"structure": MEAN, "quantity": HEART_ACE, "method": soft},
            "3i?",
        ),
        Column("Dice less it", {"structure": MEAN, "quantity": HEART_DICE, "method": soft}, "3i?"),
    ]
    for structure in ("RV", "MLV", "LVC"):
        columns.append(
            Column(f"ACE {structure}", {"structure": structure, "quantity": HEART_ACE}, "3")
        )
    return values.lines("loss", lines, columns)


def equal_dice_line(name: str, loss: str, method: str) -> Line:
    """A line of the lung nodules for a loss with nnU-Net's augmentation."""
    keys = {"dataset": "LIDC", "trainer": f"{loss}_{AUGMENTED_SCHEDULE}", "cases": EACH_FOLD}
    return Line(name, {**keys, "method": method})


def loss_title(loss: str) -> str:
    """Of a loss, as the page calls it."""
    return "Dice + CE (nnU-Net's)" if loss == REFERENCE else loss


def ace_table(values: Values) -> list[str]:
    """Marginal ACE of the hippocampus as MONAI's tutorial of the loss reports it."""
    rows = []
    for loss in (REFERENCE, "DiceACE"):
        keys = {"dataset": "Hippocampus", "trainer": f"{loss}_{ACE_SCHEDULE}", "cases": "folds"}
        for method, suffix in ((RAW, ", as trained"), (MAP, ", with a map")):
            difference = f"{method} less {REFERENCE} {RAW}"
            line = {**keys, "method": method, "difference": difference}
            rows.append(Line(loss_title(loss) + suffix, line))
    columns = [
        Column("patients (scans)", {"quantity": ACE}, "n"),
        Column("marginal ACE", {"quantity": ACE}, "3i"),
        Column("minus nnU-Net's", {"quantity": ACE, "method": "{difference}"}, "3i?"),
        Column("marginal ACE with background", {"quantity": ACE_WITH_BACKGROUND}, "3i"),
        Column("Dice", {"quantity": DICE}, "3i"),
        Column("minus nnU-Net's Dice", {"quantity": DICE, "method": "{difference}"}, "3i?"),
    ]
    return values.lines("loss", rows, columns)


def data_sets_table(values: Values) -> list[str]:
    """The main values of all data sets."""
    rows = []
    for cases, title in CASES.items():
        rows.append(Line(f"{title} cases"))
        rows.append(Line("LIDC", {**STOCK, "cases": cases, "limit": "0.5"}))
        for dataset, limit in LIMITS.items():
            trainer = (
                {"trainer": f"{REFERENCE}_{AUGMENTED_SCHEDULE}"} if dataset == "ACDC" else EARLIER
            )
            rows.append(
                Line(dataset, {**trainer, "dataset": dataset, "cases": cases, "limit": limit})
            )
    columns = [Column("patients (scans)", {"quantity": "NLL all", "method": MAP}, "n")]
    columns += quantity_columns(
        {"found": "found", "flagged": "flagged"}, "2i", method="-find 0.9 -bad {limit}"
    )
    columns += quantity_columns({"AUROC": "AUROC"}, "2", method="predicted Dice, bad below {limit}")
    intervals = {
        "true Dice in its interval": "coverage of Dice",
        "true volume in its interval": "coverage of volume",
    }
    columns += quantity_columns(intervals, "2", method=MAP)
    for name, quantity, digits in (
        ("NLL", "NLL all", "4"),
        ("pooled ECE", "pooled ECE predicted", "3"),
    ):
        columns += quantity_columns({f"{name} as trained": quantity}, digits, method=RAW)
        columns += quantity_columns({"with a map": quantity}, digits, method=MAP)
    return values.lines("data set", rows, columns)


def costs_table(values: Values) -> list[str]:
    """Times and memory."""
    methods = dict.fromkeys(values.table.method[values.table.quantity.isin(COSTS)])
    rows = [Line(method, {"method": method, "dataset": ""}) for method in methods]
    columns = [Column(quantity, {"quantity": quantity}, kind) for quantity, kind in COSTS.items()]
    return values.lines("what", rows, columns)


def checksum_line(values: Values) -> list[str]:
    """How many values there are, and their checksum, so that a changed one is noticed."""
    text = values.table.to_csv(index=False)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return [
        f"All {len(values.table)} values: `research/results/results.csv` (checksum `{digest}`)."
    ]


def levels_table(values: Values) -> list[str]:
    """How often the sign-flip test and, beside it, Wilcoxon's reject simulated differences."""
    levels = read_csv(LEVELS)
    sizes = levels.n_patients.unique()
    lines = [
        f"| differences of patients | {' | '.join(f'{size} patients' for size in sizes)} |",
        f"| :-- |{' --: |' * len(sizes)}",
    ]
    for name, rows in levels.groupby("differences", sort=False):
        cells = [f"{row.sign_flip:.2f} / {row.wilcoxon:.2f}" for row in rows.itertuples()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


TABLES: dict[str, Callable[[Values], list[str]]] = {
    "readme": readme_table,
    "list": list_table,
    "orders": orders_table,
    "areas": areas_table,
    "members": members_table,
    "patients": patients_table,
    "scanners": scanners_table,
    "manufacturers": manufacturers_table,
    "scanner_probabilities": scanner_probabilities_table,
    "unlike": unlike_table,
    "weighted": weighted_table,
    "own": own_table,
    "calibration": calibration_table,
    "recall": recall_table,
    "mapie_intervals": mapie_intervals_table,
    "mapie_slices": mapie_slices_table,
    "losses": losses_table,
    "equal_dice": equal_dice_table,
    "decisions": decisions_table,
    "tuned": tuned_table,
    "heart": heart_table,
    "ace": ace_table,
    "data_sets": data_sets_table,
    "costs": costs_table,
    "every": checksum_line,
    "levels": levels_table,
}
"""By the name that pages call it."""
