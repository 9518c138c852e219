"""Tables of what a map changes in the probabilities, beside other calibrators, from forms.csv."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from values import (
    BAD,
    NOT_JUDGED,
    SHOWN,
    dataset_of,
    each_set,
    interval,
    mean_of,
    name_of,
    rows_of,
    table,
    title_of,
)

AS_TRAINED, MAP, ENSEMBLE = "as trained", "map", "ensemble"

COLUMNS = {
    "ECE predicted": 3,
    "ECE near": 3,
    "ECE all": 4,
    "NLL near": 3,
    "NLL all": 4,
    "Brier near": 3,
    "Brier all": 4,
    "expected Dice off": 3,
}
"""Column of forms.csv, and its digits."""

CHANGED = ("ECE predicted", "NLL near", "NLL all", "Brier all", "expected Dice off")
COMPARED = ("NLL all", "NLL near", "ECE predicted")


def wide(folder: Path, kind: str, columns: Sequence[str]) -> pd.DataFrame:
    """A row for each case of a network with its ``patient``; columns (value, form).

    The average of probabilities (nnUNetv2_ensemble) stands beside the forms of the average of logits as ``ensemble``.
    """
    rows = rows_of(folder, kind, "forms")
    if kind == "average":
        other = rows_of(folder, "ensemble", "forms")
        other = other[other["form"] == AS_TRAINED]
        rows = pd.concat([rows, other.assign(form=ENSEMBLE, network="average")])
    return rows.pivot(index=["network", "case", "patient"], columns="form", values=list(columns)).reset_index("patient")


def _change(values: pd.DataFrame, column: str, other: str) -> str:
    rows = pd.DataFrame({"patient": values["patient"], "change": values[column, MAP] - values[column, other]})
    return interval(rows, mean_of("change"), COLUMNS.get(column, 3), "+")


def forms(folders: Sequence[Path]) -> str:
    """Means over cases of each form; `ensemble` is the average of the networks' probabilities, as trained."""
    lines = []
    for folder, kind, rows in each_set(folders, "forms"):
        title = f"**{title_of(folder, kind)} ({rows['case'].nunique()})**"
        lines.append([title, *[""] * len(COLUMNS)])
        values = wide(folder, kind, COLUMNS)
        for form in dict.fromkeys([*rows["form"], *values.columns.get_level_values("form")]):
            if form:
                cells = (values[column, form].mean() for column in COLUMNS)
                lines.append([form, *(f"{value:.{n}f}" for value, n in zip(cells, COLUMNS.values()))])
    return table(["map", *COLUMNS], lines)


def changes(folders: Sequence[Path]) -> str:
    """What the map changes, with 95 % intervals over patients."""
    lines = []
    for folder, kind, _ in each_set(folders, "forms"):
        values = wide(folder, kind, CHANGED)
        line = [f"{title_of(folder, kind)} ({values.index.get_level_values('case').nunique()})"]
        lines.append([*line, *(_change(values, column, AS_TRAINED) for column in CHANGED)])
    return table(["", *CHANGED], lines)


def peers(folders: Sequence[Path]) -> str:
    """The map less other calibrators, with 95 % intervals over patients."""
    lines, others = [], ("temperature", "CMSop", "CDC", "CDC_Adam", ENSEMBLE)
    for folder, kind, _ in each_set(folders, "forms"):
        values = wide(folder, kind, COMPARED)
        for column in COMPARED:
            line = [f"{title_of(folder, kind)}, {column}"]
            for other in others:
                line.append(_change(values, column, other) if (column, other) in values else "")
            lines.append(line)
    return table(["map less", *others], lines)


def masks(folders: Sequence[Path]) -> str:
    """What the map changes on masks with and without the truth, of fold cases."""
    lines, names = [], ("ECE near", "NLL near", "NLL dilated", "NLL foreground", "NLL all", "Brier all")
    for folder in folders:
        values = wide(folder, SHOWN[0], names)
        for name in names:
            digits = COLUMNS.get(name, 3)
            means = (f"{values[name, form].mean():.{digits}f}" for form in (AS_TRAINED, MAP))
            lines.append([f"{name_of(folder)}, {name}", *means, _change(values, name, AS_TRAINED)])
    return table(["value", AS_TRAINED, "with the map", "change"], lines)


