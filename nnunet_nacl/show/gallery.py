"""The gallery: which cases are shown, and the pictures of each: the same cases and slices for all methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nnunet_nacl.errors import UserError
from nnunet_nacl.show.case_files import Folders
from nnunet_nacl.show.panels import CasePanels, Picture, make_panels

__all__ = ["Gallery", "GalleryCase", "make_gallery", "pick_cases"]

_RANKINGS = (
    ("Dice", ("best mean Dice", "median mean Dice", "worst mean Dice")),
    ("ECE:foreground", ("lowest ECE", "median ECE", "highest ECE")),
)


@dataclass(frozen=True)
class GalleryCase:
    """A case: why it is shown, its pictures, and each method's scores."""

    case: str
    fold: str
    reasons: tuple[str, ...]
    panels: CasePanels
    methods: list[tuple[str, str, tuple[Picture, ...]]]


@dataclass(frozen=True)
class Gallery:
    """The cases of one data set, and what is missing."""

    dataset: str
    structures: list[str]
    cases: list[GalleryCase]
    problems: list[str] = field(default_factory=list)


def pick_cases(dataset: Mapping[str, Any], trainers: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Cases to show, with the reasons: best, median and worst by mean Dice and by foreground ECE.

    Cases are ordered by the mean over all methods, so that none of them has chosen. A case in which a method has no
    value is left out of that order.
    """
    picked: dict[str, list[str]] = {}
    for column, reasons in _RANKINGS:
        values = dataset["values"].get(column)
        if values is None:
            continue
        scored = []
        for i, case in enumerate(dataset["cases"]):
            row = [values[trainer][i] for trainer in trainers]
            if all(value is not None and math.isfinite(value) for value in row):
                mean = sum(row) / len(row)
                scored.append((-mean if column == "Dice" else mean, i, case))
        scored.sort()
        if scored:
            for place, reason in zip((0, (len(scored) - 1) // 2, len(scored) - 1), reasons):
                picked.setdefault(scored[place][2], []).append(reason)
    return {case: tuple(reasons) for case, reasons in picked.items()}


def make_gallery(
    dataset: Mapping[str, Any],
    trainers: Sequence[Mapping[str, str]],
    *,
    n_bins: int,
    channel: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Gallery:
    """Read the picked cases of a data set and draw them.

    Args:
        dataset: Of comparison.json.
        trainers: Of comparison.json.
        n_bins: Confidence bins of a case's reliability.
        channel: Image channel.
        say: Is told what is being read.

    Returns:
        The gallery; what could not be read is in its problems.
    """
    folders, names = Folders(dataset), [trainer["name"] for trainer in trainers]
    picked = pick_cases(dataset, names)
    cases: list[GalleryCase] = []
    problems: dict[str, None] = {}
    for number, (case, reasons) in enumerate(picked.items(), 1):
        say(f"{dataset['name']}: case {number} of {len(picked)}, {case}")
        fold = dataset["case_fold"].get(case, "")
        try:
            panels = make_panels(folders, dataset, trainers, case, fold, n_bins=n_bins, channel=channel)
        except UserError as error:
            problems[str(error)] = None
            panels = CasePanels(case)
        problems |= dict.fromkeys(panels.problems)
        methods = [
            (trainer["label"], _scores(dataset, name, case), panels.methods.get(name, ()))
            for name, trainer in zip(names, trainers)
        ]
        cases.append(GalleryCase(case, fold, reasons, panels, methods))
    return Gallery(dataset["name"], list(dataset["structures"].values()), cases, list(problems))


def _scores(dataset: Mapping[str, Any], trainer: str, case: str) -> str:
    i = dataset["cases"].index(case)
    parts = []
    for column, title in (("Dice", "Dice"), ("ECE:foreground", "ECE")):
        value = dataset["values"][column][trainer][i] if column in dataset["values"] else None
        parts.append(f"{title} {'undefined' if value is None else f'{value:.3f}'}")
    return ", ".join(parts)
