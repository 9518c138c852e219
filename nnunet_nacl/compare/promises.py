"""Predicted Dice with its intervals, and presence, of the cases of every compared entry.

What `nnunet_nacl calibrate` learned of a model, it learned from its validation cases. So it is not asked about them: of
each case the same is learned again from the parts of the cross-fit that the case is not in; a patient's cases lie in
one part, and count as one there. Of other cases, in folders that a map calibrated, it is asked as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from nnunet_nacl.calibrate.calibration_map import CalibrationMap
from nnunet_nacl.calibrate.map_file import MAP_FILE, map_path_of
from nnunet_nacl.compare.dataset import Dataset
from nnunet_nacl.compare.predictions import Predictions, Selection
from nnunet_nacl.errors import UserError
from nnunet_nacl.numbers.learned_quality import DICE, predict_dice_parts
from nnunet_nacl.numbers.presence import LearnedPresence, learn_presence
from nnunet_nacl.review.predicted_quality import QualityOfMap, check_same_networks, open_map


class Promises(NamedTuple):
    """What is promised of an entry's cases, beside what is true.

    Attributes:
        table: A row for each case and structure; predicted Dice has intervals where other cases taught them.
        caveats: What must be said beside the intervals.
        presence: How probably a structure is in a scan, by what others taught; None for a model as its map leaves it,
            since that is learned before a map.
    """

    table: pd.DataFrame
    caveats: Sequence[str] = ()
    presence: LearnedPresence | None = None

    @property
    def has_intervals(self) -> bool:
        """Whether other cases taught how far predicted Dice is off."""
        return DICE[1] in self.table


def open_maps(selection: Selection, given: Sequence[str]) -> dict[str, QualityOfMap]:
    """By name, the maps of those entries that are folders of predictions.

    Args:
        selection: What is compared.
        given: ``LABEL=FILE``, with the label or name of an entry, the map by which its predictions were calibrated.
            Folders that `nnunet_nacl review -map` wrote name theirs.

    Raises:
        UserError: A map was given for what is no such folder, is of other networks than its predictions, or cannot be
            asked about them.
    """
    left, maps = {}, {}
    for text in given:
        label, _, file = text.rpartition("=")
        if not label:
            raise UserError(f"-map {text}: expected LABEL=FILE, with the label or path of an -i.")
        left[label] = Path(file)
    for place in (place for place in selection.predictions if not place.entry.is_model):
        folder, entry = place.folder, place.entry
        asked = left.pop(entry.label, None) or left.pop(entry.name, None)
        if folder is None and asked:
            raise UserError(f"{asked}: of {entry.label} only records are left, which no map can be asked about.")
        path = asked or map_path_of(place.path)
        if path is not None and folder is not None:
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


def promises_of(selection: Selection, dataset: Dataset, maps: Mapping[str, QualityOfMap]) -> dict[str, Promises]:
    """By name of every entry; those have intervals that ``maps`` or a calibrated model's own map have learned of."""
    patients, result = dict(zip(dataset.cases, dataset.groups or dataset.cases)), {}
    places = {place.entry.name: place for place in selection.predictions}
    for name, table in dataset.table.groupby("entry", sort=False):
        if places[name].entry.calibrated:
            result[name] = Promises(_by_other_parts(places[name], dataset, table))
            continue
        presence, caveats = learn_presence(table, patients), list[str]()
        if name in maps:
            table, caveats = maps[name].learned.predict_dice(table), maps[name].caveats(dataset.cases)
        result[name] = Promises(table, caveats, presence)
    return result


def _by_other_parts(place: Predictions, dataset: Dataset, table: pd.DataFrame) -> pd.DataFrame:
    """With intervals, if the model's map has learned of these cases."""
    record = CalibrationMap.load(place.path.parent.parent / MAP_FILE)
    if record.learned is None or not record.fitted.part_of.keys() >= set(dataset.cases):
        return table
    return predict_dice_parts(table, record.fitted.groups, record.fitted.part_of)