def needed(folders: Sequence[Path]) -> str:
    """Change of NLL over the image in %, on cases that a map was not fitted to, by number of patients."""
    lines, tables = [], [pd.read_csv(folder / "needed.csv") for folder in folders]
    sizes = sorted({size for rows in tables for size in rows["patients"]})
    for folder, rows in zip(folders, tables):
        change = 100 * (rows["NLL"] / rows["NLL as trained"] - 1)
        means, higher = (
            values.groupby([rows["form"], rows["patients"]]).agg(how).unstack()
            for values, how in ((change, "mean"), (change > 0, "sum"))
        )
        n = rows["draw"].nunique()
        for form in ("temperature", "shift", "conditional", "auto"):
            cells = (
                ("" if size not in means else f"{means.loc[form, size]:+.1f}")
                + (f" ({higher.loc[form, size]} of {n} higher)" if size in means and higher.loc[form, size] else "")
                for size in sizes
            )
            lines.append([f"{name_of(folder)}, {form}", *cells])
    return table(["patients", *map(str, sizes)], lines)


def datasets(folders: Sequence[Path]) -> str:
    """Cases and patients of each set, and the share of bad scans."""
    lines = []
    for folder, kind, rows in each_set(folders, "structures"):
        limit = BAD[dataset_of(folder)]
        judged = rows[~rows["structure"].isin(NOT_JUDGED)]
        lowest = judged.groupby("case")["Dice"].min()
        numbers = rows["case"].nunique(), rows["patient"].nunique()
        bad = f"{(lowest < limit).sum()} ({(lowest < limit).mean():.2f})"
        lines.append([title_of(folder, kind), *map(str, numbers), f"{limit:g}", bad, f"{lowest.mean():.3f}"])
    return table(["", "scans", "patients", "bad below", "bad scans (share)", "mean of the lowest Dice"], lines)


def maps(folders: Sequence[Path]) -> str:
    """What `calibrate` fitted: the form, cases and patients, NLL of left-out cases by form."""
    lines = []
    for folder in folders:
        record = json.loads((folder / "calibration_map.json").read_text(encoding="utf-8"))
        best = {}
        for row in record["forms"]:
            best[row["form"]] = min(row["nll"], best.get(row["form"], row["nll"]))
        one = record["calibration_set"]
        names = ("temperature", "shift", "conditional")
        numbers = [str(one["n_cases"]), str(one["n_patients"]), *(f"{best[name]:.4f}" for name in names)]
        lines.append([title_of(folder, SHOWN[0]), record["form"], *numbers])
    return table(["", "form", "cases", "patients", *(f"NLL in the crop, {name}" for name in names)], lines)


def _known(folder: Path, kind: str) -> dict[str, float]:
    """Values of a set of which something was expected."""
    means = rows_of(folder, kind, "forms").groupby("form").mean(numeric_only=True)
    parts = rows_of(folder, kind, "structures")
    nll, after = means["NLL all"], means.loc[MAP]

    def inside(true: str, name: str) -> float:
        """Share of the intervals that hold."""
        return parts[true].between(parts[f"{name} low"] - 1e-6, parts[f"{name} high"] + 1e-6).mean()

    return {
        "Dice": after["Dice"],
        "NLL all, change by the map in %": 100 * (nll[MAP] / nll[AS_TRAINED] - 1),
        "ECE predicted, with the map": after["ECE predicted"],
        "ECE near, with the map": after["ECE near"],
        "expected Dice off, with the map": after["expected Dice off"],
        "NLL all, map less temperature": nll[MAP] - nll["temperature"],
        "NLL all, map less CDC": nll[MAP] - nll["CDC"],
        "intervals of Dice that hold": inside("Dice", "Dice"),
        "intervals of volume that hold": inside("true volume", "volume"),
        "bad scans": (parts.groupby("case")["Dice"].min() < BAD[dataset_of(folder)]).mean(),
    }


def expected(folders: Sequence[Path]) -> str:
    """What expected.csv said before the cases in no fold were predicted, and what came; outside in bold."""
    lines = []
    for folder in folders:
        folds, came = _known(folder, "folds"), _known(folder, "average")
        for what, low, high in pd.read_csv(folder / "expected.csv").itertuples(index=False):
            value = f"{came[what]:.3g}"
            inside = low <= came[what] <= high
            lines.append([what, f"{folds[what]:.3g}", f"{low:g} to {high:g}", value if inside else f"**{value}**"])
    return table(["", "folds, single networks", "expected, average of five", "came"], lines)


TABLES: dict[str, Callable[[Sequence[Path]], str]] = {
    "forms": forms,
    "changes": changes,
    "peers": peers,
    "maps": maps,
    "masks": masks,
    "needed": needed,
    "datasets": datasets,
    "expected": expected,
}
