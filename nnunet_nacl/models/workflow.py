"""From held-out cases to a map, what it changes and what it teaches: the cases are read twice, the map sees samples."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import nnunet_nacl
from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.crossfit import STRENGTHS, CrossFit, choose, cross_fit, parts_of
from nnunet_nacl.calibration.effect import CertainBackground, Relabelled, certain_background, changes, relabelled
from nnunet_nacl.calibration.estimates import estimate_values
from nnunet_nacl.calibration.fitting import AFFINE_FORMS, FORMS
from nnunet_nacl.calibration.learned_quality import DELIVERED
from nnunet_nacl.calibration.likelihood import case_loss
from nnunet_nacl.calibration.quality_report import QualityRows
from nnunet_nacl.calibration.sampling import Sample
from nnunet_nacl.cases.held_out_presence import presence_of_others, present_in_result
from nnunet_nacl.cases.heldout import HeldOut, case_values
from nnunet_nacl.cases.quality_block import DECIDED, quality_rows, rows_of_blocks
from nnunet_nacl.cases.treatment import Treatment
from nnunet_nacl.documents.document import FILE_NAME
from nnunet_nacl.documents.map_file import DICE_MEAN, map_to_json, stored_map, structures_of
from nnunet_nacl.errors import UserError, list_problems
from nnunet_nacl.files import can_write
from nnunet_nacl.json_files import encode, one_line
from nnunet_nacl.metrics.calibration_error import nanmean
from nnunet_nacl.metrics.detection import Detected
from nnunet_nacl.models.held_out_quality import HeldOutQuality, learn_quality

MIN_CASES = 5
EXPECTED_DICE_ERROR = "expected Dice error"
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
        exact: Whether the values after and the quality are of all voxels; else samples were.
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
    exact: bool
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
            "measured_on": "all voxels" if self.exact else "samples of the cases",
            "nll": self.nll,
            "forms": [{"form": one.form, "ridge": one.ridge, **asdict(one.score)} for one in self.tried],
            "certain_background": asdict(self.certain),
            "relabelled": {form: asdict(one) for form, one in self.relabelled.items()},
            "effect": self.effect,
            "decision": self.decision,
            "detected": encode(self.detected),
            **({"groups": self.groups} if self.groups else {}),
            "cross_fit": {
                part: {"map": stored_map(fitted), "cases": cases[part]}
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
    output: Path | None = None,
    as_deployed: bool = False,
    num_processes: int = 1,
    progress: bool = False,
) -> Calibration:
    """Fit a map to samples of held-out cases, and measure what it changes on cases that its fit has not seen.

    Where their probabilities are there, every case is read twice: as it is, and through the map of its part.

    Args:
        held_out: The cases; those that cannot be used are left out.
        form: One of ``FORMS``, or ``auto``: see :func:`nnunet_nacl.calibration.crossfit.choose`.
        groups: Patient of each case; None: each case its own.
        output: Of a folder: where calibration_map.json will lie; the document of the calibrated cases goes beside it.
        as_deployed: Whether the cases were predicted as the model is used.
        num_processes: Cases measured at the same time.
        progress: Show progress bars on stderr.

    Raises:
        UserError: There are fewer than ``MIN_CASES`` cases, all are of one patient, or they cannot be read.
    """
    from tqdm import tqdm

    options = {"num_processes": num_processes, "progress": progress and "before"}
    place = held_out.first.folder
    before = held_out.evaluate(None, place / FILE_NAME if can_write(place) else None, **options)
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
    treatments = {case: Treatment(one, presence=presence_of[case]) for case, one in maps.items()}
    options |= {"progress": progress and "after"}
    if exact := held_out.complete:
        document = None if output is None else output.parent / "calibrated" / FILE_NAME
        after = held_out.evaluate(treatments, document, **options)
        held_out.problems |= after.problems  # the map has seen these cases, but what it does to them is not known
        known = {result.case: result for result in after.cases}
        cases = [case for case in cases if case in known]
        patients = [groups[case] if groups else case for case in cases]
        old, new, errors = case_values(before, cases), case_values(after, cases), None
        rows: Any = [
            quality_rows([known[case] for case in cases]),
            rows_of_blocks([known[case].blocks[DECIDED] for case in cases], tuple(structures)),
        ]
    else:
        held_out.forget_treated()
        old = case_values(before, cases)
        new, errors = _estimated(held_out, old, samples, maps)
        blocks = []
        for case in cases:
            present = present_in_result(as_given[case], presence_of[case])
            blocks.append(held_out.sampled_quality(case, samples[case], maps[case], present))
        rows = [rows_of_blocks(column, tuple(structures)) for column in zip(*blocks)]
    own = patients if groups else None
    kept, decided = (_dice(row.true_dice, list(structures)) for row in rows)
    seen = [as_given[case] for case in cases]
    if (as_network := quality_rows(seen)) is not None:
        old[EXPECTED_DICE_ERROR], new[EXPECTED_DICE_ERROR] = _dice_errors(as_network), _dice_errors(rows[0])
        if errors is not None:
            errors[EXPECTED_DICE_ERROR] = [math.nan] * len(cases)
    quality = learn_quality(rows, structures, patients, as_deployed=as_deployed, sampled=not exact, before=seen)
    return Calibration(
        chosen,
        tried,
        dict(zip(maps, parts)),
        structures,
        ["out", "in"] if held_out.first.labels.regions else list(held_out.first.labels.names),
        changes(old, new, errors, own),
        changes(kept, decided, None, own),
        {kind: row.detected for kind, row in zip(DELIVERED, rows)},
        certain_background(voxels),
        affine,
        float(np.mean([case_loss(case, chosen.fit.map) for case in voxels])),
        exact,
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
    """UserError, which says what is wrong with the other cases, where there are fewer than ``MIN_CASES``."""
    if len(cases) < MIN_CASES:
        raise UserError(
            f"{len(cases)} held-out cases are too few to calibrate, it takes {MIN_CASES}; add folds or cases."
            + list_problems(held_out.problems)
        )


def _estimated(
    held_out: HeldOut,
    before: Mapping[str, Sequence[float]],
    samples: Mapping[str, Sample],
    maps: Mapping[str, CalibrationMap],
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Values of every case after calibration, by name, as its sample tells; and their standard errors."""
    found = [
        estimate_values(
            samples[case], maps[case], held_out.settings.n_bins, before={name: before[name][i] for name in before}
        )
        for i, case in enumerate(maps)
    ]
    values, errors = ({name: [one[name][i] for one in found] for name in before} for i in (0, 1))
    return values, errors
