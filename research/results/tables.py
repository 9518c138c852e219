"""The tables of the pages: which rows of results.csv stand where."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from losses import LOSSES, REFERENCE, SCHEDULE
from marginal_ace import ACE, DICE
from recall_rows import NNUNET
from rows import KEYS, read_csv
from scans import (
    AURC,
    BEST,
    BY_CHANCE,
    ENTROPY,
    MEMBERS,
    ORDERS,
    PREDICTED,
    PRESENCE,
)
from study import MAP, RAW
from tuned_networks import TUNED_MAP, cases_of_study

from nnunet_nacl.estimators.recall import RECALLS

STOCK = {"dataset": "LIDC", "trainer": "DiceCE_25epochs_100iters_adam"}
EARLIER = {"trainer": "DiceCE_100epochs_50iters"}
BREAST = {"dataset": "BUS-BRA", "trainer": "DiceCE_25epochs_100iters_adam"}
OTHER_SCANNERS = {"logiq5": "Logiq 5", "toshiba": "Toshiba", "usystems": "U-Systems"}
SCANNERS = {
    "outer": "Logiq 7",
    **OTHER_SCANNERS,
}
"""Of BUS-BRA, whose networks are of the first, by what results.csv calls the cases in no fold."""
GE = {"dataset": "LIDC-GE-networks", "trainer": "DiceCE_25epochs_100iters_adam"}
MANUFACTURERS = {
    "outer": "GE",
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
ANNEALED = "DiceCE_anneal"
EFFECTIVE = "effective calibration patients"
CALIBRATIONS = (RAW, MAP, "temperature", *PEERS)
"""What probabilities of the lung nodules are compared as."""
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
    for method in ("-find 0.8", "-find 0.9", "-find 0.95", "-miss 0.05"):
        keys = {**STOCK, "cases": "outer", "method": f"{method} -bad 0.5"}
        rows.append(Line(f"`{method}`", keys))
    keys = {**STOCK, "cases": "folds", "method": "-find 0.9 -bad 0.5"}
    rows.append(Line("`-find 0.9`, cross-validation cases", keys))
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
    rows = [
        Line(order, {**STOCK, "cases": "outer", "order": order}) for order in (*ORDERS, MEMBERS)
    ]
    keys = {"quantity": "flagged to find 0.9", "method": "{order}, bad below 0.5"}
    columns = [
        Column("AUROC", {"quantity": "AUROC", "method": "{order}, bad below 0.5"}, "2i"),
        Column("share looked at to find 0.9", keys, "2i"),
    ]
    return values.lines("order", rows, columns)


def areas_table(values: Values) -> list[str]:
    """Areas under the risk-coverage curves of orders."""
    lines = [Line("lung nodules", {**STOCK, "cases": "outer"}), *new_scanner_lines()]
    lines.append(Line("EMIDEC", {**EARLIER, "dataset": "EMIDEC", "cases": "outer"}))
    columns = [
        Column(order, {"quantity": AURC, "method": order}, "3") for order in (BEST, BY_CHANCE)
    ]
    columns.append(Column(PREDICTED, {"quantity": AURC, "method": PREDICTED}, "3i"))
    for order in (ENTROPY, MEMBERS, PRESENCE):
        keys = {"quantity": AURC, "method": f"{order} less {PREDICTED}"}
        columns.append(Column(f"{order}, less that", keys, "3i?"))
    return values.lines("AURC, test cases", lines, columns)


def patients_table(values: Values) -> list[str]:
    """What a list finds that was learned from few patients."""
    rows = []
    for size in (20, 40, 80, 160):
        method = f"-find 0.9 -bad 0.5, {size} patients"
        rows.append(Line(f"{size}", {**STOCK, "cases": "outer", "method": method}))
    means = {"found of the bad": "found, mean over draws", "flagged": "flagged, mean over draws"}
    columns = [
        *quantity_columns(means, "2i"),
        *quantity_columns({"draws without a limit": "refused, share of draws"}, "2"),
    ]
    return values.lines("calibration patients", rows, columns)


def scanners_table(values: Values) -> list[str]:
    """What lists, intervals and larger labels hold on each scanner."""
    columns = held_columns("-find 0.9 -bad 0.7")
    columns.append(
        Column("missed by `-recall 0.9`", {"quantity": "missed", "method": "-recall 0.9"}, "2i")
    )
    return values.lines("scanner", new_scanner_lines(), columns)


def manufacturers_table(values: Values) -> list[str]:
    """The same of the lung nodules, with networks, map and limits of GE patients alone."""
    lines = [Line(title, {**GE, "cases": cases}) for cases, title in MANUFACTURERS.items()]
    return values.lines("scanner", lines, held_columns("-find 0.9 -bad 0.5"))


def held_columns(option: str) -> list[Column]:
    """What lists with an option, and intervals, hold."""
    intervals = {"quantity": "coverage of Dice", "method": MAP}
    return [
        Column("patients (scans)", {"quantity": "bad", "method": option}, "n"),
        *quantity_columns({"bad": "bad"}, "2", method=option),
        *quantity_columns({"found of the bad": "found", "flagged": "flagged"}, "2i", method=option),
        Column("true Dice in its interval", intervals, "2i"),
    ]


def new_scanner_lines() -> list[Line]:
    """A line for the test cases of BUS-BRA's own scanner, and for each other one."""
    return [Line(title, {**BREAST, "cases": cases}) for cases, title in SCANNERS.items()]


