"""From held-out cases to a map, what it changes and what it teaches: cases are measured once, then by samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

import nnunet_nacl
from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.crossfit import STRENGTHS, CrossFit, choose, cross_fit, parts_of
from nnunet_nacl.calibration.effect import CertainBackground, Relabelled, certain_background, changes, relabelled
from nnunet_nacl.calibration.fitting import AFFINE_FORMS, FORMS
from nnunet_nacl.calibration.learned_quality import DELIVERED
from nnunet_nacl.calibration.likelihood import case_loss
from nnunet_nacl.calibration.presence import LearnedPresence
from nnunet_nacl.calibration.quality_report import QualityRows
from nnunet_nacl.calibration.sampling import Sample
from nnunet_nacl.documents.map_file import DICE_MEAN, map_to_json, structures_of
from nnunet_nacl.documents.stored_map import stored_map
from nnunet_nacl.errors import UserError, list_problems
from nnunet_nacl.io.treatment import Treatment
from nnunet_nacl.json_files import encode, one_line
from nnunet_nacl.metrics.calibration_error import nanmean
from nnunet_nacl.metrics.detection import Detected
from nnunet_nacl.models.held_out_quality import HeldOutQuality, learn_quality
from nnunet_nacl.runs.held_out_presence import presence_of_others
from nnunet_nacl.runs.heldout import HeldOut, case_values
from nnunet_nacl.runs.quality_block import DECIDED, quality_rows, rows_of_blocks

FEWEST_TO_CALIBRATE = 5
PREDICTED_DICE_ERROR = "predicted Dice error"
"""Key of ``effect``: the mean over a case's structures of |expected - true Dice| of nnU-Net's labels."""


@dataclass(frozen=True)
class Calibration:
    """A map and how it was found.

    Attributes:
        chosen: The map in use, and those of the parts.
        tried: Every form and ridge, fitted to samples of all cases and of all but each part; poorer ones first.
        parts: Part of each case.
        structures: Name of each structure by nnU-Net's key.
        labels: Name of each label that slopes and offsets belong to.
        effect: Each value before and after, cross-fitted, of the labels that the network chose.
        decision: Dice of these labels (before) and of those decided for Dice (after), cross-fitted.
        detected: By ``DELIVERED`` and structure, what these labels find.
        certain: What no map changes.
        relabelled: By affine form, what it would change in the labels if it were written into the checkpoints.
        nll: Mean over the cases of a voxel's negative log likelihood under the map, in nats.
        presence: By part, what the cases of the others taught about which structures are there.
        quality: What was learned about Dice and volumes.
        groups: Patient of each case; None: each case its own.
    """

    chosen: CrossFit
    tried: list[CrossFit]
    parts: dict[str, str]
    structures: dict[str, str]
    labels: list[str]
    effect: dict[str, dict[str, Any]]
    decision: dict[str, dict[str, Any]]
    detected: dict[str, dict[str, Detected]]
    certain: CertainBackground
    relabelled: dict[str, Relabelled]
    nll: float
    presence: dict[str, LearnedPresence]
    quality: HeldOutQuality
    groups: dict[str, str] | None = None

    @property
    def best_of_forms(self) -> dict[str, CrossFit]:
        """Of each form the fit with its best ridge."""
        return {form: choose(self.tried, form) for form in dict.fromkeys(one.form for one in self.tried)}

    def to_json(self) -> dict[str, Any]:
        """Content of calibration_map.json."""
        fits = self.best_of_forms | {self.chosen.form: self.chosen}
        document = map_to_json({form: each.fit.map for form, each in fits.items()}, self.chosen.form, self.structures)
        for form, each in fits.items():
            document["maps"][form] = stored_map(each.fit.map, each.fit.standard_errors) | {"ridge": each.ridge}
        cases: dict[str, list[str]] = {part: [] for part in self.chosen.part_maps}
        for case, part in self.parts.items():
            cases[part].append(case)
        return document | {
            "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
            "labels": self.labels,
            "n_cases": len(self.parts),
            "nll": self.nll,
            "forms": [{"form": one.form, "ridge": one.ridge, **asdict(one.score)} for one in self.tried],
            "certain_background": asdict(self.certain),
            "relabelled": {form: asdict(one) for form, one in self.relabelled.items()},
            "effect": self.effect,
            "decision": self.decision,
            "detected": encode(self.detected),
            **({"groups": self.groups} if self.groups else {}),
            "cross_fit": {
                part: {"map": stored_map(fitted), "presence": encode(self.presence[part]), "cases": cases[part]}
                for part, fitted in self.chosen.part_maps.items()
            },
            "quality": self.quality.to_json(),
        }


def calibrate(
    held_out: HeldOut,
    *,
    form: str = "auto",
    groups: Mapping[str, str] | None = None,
    centre: CalibrationMap | None = None,
    as_deployed: bool = False,
    num_processes: int = 1,
    progress: bool = False,
) -> Calibration:
    """Fit a map to samples of held-out cases, and measure what it changes on cases that its fit has not seen.

    Every case is read once, as it is; what its part's map makes of it follows from its sample.

    Args:
        held_out: The cases; those that cannot be used are left out.
        form: One of ``FORMS``, or ``auto``: see :func:`nnunet_nacl.calibration.crossfit.choose`.
        groups: Patient of each case; None: each case its own.
        centre: A map of the same structures, not fitted to these cases, towards which theirs is drawn; None: their own
            temperature.
        as_deployed: Whether the cases were predicted as the model is used.
        num_processes: Cases measured at the same time.
        progress: Show progress bars on stderr.

    Raises:
        UserError: There are fewer than ``FEWEST_TO_CALIBRATE`` cases, all are of one patient, or they cannot be read.
    """
    from tqdm import tqdm

    before = held_out.evaluate(num_processes=num_processes, progress=progress and "measure")
    held_out.leave_out(before.problems)
    samples = _samples_of(held_out)
    cases, structures = list(held_out.files), structures_of(held_out.first.labels)
    if form not in ("auto", *FORMS):
        raise UserError(f"the form must be auto, {', '.join(FORMS)}, got {form!r}.")
    _check_number(cases, held_out)
    patients = [groups[case] if groups else case for case in cases]
    if len(set(patients)) < 2:
        raise UserError(f"all cases belong to one patient, {one_line(patients[0])}: nothing is left to test on.")
    parts = parts_of(patients, [held_out.fold[case] for case in cases] if len(held_out.folders) > 1 else None)
    voxels = [samples[case].voxels() for case in cases]
    total = (1 + len(set(parts))) * (len(AFFINE_FORMS) + len(STRENGTHS) + (centre is not None))
    with tqdm(total=total, desc="fit, at most", unit="fit", leave=False, disable=not progress) as bar:
        tried = cross_fit(voxels, parts, groups=patients, centre=centre, progress=bar.update)
    chosen = choose(tried, form)
    affine = {name: relabelled(voxels, choose(tried, name).fit.map) for name in AFFINE_FORMS}
    maps = {case: chosen.part_maps[part] for case, part in zip(cases, parts)}
    as_given = {result.case: result for result in before.cases}
    ignore = held_out.first.labels.ignore_label is not None
    measured = [as_given[case] for case in cases]
    presence_of = dict(zip(cases, presence_of_others(measured, structures, patients, parts, ignore)))
    treatments = [Treatment(maps[case], presence=presence_of[case]) for case in cases]
    after = [held_out.through(result, treatment) for result, treatment in zip(measured, treatments)]
    old, new = (
        pd.DataFrame([case_values(result.stats) for result in results]).to_dict("list") for results in (measured, after)
    )
    rows: Any = [quality_rows(after), rows_of_blocks([each.blocks[DECIDED] for each in after], tuple(structures))]
    own = patients if groups else None
    kept, decided = (_dice(row.true_dice, list(structures)) for row in rows)
    if (as_network := quality_rows(measured)) is not None:
        old[PREDICTED_DICE_ERROR], new[PREDICTED_DICE_ERROR] = _dice_errors(as_network), _dice_errors(rows[0])
    quality = learn_quality(rows, structures, patients, as_deployed=as_deployed, before=measured)
    return Calibration(
        chosen,
        tried,
        dict(zip(maps, parts)),
        structures,
        ["out", "in"] if held_out.first.labels.regions else list(held_out.first.labels.names),
        changes(old, new, own),
        changes(kept, decided, own),
        {kind: row.detected for kind, row in zip(DELIVERED, rows)},
        certain_background(voxels),
        affine,
        float(np.mean([case_loss(case, chosen.fit.map) for case in voxels])),
        {part: presence_of[case] for case, part in zip(cases, parts)},
        quality,
        {case: groups[case] for case in maps} if groups else None,
    )


def _dice(values: np.ndarray, keys: Sequence[str]) -> dict[str, Any]:
    """Dice of each structure, and the mean over those that are defined in a case, by name."""
    named = {f"Dice {key}": column for key, column in zip(keys, values.T)}
    n = np.count_nonzero(~np.isnan(values), axis=1)
    return named | {DICE_MEAN: np.nansum(values, axis=1) / np.where(n, n, np.nan)}


def _dice_errors(rows: QualityRows) -> list[float]:
    return [nanmean(row) for row in np.abs(rows.expected_dice - rows.true_dice)]


def _samples_of(held_out: HeldOut) -> dict[str, Sample]:
    """Of the cases that have one; the others are left out."""
    samples, problems = {}, {}
    for case in list(held_out.files):
        try:
            samples[case] = held_out.sample(case)
        except UserError as error:
            problems[case] = str(error)
    held_out.leave_out(problems)
    return samples


def _check_number(cases: Collection[str], held_out: HeldOut) -> None:
    """UserError, which says what is wrong with the other cases, where there are fewer than ``FEWEST_TO_CALIBRATE``."""
    if len(cases) < FEWEST_TO_CALIBRATE:
        raise UserError(
            f"{len(cases)} held-out cases are too few to calibrate, it takes {FEWEST_TO_CALIBRATE}; add folds or cases."
            + list_problems(held_out.problems)
        )
