"""Tables of the forms of the calibration map, from what map_forms.py measured, and of what near.py did."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nnunet_nacl.calibration.effect import changes

NETWORKS = {"single": "single_", "average": "average", "fold": "fold_", "ensemble": "ensemble"}
"""What the names of networks begin with: single ones on other cases, the averages of their logits and of their
probabilities, and folds, cross-fitted."""

SHOWN = {
    "ECE foreground": (3, "ECE foreground"),
    "ECE union": (3, "union"),
    "ECE dilated": (3, "dilated"),
    "ECE predicted": (3, "predicted"),
    "ECE all": (4, "all"),
    "NLL dilated": (3, "NLL dilated"),
    "NLL all": (4, "NLL all"),
    "Brier dilated": (3, "Brier dilated"),
    "Brier all": (4, "Brier all"),
    "expected Dice off": (3, "expected Dice off by"),
}
"""Column of the document: digits, and its title."""


def forms(document: Path, networks: str) -> str:
    """Means over cases (and over single networks) of each form; below, what was delivered was the same.

    Args:
        document: Made by map_forms.py.
        networks: One of ``NETWORKS``.
    """
    values = pd.read_csv(document)
    values = values[values.network.str.startswith(NETWORKS[networks])]
    if values.empty:
        raise ValueError(f"{document}: no network's name begins with {NETWORKS[networks]}")
    means = values.groupby("form", sort=False).mean(numeric_only=True)
    lines = [["map", *(title for _, title in SHOWN.values())], [":--", *["--:"] * len(SHOWN)]]
    for form, row in means.iterrows():
        cells = [f"{row[name]:.{digits}f}".removeprefix("0") for name, (digits, _) in SHOWN.items()]
        cells[-1] += f" ({row['bias']:+.3f})".replace("0.", ".")
        lines.append([str(form), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def near(document: Path, networks: str) -> str:
    """Of a model's cases before and after the map, near the predicted structures and near the true ones.

    Args:
        document: Made by near.py.
        networks: ``folds``.
    """
    values = pd.read_csv(document).set_index(["case", "treatment"])
    before, after = (values.xs(treatment, level=1).drop(columns="network") for treatment in ("pred", "calibrated"))
    lines = [["value", "as trained", "with the map", "change", "95 % interval"], [":--", *["--:"] * 4]]
    for name, change in changes(before.to_dict("list"), after.loc[before.index].to_dict("list")).items():
        digits = 4 if name.endswith(" all") else 3
        means = (change[when]["mean"] for when in ("before", "after"))
        difference, low, high = (f"{change['difference'][end]:+.{digits}f}" for end in ("mean", "low", "high"))
        lines.append([name, *(f"{mean:.{digits}f}" for mean in means), difference, f"{low} to {high}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