def unlike_table(values: Values) -> list[str]:
    """Whether scans of each scanner are recognised as unlike those of the networks'."""
    quantities = {
        "scans marked unlike": "scans marked unlike",
        "of another size than the training's": "scans that differ in geometry",
    }
    columns = quantity_columns(quantities, "2i")
    columns.append(Column("p of the batch", {"quantity": "p of the batch, by patients"}, "e"))
    return values.lines("scanner", new_scanner_lines(), columns)


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
    refused = {"`-find 0.9` refused": "-find 0.9 -bad 0.7 refused, share of draws"}
    means = {
        "found of the bad": "found",
        "flagged": "flagged",
        "true Dice in its interval": "true Dice in its interval",
    }
    columns = [
        *quantity_columns(refused, "2"),
        *own_columns(means, "2i?"),
        *own_columns({"width of that interval": "width of Dice"}, "2"),
    ]
    return values.lines("calibration patients", own_lines(values), columns)


def calibration_table(values: Values) -> list[str]:
    """Proper scores and calibration under each map."""
    test = {**STOCK, "cases": "outer"}
    rows = [Line(method, {**test, "method": method}) for method in CALIBRATIONS]
    for title, cases in (
        ("first training", "outer, first training"),
        ("cross-validation cases", "folds"),
    ):
        keys = {**STOCK, "cases": cases}
        rows += [Line(f"{method}, {title}", {**keys, "method": method}) for method in (RAW, MAP)]
    columns = [
        Column("NLL, segmented", {"quantity": "NLL predicted"}, "2i"),
        Column("NLL, all", {"quantity": "NLL all"}, "4"),
        Column("pooled ECE", {"quantity": "pooled ECE predicted"}, "3i"),
        Column("gap to share of raters", {"quantity": "gap to share of raters"}, "3i?"),
    ]
    return values.lines("probabilities", rows, columns)


def recall_table(values: Values) -> list[str]:
    """Sensitive labels."""
    keys = {**STOCK, "cases": "outer"}
    rows = [Line(NNUNET, {**keys, "method": NNUNET})]
    rows += [
        Line(f"`-recall {recall}`", {**keys, "method": f"-recall {recall}"}) for recall in RECALLS
    ]
    columns = [
        Column("share of voxels missed", {"quantity": "missed"}, "2i"),
        Column("times larger (median)", {"quantity": "times larger, median"}, "2"),
        Column("false voxels (median)", {"quantity": "false voxels, median"}, "0"),
    ]
    return values.lines("labels", rows, columns)


