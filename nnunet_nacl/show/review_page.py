"""index.html: the review list with a picture of every case, one file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

import nnunet_nacl
from nnunet_nacl.calibration.dice_estimate import Prediction
from nnunet_nacl.documents.review_list import CaseReview, PredictedCase
from nnunet_nacl.prediction.case_records import FinishedCase
from nnunet_nacl.prediction.trained_model import TrainedModel
from nnunet_nacl.show.drawing import STRUCTURE_COLORS
from nnunet_nacl.show.templating import render, source

__all__ = ["review_page"]

_UNITS = {"mm2": "mm²"}
_MOST_STRUCTURES, _SHOWN = 4, 3  # of more, only those with the lowest Dice fit into a row


def review_page(
    model: TrainedModel,
    images: Path,
    reviews: Sequence[CaseReview],
    done: Mapping[str, FinishedCase],
    predicted: Mapping[str, PredictedCase] | None,
    reasons: Mapping[str, Sequence[str]],
    problems: Mapping[str, str],
    notes: Sequence[str],
    threshold: float | None,
) -> str:
    """The page.

    Args:
        model: That made the segmentations.
        images: Folder of the scans.
        reviews: In the order of the list.
        done: Picture and place of each.
        predicted: What the map predicts of each; None where nothing is known.
        reasons: Why each needs a look.
        problems: Why other cases could not be done.
        notes: What must be known of the numbers.
        threshold: Of the predicted Dice; None without one.
    """
    script, names = source("page.js"), [model.labels.names[channel] for channel in model.labels.foreground]
    rows = [
        _row(rank, review, done[review.case], (predicted or {}).get(review.case), reasons[review.case])
        for rank, review in enumerate(reviews, 1)
    ]
    return render(
        "review.html",
        dataset=model.opened.plans.get("dataset_name") or model.folder.name,
        images=str(images),
        date=f"{datetime.now():%Y-%m-%d}",
        version=f"nnunet_nacl {nnunet_nacl.__version__}",
        style=Markup(render("page.css", colors=STRUCTURE_COLORS)),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        structures=names,
        columns=_columns(names, len(model.folds) > 1),
        colors=len(STRUCTURE_COLORS),
        model=model,
        rows=rows,
        n_to_look_at=sum(map(bool, reasons.values())),
        several=len(model.folds) > 1,
        learned=predicted is not None,
        threshold=threshold,
        problems=problems,
        notes=notes,
    )


def _row(
    rank: int, review: CaseReview, finished: FinishedCase, predicted: PredictedCase | None, reasons: Sequence[str]
) -> dict[str, Any]:
    cells = [_cell(review.lowest_expected_dice)]
    if review.n_members > 1:
        members = [s.members_dice for s in review.structures if not math.isnan(s.members_dice)]
        cells.append(_cell(min(members, default=math.nan)))
    structures = []
    for i, structure in enumerate(review.structures):
        dice = predicted.dice[i] if predicted else Prediction(structure.expected_dice, math.nan, math.nan)
        volume = predicted.volume[i] if predicted else Prediction(math.nan, math.nan, math.nan)
        sizes = f"{structure.volume:.3g} {_UNITS.get(review.unit, review.unit)}{_interval(volume, '.3g')}"
        structures.append((structure.name, dice, _cell(dice.estimate, _interval(dice, ".2f"), sizes)))
    if len(structures) > _MOST_STRUCTURES:
        known = sorted((s for s in structures if not math.isnan(s[1].estimate)), key=lambda s: s[1].estimate)
        lines = [f"{name} {dice.estimate:.2f}{_interval(dice, '.2f')}" for name, dice, _ in known[:_SHOWN]]
        cells.append({"lines": lines, "value": known[0][1].estimate if known else None})
    else:
        cells += [cell for _, _, cell in structures]
    return {
        "rank": rank,
        "case": review.case,
        "reasons": "; ".join(reasons),
        "place": finished.place,
        "picture": f"data:image/png;base64,{finished.picture}",
        "size": finished.size,
        "cells": cells,
    }


def _columns(names: Sequence[str], several: bool) -> list[str]:
    columns = ["lowest expected Dice", *(["lowest Dice between folds"] if several else [])]
    return [*columns, *(names if len(names) <= _MOST_STRUCTURES else [f"the {_SHOWN} structures with the lowest Dice"])]


def _cell(dice: float, interval: str = "", *lines: str) -> dict[str, Any]:
    known = not math.isnan(dice)
    return {"lines": [f"{dice:.2f}{interval}" if known else "-", *lines], "value": dice if known else None}


def _interval(found: Prediction, form: str) -> str:
    return "" if math.isnan(found.low) else f" ({found.low:{form}} to {found.high:{form}})"
