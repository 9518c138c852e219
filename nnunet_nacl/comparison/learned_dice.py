"""Predicted Dice of calibrated models' own validation cases, and of folders of predictions that a map calibrated.

What `nnunet_nacl calibrate` learned of a model, it learned from its validation cases. So it is not asked about them: of
each case the same is learned again from the parts of the cross-fit that the case is not in; a patient's cases lie in
one part, and count as one there. Of other cases it is asked as it is.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.calibration.dice_estimate import StructureEstimate
from nnunet_nacl.calibration.learned_quality import LearnedQuality
from nnunet_nacl.cases.predicted_quality import QualityOfMap
from nnunet_nacl.cases.quality_block import CaseQuality
from nnunet_nacl.comparison.alignment import Dataset
from nnunet_nacl.comparison.resolution import Located
from nnunet_nacl.documents.map_file import APPLIED_FILE, MAP_FILE, map_path_of
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import Optional, decode, mismatch, read_dict

__all__ = ["PredictedDice", "cross_fitted", "open_maps", "predicted_dice"]

_MAP = {"quality": {"learned": dict}, "cross_fit": {"*": {"cases": [str]}}, "groups": Optional({"*": str})}


@dataclass(frozen=True, eq=False)
class PredictedDice:
    """Of the cases of one method, in their order; by structure, NaN where there is none.

    Attributes:
        estimate: Predicted Dice.
        low: Lower end of its interval.
        high: Upper end.
        level: Of the intervals.
        reservations: What must be said beside them.
    """

    estimate: dict[str, np.ndarray]
    low: dict[str, np.ndarray]
    high: dict[str, np.ndarray]
    level: float
    reservations: tuple[str, ...] = ()


def cross_fitted(
    cases: Sequence[CaseQuality], parts: Sequence[str], patients: Sequence[str], alpha: float
) -> PredictedDice:
    """Predict each case by the cases of other parts.

    Args:
        cases: The cases.
        parts: Part of each.
        patients: To whom each belongs.
        alpha: The intervals have level 1 - alpha.
    """
    found: dict[str, np.ndarray] = {}
    place = np.array(parts)
    for key in cases[0].true:
        expected, true = (np.array([getattr(case, name)[key] for case in cases]) for name in ("expected", "true"))
        found[key] = np.full((len(cases), 3), math.nan)
        for part in np.unique(place):
            others = place != part
            others_patients = [patients[i] for i in np.flatnonzero(others)]
            estimate = StructureEstimate.fit(expected[others], true[others], others_patients, alpha=alpha)
            for i in np.flatnonzero(~others):
                one = estimate.predict(float(expected[i]))
                found[key][i] = one.estimate, one.low, one.high
    predicted, low, high = ({key: values[:, i] for key, values in found.items()} for i in range(3))
    return PredictedDice(predicted, low, high, 1 - alpha)


def open_maps(located: Located, given: Mapping[str, Path]) -> dict[str, QualityOfMap]:
    """By name, the maps of those entries that are folders of predictions.

    Args:
        located: What is compared.
        given: By label or name of an entry, the map by which its predictions were calibrated. Folders that `nnunet_nacl
            apply` wrote name theirs.

    Raises:
        UserError: A map was given for what is no such folder, or cannot be asked about its predictions.
    """
    left, found = dict(given), {}
    for part in located.parts:
        folder = part.folder
        if (part.entry.is_model and not located.options.test) or folder is None:
            continue
        path = left.pop(part.entry.label, None) or left.pop(part.entry.name, None)
        asked, calibrated = path is not None, not (folder.folder / APPLIED_FILE).is_file()
        path = path or map_path_of(folder.folder)
        if path is not None:
            with contextlib.nullcontext() if asked else contextlib.suppress(UserError):  # one that has learned nothing
                found[part.entry.name] = QualityOfMap.open(path, folder, calibrated=calibrated)
    for name in left:
        raise UserError(f"-map {name}=...: no folder of predictions given with -i has this label; give it one.")
    return found


def predicted_dice(
    located: Located, dataset: Dataset, maps: Mapping[str, QualityOfMap] | None = None
) -> dict[str, PredictedDice]:
    """By name, of the entries of whose Dice a map has learned.

    These are the calibrated entries of models whose calibration_map.json has, and those of ``maps``.
    """
    result = {}
    for entry in dataset.results:
        part = next(part for part in located.parts if part.entry.name == entry)
        cases = [quality for case in dataset.results[entry] if (quality := CaseQuality.of(case))]
        known = len(cases) == len(dataset.results[entry])
        if known and maps and entry in maps:
            predicted, low, high = maps[entry].predict_dice([case.expected for case in cases])
            level = 1 - next(iter(maps[entry].learned.dice.values())).alpha
            result[entry] = PredictedDice(predicted, low, high, level, tuple(maps[entry].reservations(dataset.cases)))
        if "calibrated" not in part.entry.treatment or part.folder is None or not known or located.options.test:
            continue
        content = _read(part.folder.folder.parent.parent / MAP_FILE)
        delivered = "decided" if "decided" in part.entry.treatment else "argmax"
        if content is None or delivered not in content["quality"]["learned"]:
            continue
        learned = decode(
            LearnedQuality, content["quality"]["learned"][delivered], f"{MAP_FILE}, {delivered}", fix="calibrate again"
        )
        parts = {case: name for name, fit in content["cross_fit"].items() for case in fit["cases"]}
        if learned.dice and set(dataset.cases) <= parts.keys():
            alpha = next(iter(learned.dice.values())).alpha
            patients = [content.get("groups", {}).get(case, case) for case in dataset.cases]
            result[entry] = cross_fitted(cases, [parts[case] for case in dataset.cases], patients, alpha)
    return result


def _read(path: Path) -> dict[str, Any] | None:
    """The map of a model; None where there is none, or one that has learned nothing."""
    try:
        content = read_dict(path)
    except UserError:
        return None
    return None if mismatch(content, _MAP) else content