def losses_table(values: Values) -> list[str]:
    """Losses as trained and with a map, and two differences in words."""
    trained = [loss for loss in LOSSES if (values.table.trainer == f"{loss}_{SCHEDULE}").any()]
    missing = [loss for loss in LOSSES if loss not in trained]
    sentences = [loss_difference(values, loss) for loss in ("NACL", "CE") if loss in trained]
    if missing:
        sentences.append(f"Not shown: {', '.join(missing)}.")
    if not trained:
        return sentences
    rows = [
        Line(loss_title(loss), {"trainer": f"{loss}_{SCHEDULE}", "cases": "folds"})
        for loss in trained
    ]
    columns = [Column("Dice", {"quantity": "Dice where present", "method": RAW}, "2")]
    for name, quantity, kind in (
        ("ECE foreground", "ECE foreground", "2i"),
        ("pooled ECE", "pooled ECE predicted", "2"),
        ("NLL", "NLL all", "4"),
    ):
        columns.append(Column(f"{name}, as trained", {"quantity": quantity, "method": RAW}, kind))
        columns.append(Column("with a map", {"quantity": quantity, "method": MAP}, kind))
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


def decisions_table(values: Values) -> list[str]:
    """Losses with argmax and with a bias of each structure, and what that changes beside nnU-Net's
    own loss in the same cases."""
    rows = values.table[(values.table.cases == LEFT_OUT) & (values.table.quantity == BIAS)]
    lines: list[Line] = []
    for (dataset, structure, training), of_structure in rows.groupby(
        ["dataset", "structure", "training"], sort=False
    ):
        if dataset == "EMIDEC" and structure != "infarct":
            continue
        of_data = {"dataset": dataset, "structure": structure, "cases": LEFT_OUT}
        folds = training.removeprefix("fold ").replace(", fold", "")
        title = f"{dataset}, {structure}, folds {folds}"
        lines += lines_of_losses(values, title, of_structure.trainer, of_data)
    columns = [
        Column("bias", {"method": TUNED, "quantity": BIAS}, "2"),
        Column("Dice, argmax", {"method": RAW, "quantity": "Dice"}, "3"),
        Column("tuned less argmax", {"method": OWN_CHANGE, "quantity": "Dice"}, "3i"),
        *less_reference_columns(),
        Column(
            "NLL, less nnU-Net's",
            {"method": f"{RAW} less {REFERENCE} {RAW}", "quantity": "NLL all"},
            "4?",
        ),
    ]
    return values.lines("loss; patients (scans)", lines, columns)


def in_order_of_losses(trainers: Iterable[str]) -> dict[str, str]:
    """The loss of each trainer, nnU-Net's first."""
    loss_of = {trainer: re.split(r"_\d+epochs", trainer)[0] for trainer in trainers}
    return dict(sorted(loss_of.items(), key=lambda item: DECIDED_LOSSES.index(item[1])))


def lines_of_losses(values: Values, title: str, trainers: Iterable[str], keys: Keys) -> list[Line]:
    """A heading with the numbers of patients and scans, and a line for each loss."""
    lines = []
    for trainer, loss in in_order_of_losses(trainers).items():
        lines.append(Line(loss_title(loss), {**keys, "trainer": trainer, "own": loss}))
    first = {**keys, "trainer": next(iter(in_order_of_losses(trainers)))}
    counts = values.cell({**first, "method": RAW, "quantity": "NLL all"}, "n")
    return [Line(f"{title}: {counts}"), *lines]


def less_reference_columns() -> list[Column]:
    """What a tuned network's Dice is above that of nnU-Net's loss."""
    methods = {
        "less nnU-Net's argmax": f"{TUNED} less {REFERENCE} {RAW}",
        "less nnU-Net's tuned": f"{TUNED} less {REFERENCE} {TUNED}",
    }
    return [
        Column(name, {"method": method, "quantity": "Dice"}, "3i?")
        for name, method in methods.items()
    ]


