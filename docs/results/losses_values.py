"""Trainings of losses that losses.md compares: what they share, and how they end.

Folders study/DATASET/TRAINER that differ in their seed alone are trainings of one loss in one setting. Compared are the
cases that all folders of a data set have of the same fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from values import name_of, rows_of

from nnunet_nacl.comparison.entries import STOCK_LABEL
from nnunet_nacl.metrics.detection import Detected
from nnunet_nacl.registration.grammar import parse
from nnunet_nacl.registration.variants import STOCK, Variant

AS_TRAINED, MAP = "as trained", "map"

SCORES = {"ECE predicted": 3, "ECE near": 3, "NLL all": 4, "Brier all": 4}
"""Of forms.csv, with their decimals."""

FLAT = 0.01
"""A validation loss is flat where it changes by less, of its range, between the last two fifths of the epochs."""

BEGUN = 0.05
"""A structure is found by networks of some training only where its Dice exceeds this."""

WORDS = {"anneal": "annealed", "plainstart": "nnU-Net's start"}


@dataclass(frozen=True)
class Training:
    """Networks of a trainer, and the cases that they share with the others.

    Attributes:
        folder: Its values.
        variant: Its settings.
        structures, forms: Rows of folds/structures.csv and folds/forms.csv of these cases.
    """

    folder: Path
    variant: Variant
    structures: pd.DataFrame
    forms: pd.DataFrame

    @property
    def map_cases(self) -> int:
        """Predictions that its maps were learned from, each less a part."""
        return len(rows_of(self.folder, "folds", "scans"))

    @property
    def curves(self) -> pd.DataFrame:
        """By epoch the means over the networks of curves.csv."""
        rows = pd.read_csv(self.folder / "curves.csv", dtype={"fold": str})
        ours = rows[("fold_" + rows["fold"]).isin(self.structures["network"])]
        return ours.drop(columns="fold").groupby("epoch").mean()

    def detected(self, structure: str) -> Detected:
        """Dice of a structure where it is, and the cases in which it is missed or invented."""
        rows = self.structures[self.structures["structure"] == structure]
        return Detected.of(rows["Dice"], rows["true volume"] > 0, rows["volume"] > 0)

    def by_case(self) -> pd.DataFrame:
        """A row for each network and case: `Dice STRUCTURE` where it is, and `SCORE, FORM`."""
        keys = ["network", "case", "patient"]
        there = self.structures[self.structures["true volume"] > 0]
        dice = there.pivot_table("Dice", keys, "structure", sort=False).add_prefix("Dice ")
        scores = self.forms.pivot_table(list(SCORES), keys, "form")
        scores.columns = [f"{score}, {form}" for score, form in scores.columns]
        return scores.join(dice)


def variant_of(folder: Path) -> Variant:
    """What the name of a folder study/DATASET/TRAINER stands for.

    Raises:
        ValueError: It is the name of no trainer of this package.
    """
    trainer = folder.name.partition("_fold_")[0]
    variant = parse(f"nnUNetTrainer{trainer}")
    if variant is None:
        raise ValueError(f"{folder}: 'nnUNetTrainer{folder.name}' is no trainer of a loss; correct the folder's name.")
    return variant


def loss_of(variant: Variant) -> str:
    """Name of a loss for people, without the schedule."""
    alone = replace(variant, epochs=None, iterations=None, adam=False, noda=False, seed=None)
    words = [WORDS.get(token.field, f"{token.field} {value}") for token, value in alone.spelled]
    return STOCK_LABEL if alone == STOCK else ", ".join(["Dice + " * variant.dice + variant.method, *words])


def setting_of(variant: Variant) -> str:
    """Optimiser, whether there was augmentation, and how long it trained where this is not 5,000 iterations."""
    iterations = (variant.epochs or 1000) * (variant.iterations or 250)
    words = ["Adam" if variant.adam else "SGD", "no augmentation" if variant.noda else "augmentation"]
    return ", ".join(words + [f"{iterations:,} iterations"] * (iterations != 5000))


def settings(folders: Sequence[Path]) -> dict[str, dict[str, list[Training]]]:
    """By data set and setting, and by loss, its trainings.

    Raises:
        FileNotFoundError: A folder has no values.
        ValueError: The folders of a data set share no case.
    """
    found: dict[str, dict[str, list[Training]]] = {}
    for place in dict.fromkeys(folder.parent for folder in folders):
        values = {}
        for folder in (folder for folder in folders if folder.parent == place):
            values[folder] = [rows_of(folder, "folds", name) for name in ("structures", "forms")]
            if any(rows.empty for rows in values[folder]):
                raise FileNotFoundError(f"{folder}/folds: write its values with measure.py first.")
        shared = set.intersection(*(set(zip(rows["network"], rows["case"])) for rows, _ in values.values()))
        if not shared:
            raise ValueError(f"{place}: no case of the same fold is in all of {', '.join(f.name for f in values)}.")
        for folder, tables in values.items():
            variant = variant_of(folder)
            title = f"{name_of(folder)}, {setting_of(variant)} ({len(shared)} cases)"
            own = [rows[[key in shared for key in zip(rows["network"], rows["case"])]] for rows in tables]
            found.setdefault(title, {}).setdefault(loss_of(variant), []).append(Training(folder, variant, *own))
    return found


def structures_begun(found: dict[str, dict[str, list[Training]]]) -> list[str]:
    """Structures, in order, whose mean Dice exceeds ``BEGUN`` in some training."""
    every = [one for of_loss in found.values() for own in of_loss.values() for one in own]
    names = dict.fromkeys(name for one in every for name in one.structures["structure"].unique())
    return [name for name in names if any(one.detected(name).dice > BEGUN for one in every)]


def change_at_end(losses: Sequence[float]) -> float:
    """Mean of the last fifth of a training's losses less that of the fifth before, as a share of their range.

    With noise of the standard deviation s the difference of two means of n losses has the standard error s sqrt(2 / n);
    that of the change along a line through the last n, about s sqrt(12 / n), is more than twice as large.

    Args:
        losses: By epoch; at least ten.

    Returns:
        Negative where the loss still falls; 0 where it never changed.

    Raises:
        ValueError: There are fewer.
    """
    values, n = np.asarray(losses, float), len(losses) // 5
    if n < 2:
        raise ValueError(f"it takes ten epochs to tell whether a loss is flat, got {len(losses)}.")
    span = float(np.ptp(values))
    return float(values[-n:].mean() - values[-2 * n : -n].mean()) / span if span else 0.0


def trend(change: float) -> str:
    """What ``change_at_end`` gave, for people: flat, or the change in % of the range."""
    return "flat" if abs(change) < FLAT else f"{100 * change:+.1f} %"
