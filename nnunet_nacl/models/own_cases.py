"""What few cases, predicted as a model is used, do to the map of its single networks: one further slope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.calibration.last_slope import LastSlope, fit_last_slope, scaled
from nnunet_nacl.cases.heldout import HeldOut
from nnunet_nacl.documents.document import FILE_NAME
from nnunet_nacl.documents.map_file import (
    MAP_FILE,
    MapRecord,
    check_networks,
    map_in,
    read_map,
    read_record,
    structures_of,
)
from nnunet_nacl.files import can_write
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.models.workflow import check_number, samples_of

FEW = 10
"""Patients below which a model's own map is kept, and gets a slope, where it has one."""

LAST_SLOPE = "last_slope"
"""Key of calibration_map.json."""


@dataclass(frozen=True, eq=False)
class MapOfFolds:
    """A map that was fitted to the single networks of a cross-validation.

    Attributes:
        path: Its file.
        record: What that holds beside the map.
        content: Of the file, its maps without any further slope.
    """

    path: Path
    record: MapRecord
    content: dict[str, Any]

    @classmethod
    def find(cls, model: Path, held_out: HeldOut, networks: Mapping[str, str], inference: dict) -> MapOfFolds | None:
        """That of a model folder; None where there is none, or it is one of other networks, settings or predictions."""
        path, labels = model / MAP_FILE, held_out.first.labels
        try:
            record = read_record(path)
            check_networks(path, record, networks)
            read_map(path, structures_of(labels), labels.regions)
            last = record.last_slope
            content = _with_slope(read_dict(path), 1 / last["slope"] if last and last["applied"] else 1.0)
        except (ArithmeticError, TypeError, ValueError):  # UserError too; standard errors that are no numbers
            return None
        single = record.learned and not any(one.as_deployed for one in record.learned.values())
        if not single or record.inference not in ({}, inference):
            return None
        return cls(path, record, content)

    def slope(self, held_out: HeldOut, groups: Mapping[str, str] | None) -> LastSlope:
        """What the cases say.

        Args:
            held_out: Predicted as the model is used; those that cannot be used are left out.
            groups: Patient of each case; None: each its own.

        Raises:
            UserError: See :func:`~nnunet_nacl.models.workflow.check_number`.
        """
        place = held_out.first.folder
        before = held_out.evaluate(None, place / FILE_NAME if can_write(place) else None)
        held_out.leave_out(before.problems)
        samples = samples_of(held_out)
        check_number(samples, held_out)
        patients = [groups[case] for case in samples] if groups else None
        return fit_last_slope([sample.voxels() for sample in samples.values()], map_in(self.content), patients)

    def to_json(self, found: LastSlope) -> dict[str, Any]:
        """The content of a file with the slope, where it is to be applied."""
        content = _with_slope(self.content, found.slope) if found.applied else self.content
        notes = [*self.record.notes, words(found)]
        return content | {LAST_SLOPE: asdict(found) | {"applied": found.applied}, "notes": notes}


def words(found: LastSlope) -> str:
    """What was found and done, in a sentence."""
    n = f"{found.n_cases} cases" + (f" of {found.n_patients} patients" if found.n_patients < found.n_cases else "")
    interval = f"a further slope of {found.slope:.3f} (95 % interval {found.low:.3f} to {found.high:.3f})"
    what = "applied; Dice, volumes and presence were learned without it" if found.applied else "1 is in it: left out"
    nll = f"NLL in nnU-Net's crop {found.nll_as_predicted:.4f} as predicted, {found.nll_of_map:.4f} through the map"
    return f"{n} predicted as the model is used: {interval}, {what}. {nll}, {found.nll_of_slope:.4f} with the slope."


def _with_slope(content: dict[str, Any], slope: float) -> dict[str, Any]:
    maps = {}
    for form, one in content["maps"].items():
        changed = scaled(map_in(content, form), slope)
        maps[form] = one | {"slopes": changed.slopes.tolist(), "offsets": changed.offsets.tolist()}
        for name in ("slope_standard_errors", "offset_standard_errors"):
            if name in one:
                maps[form][name] = (slope * np.array(one[name], float)).tolist()
    return content | {"maps": maps}
