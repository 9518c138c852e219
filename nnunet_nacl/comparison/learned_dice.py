"""Promised quality of every entry's cases; predicted Dice where a map has learned of them.

What `nnunet_nacl calibrate` learned of a model, it learned from its validation cases. So it is not asked about them: of
each case the same is learned again from the parts of the cross-fit that the case is not in; a patient's cases lie in
one part, and count as one there. Of other cases, in folders that a map calibrated, it is asked as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nnunet_nacl.calibration.learned_quality import predict_dice_parts
from nnunet_nacl.calibration.quality_report import QualityRows
from nnunet_nacl.cases.held_out_presence import HeldOutPresence, learn_presence
from nnunet_nacl.cases.predicted_quality import QualityOfMap, open_map
from nnunet_nacl.cases.quality_block import quality_rows
from nnunet_nacl.comparison.alignment import Dataset
from nnunet_nacl.comparison.resolution import Predictions, Selection
from nnunet_nacl.documents.map_file import MAP_FILE, map_path_of, read_record
from nnunet_nacl.errors import UserError


def open_maps(selection: Selection, given: Mapping[str, Path]) -> dict[str, QualityOfMap]:
    """By name, the maps of those entries that are folders of predictions.

    Args:
        selection: What is compared.
        given: By label or name of an entry, the map by which its predictions were calibrated. Folders that `nnunet_nacl
            apply` wrote name theirs.

    Raises:
        UserError: A map was given for what is no such folder, or cannot be asked about its predictions.
    """
    left, found = dict(given), {}
    for one in selection.predictions:
        folder, entry = one.folder, one.entry
        if (entry.is_model and not selection.options.test) or folder is None:
            continue
        path = left.pop(entry.label, None) or left.pop(entry.name, None)
        asked = path is not None
        path = path or map_path_of(folder.folder)
        if path is not None:
            with contextlib.nullcontext() if asked else contextlib.suppress(UserError):  # one that has learned nothing
                _, quality, why_not = open_map(path, folder)
                if quality is None:
                    raise UserError(why_not)
                found[entry.name] = replace(quality, as_network=True)  # as it was when its folder was made
    for name in left:
        raise UserError(f"-map {name}=...: no folder of predictions given with -i has this label; give it one.")
    return found


def quality_by_entry(
    selection: Selection, dataset: Dataset, maps: Mapping[str, QualityOfMap]
) -> dict[str, QualityRows]:
    """By name, of the entries whose documents tell of it; the rows have the order of the cases.

    Dice is predicted for the calibrated entries of models whose calibration_map.json has learned of it, and for those
    of ``maps``.
    """
    result = {}
    for name, cases in dataset.results.items():
        if (rows := quality_rows(cases)) is None:
            continue
        one = next(one for one in selection.predictions if one.entry.name == name)
        if name in maps and maps[name].predicts_dice:
            rows = maps[name].learned.predict_dice(rows, maps[name].reservations(dataset.cases))
        elif "calibrated" in one.entry.treatment and not selection.options.test:
            rows = _by_other_parts(one, dataset, rows)
        result[name] = rows
    return result


def presence_by_entry(dataset: Dataset) -> dict[str, HeldOutPresence]:
    """By name of every entry, how probably a structure is in a scan, and a finding is real, by what others taught."""
    patients = dataset.groups or list(dataset.cases)
    return {
        name: learn_presence(cases, dataset.structures, patients, only_listed=True)
        for name, cases in dataset.results.items()
    }


def _by_other_parts(one: Predictions, dataset: Dataset, rows: QualityRows) -> QualityRows:
    """With predictions, if the model's map has learned of these cases."""
    path = one.folder.folder.parent.parent / MAP_FILE if one.folder else None
    if path is None or not path.is_file():
        return rows
    record = read_record(path)
    parts = record.part_of
    learned = record.learned.get("decided" if "decided" in one.entry.treatment else "argmax")
    if learned is None or not learned.dice or not parts.keys() >= set(dataset.cases):
        return rows
    patients = [record.groups.get(case, case) for case in dataset.cases]
    return predict_dice_parts(rows, patients, [parts[case] for case in dataset.cases], learned.alpha)