def tuned_table(values: Values) -> list[str]:
    """Tuned networks on test cases and other scanners, each with a map of its own."""
    rows = values.table[
        values.table.cases.str.endswith(cases_of_study("")) & (values.table.quantity == "AUROC")
    ]
    lines: list[Line] = []
    for (dataset, cases), of_kind in rows.groupby(["dataset", "cases"], sort=False):
        keys = {"dataset": dataset, "structure": STRUCTURE_OF[dataset], "cases": cases}
        short = cases.removesuffix(cases_of_study(""))
        title = {"outer": "test cases", **OTHER_SCANNERS}.get(short, short)
        lines += lines_of_losses(values, f"{dataset}, {title}", of_kind.trainer, keys)
    own_change = {"method": f"{TUNED} less {{own}} {RAW}", "quantity": "Dice"}
    map_less_map = {"method": f"{MAP} less {REFERENCE} {MAP}", "quantity": "NLL all"}
    columns = [
        Column("Dice, argmax", {"method": RAW, "quantity": "Dice"}, "3"),
        Column("tuned less argmax", own_change, "3i?"),
        *less_reference_columns(),
        Column("NLL with a map", {"method": MAP, "quantity": "NLL all"}, "4"),
        Column("less nnU-Net's", map_less_map, "4i?"),
        Column("tuned", {"method": TUNED_MAP, "quantity": "NLL all"}, "4?"),
    ]
    return values.lines("loss; patients (scans)", lines, columns)


def heart_table(values: Values) -> list[str]:
    """Dice and ACE of the official test set of the heart, beside published values."""
    table = values.table[(values.table.dataset == "ACDC") & (values.table.structure == MEAN)]
    heart = {"dataset": "ACDC", "structure": MEAN}
    lines = [Line("published, one network each")]
    for name in dict.fromkeys(table.trainer[table.method == "published"]):
        lines.append(Line(name, {**heart, "trainer": name, "cases": "outer", "own": "published"}))
    for cases, title in ((SINGLE, "here, network of fold 0"), ("outer", "here, five networks")):
        lines.append(Line(title))
        trained = table.trainer[(table.cases == cases) & (table.method == RAW)]
        for trainer, loss in in_order_of_losses(trained).items():
            keys = {**heart, "trainer": trainer, "cases": cases, "own": RAW}
            lines.append(Line(loss_title(loss), keys))
    soft = {"quantity": HEART_ACE, "method": f"{MAP} less published soft mL1-ACE"}
    columns = [
        Column("Dice", {"quantity": HEART_DICE, "method": "{own}"}, "3i"),
        Column("ACE, as trained", {"quantity": HEART_ACE, "method": "{own}"}, "3i"),
        Column("with a map", {"quantity": HEART_ACE, "method": MAP}, "3i?"),
        Column("that less soft mL1-ACE", soft, "3i?"),
    ]
    return values.lines("loss", lines, columns)


def loss_title(loss: str) -> str:
    """Of a loss, as the page calls it."""
    return "Dice + CE (nnU-Net's)" if loss == REFERENCE else loss


def ace_table(values: Values) -> list[str]:
    """Marginal ACE of the hippocampus as MONAI's tutorial of the loss reports it."""
    rows = []
    for loss in (REFERENCE, "DiceACE"):
        keys = {"dataset": "Hippocampus", "trainer": f"{loss}_{ACE_SCHEDULE}", "cases": "folds"}
        rows.append(Line(loss_title(loss), keys))
    columns = [
        Column("Dice", {"quantity": DICE, "method": RAW}, "3i"),
        Column("marginal ACE, as trained", {"quantity": ACE, "method": RAW}, "3i"),
        Column("with a map", {"quantity": ACE, "method": MAP}, "3i"),
    ]
    return values.lines("loss", rows, columns)


def data_sets_table(values: Values) -> list[str]:
    """The main values of all data sets."""
    rows = [Line("LIDC", {**STOCK, "cases": "outer", "limit": "0.5"})]
    for dataset, limit in LIMITS.items():
        trainer = {"trainer": f"{REFERENCE}_{AUGMENTED_SCHEDULE}"} if dataset == "ACDC" else EARLIER
        keys = {**trainer, "dataset": dataset, "cases": "outer", "limit": limit}
        rows.append(Line(dataset, keys))
    columns = [Column("patients (scans)", {"quantity": "NLL all", "method": MAP}, "n")]
    columns += quantity_columns(
        {"found": "found", "flagged": "flagged"}, "2i?", method="-find 0.9 -bad {limit}"
    )
    columns.append(
        Column("true Dice in its interval", {"quantity": "coverage of Dice", "method": MAP}, "2")
    )
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
    "patients": patients_table,
    "scanners": scanners_table,
    "manufacturers": manufacturers_table,
    "unlike": unlike_table,
    "own": own_table,
    "calibration": calibration_table,
    "recall": recall_table,
    "losses": losses_table,
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
