"""index.html: the review list with a picture of every case, one file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from nnunet_nacl.calibration.dice_estimate import Prediction
from nnunet_nacl.cases.review_row import CaseReview, volume_text
from nnunet_nacl.documents.finding_list import StructureFindings
from nnunet_nacl.prediction.review_list import ReviewList
from nnunet_nacl.show.templating import render_page

_UNITS = {"mm2": "mm²"}
_TWO_DECIMALS = "{:.2f}".format
_MOST_FINDINGS = 10
_MOST_STRUCTURES, _SHOWN = 4, 3  # of more, only those with the lowest Dice fit into a row


def review_page(listed: ReviewList) -> str:
    """The page of a list, with a picture of every case that has one."""
    several = len(listed.members) > 1
    return render_page(
        "review.html",
        list=listed,
        rows=[_row(rank, row, listed) for rank, row in enumerate(listed.rows, 1)],
        date=f"{datetime.now():%Y-%m-%d}",
        columns=_columns(listed.structures, several),
        several=several,
        learned=listed.predicts_dice,
        present=any(not math.isnan(p) for case in (listed.predicted or {}).values() for p in case.present),
        findings=any(listed.findings.values()),
    )


def _row(rank: int, review: CaseReview, listed: ReviewList) -> dict[str, Any]:
    finished, predicted = listed.finished[review.case], (listed.predicted or {}).get(review.case)
    cells = [_cell(review.lowest_expected_dice)]
    if review.n_members > 1:
        members = [s.members_dice for s in review.structures if not math.isnan(s.members_dice)]
        cells.append(_cell(min(members, default=math.nan)))
    structures = []
    for i, structure in enumerate(review.structures):
        known = predicted and listed.predicts_dice and not math.isnan(predicted.dice[i].estimate)
        dice = predicted.dice[i] if predicted and known else Prediction(structure.expected_dice, math.nan, math.nan)
        volume = predicted.volume[i] if predicted else Prediction(math.nan, math.nan, math.nan)
        unit = _UNITS.get(review.unit, review.unit)
        lines = [f"{volume_text(structure.volume)} {unit}"]
        if not math.isnan(volume.estimate):
            lines.append(f"predicted {volume_text(volume.estimate)}{_interval(volume, volume_text)}")
        if predicted and predicted.present and not math.isnan(predicted.present[i]):
            lines.append(f"in the scan: {predicted.present[i]:.2f}")
        structures.append((structure.name, dice, _cell(dice.estimate, _interval(dice, _TWO_DECIMALS), *lines)))
    if len(structures) > _MOST_STRUCTURES:
        known = sorted((s for s in structures if not math.isnan(s[1].estimate)), key=lambda s: s[1].estimate)
        lines = [f"{name} {dice.estimate:.2f}{_interval(dice, '{:.2f}'.format)}" for name, dice, _ in known[:_SHOWN]]
        cells.append({"lines": lines, "value": known[0][1].estimate if known else None})
    else:
        cells += [cell for _, _, cell in structures]
    return {
        "rank": rank,
        "case": review.case,
        "reasons": "; ".join(listed.reasons[review.case]),
        "place": finished.place,
        "picture": f"data:image/png;base64,{finished.picture}",
        "size": finished.size,
        "cells": cells,
        "findings": _findings(listed.findings[review.case], _UNITS.get(review.unit, review.unit)),
    }


def _findings(structures: Sequence[StructureFindings], unit: str) -> list[str]:
    """A line for each finding, the most probable first, and what is not shown."""
    length = "pixels" if unit == "pixels" else "mm"
    all_of_them = [(structure.name, finding) for structure in structures for finding in structure.found]
    all_of_them.sort(key=lambda item: -item[1].real_probability if item[1].real_probability >= 0 else 1.0)
    lines = []
    for name, finding in all_of_them[:_MOST_FINDINGS]:
        known = not math.isnan(finding.real_probability)
        real = f"real with a probability of {finding.real_probability:.2f}, " if known else ""
        place = ", ".join(f"{value:.0f}" for value in finding.centre_mm)
        size = f"{volume_text(finding.volume)} {unit}, diameter {volume_text(finding.diameter_mm)} {length}"
        lines.append(f"{name}: {real}{size}, centre ({place}) {length}")
    more = len(all_of_them) - len(lines) + sum(structure.n_more for structure in structures)
    return [*lines, f"and {more} more in findings.csv"] if more else lines


def _columns(names: Sequence[str], several: bool) -> list[str]:
    columns = ["lowest predicted Dice", *(["lowest Dice between folds"] if several else [])]
    return [*columns, *(names if len(names) <= _MOST_STRUCTURES else [f"the {_SHOWN} structures with the lowest Dice"])]


def _cell(dice: float, interval: str = "", *lines: str) -> dict[str, Any]:
    known = not math.isnan(dice)
    return {"lines": [f"{dice:.2f}{interval}" if known else "-", *lines], "value": dice if known else None}


def _interval(prediction: Prediction, show: Callable[[float], str]) -> str:
    return "" if math.isnan(prediction.low) else f" ({show(prediction.low)} to {show(prediction.high)})"
