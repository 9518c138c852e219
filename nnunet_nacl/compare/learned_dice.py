"""Promised quality of every entry's cases, with intervals of predicted Dice where a map has learned of them.

What `nnunet_nacl calibrate` learned of a model, it learned from its validation cases. So it is not asked about them: of
each case the same is learned again from the parts of the cross-fit that the case is not in; a patient's cases lie in
one part, and count as one there. Of other cases, in folders that a map calibrated, it is asked as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from nnunet_nacl.calibrate.calibration_map import CalibrationMap
from nnunet_nacl.calibrate.map_file import MAP_FILE, map_path_of
from nnunet_nacl.case.table import table
from nnunet_nacl.compare.alignment import Dataset
from nnunet_nacl.compare.entries import Entry
from nnunet_nacl.compare.resolution import Predictions, Selection
from nnunet_nacl.errors import UserError
from nnunet_nacl.numbers.learned_quality import predict_dice_parts
from nnunet_nacl.numbers.presence import LearnedPresence, learn_presence
from nnunet_nacl.review.predicted_quality import QualityOfMap, open_map
from nnunet_nacl.review.same_networks import check_same_networks


def open_maps(selection: Selection, given: Mapping[str, Path]) -> dict[str, QualityOfMap]:
    """By name, the maps of those entries that are folders of predictions.

    Args:
        selection: What is compared.
        given: By label or name of an entry, the map by which its predictions were calibrated. Folders that
            `nnunet_nacl review -map` wrote name theirs.

    Raises:
        UserError: A map was given for what is no such folder, is of other networks than its predictions, or cannot be
            asked about them.
    """
    left, maps = dict(given), {}
    for place in selection.predictions:
        folder, entry = place.folder, place.entry
        if folder is None or entry.is_model:
            continue
        asked = left.pop(entry.label, None) or left.pop(entry.name, None)
        path = asked or map_path_of(folder.folder)
        if path is not None:
            if asked and (note := check_same_networks(path, folder)):
                selection.notes.append(note)
            with contextlib.nullcontext() if asked else contextlib.suppress(UserError):  # one that has learned nothing
                _, quality, why_not = open_map(path, folder)
                if quality is None:
                    raise UserError(why_not)
                maps[entry.name] = replace(quality, as_network=True)  # as it was when its folder was made
    for name in left:
        raise UserError(f"-map {name}=...: no folder of predictions given with -i has this label; give it one.")
    return maps


def quality_by_entry(
    selection: Selection, dataset: Dataset, maps: Mapping[str, QualityOfMap]
) -> dict[str, pd.DataFrame]:
    """By name of every entry its table; what must be said beside its intervals is among the ``attrs`` as ``notes``.

    Intervals have the calibrated entries of models whose calibration_map.json has learned of them, and those of
    ``maps``.
    """
    places = {place.entry.name: place for place in selection.predictions}
    result = {}
    for name, cases in dataset.results.items():
        rows = table(cases)
        if name in maps:
            rows = maps[name].learned.predict_dice(rows)
            rows.attrs["notes"] = maps[name].caveats(dataset.cases)
        elif places[name].entry.calibrated:
            rows = _by_other_parts(places[name], dataset, rows)
        result[name] = rows
    return result


def presence_by_entry(entries: Sequence[Entry], dataset: Dataset) -> dict[str, LearnedPresence]:
    """By name of an entry, how probably a structure is in a scan, by what others taught.

    Not of a model as its map leaves it: presence is learned before a map.
    """
    patients = dict(zip(dataset.cases, dataset.groups or dataset.cases))
    networks = [entry.name for entry in entries if not entry.calibrated]
    return {name: learn_presence(table(dataset.results[name]), patients) for name in networks}


def _by_other_parts(place: Predictions, dataset: Dataset, rows: pd.DataFrame) -> pd.DataFrame:
    """With intervals, if the model's map has learned of these cases."""
    path = place.folder.folder.parent.parent / MAP_FILE if place.folder else None
    if path is None or not path.is_file():
        return rows
    record = CalibrationMap.load(path)
    if record.learned is None or not record.part_of.keys() >= set(dataset.cases):
        return rows
    return predict_dice_parts(rows, record.groups, record.part_of)
