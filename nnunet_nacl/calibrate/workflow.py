"""From held-out cases to a map, what it changes and what it teaches: cases are measured once, then by samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from nnunet_nacl.calibrate.calibration_map import CalibrationMap, MapQuality
from nnunet_nacl.calibrate.map_file import structures_of
from nnunet_nacl.case.effect import certain_background, changes
from nnunet_nacl.case.results import detected_in
from nnunet_nacl.case.sampling import Sample
from nnunet_nacl.case.table import table
from nnunet_nacl.errors import UserError, list_problems, one_line
from nnunet_nacl.numbers.crossfit import STRENGTHS, choose, cross_fit, parts_of
from nnunet_nacl.numbers.fitting import AFFINE_FORMS, FORMS, case_loss
from nnunet_nacl.numbers.learned_quality import learn
from nnunet_nacl.numbers.log_odds_map import LogOddsMap
from nnunet_nacl.numbers.presence import learn_presence
from nnunet_nacl.runs.heldout import HeldOut, case_values

FEWEST_TO_CALIBRATE = 5
PREDICTED_DICE_ERROR = "predicted Dice error"
"""Key of ``effect``: the mean over a case's structures of |expected - true Dice| of nnU-Net's labels."""
_NETWORK = ["network_volume", "network_dice", "max_probability"]


def calibrate(
    held_out: HeldOut,
    *,
    form: str = "auto",
    groups: Mapping[str, str] | None = None,
    centre: LogOddsMap | None = None,
    as_deployed: bool = False,
    num_processes: int = 1,
    progress: bool = False,
) -> CalibrationMap:
    """Fit a map to samples of held-out cases, and measure what it changes on cases that its fit has not seen.

    Every case is read once, as it is; what its part's map makes of it follows from its sample. What the record says of
    the networks and the source of the cases is for the caller to add.

    Args:
        held_out: The cases; those that cannot be used are left out.
        form: One of ``FORMS``, or ``auto``: see :func:`nnunet_nacl.numbers.crossfit.choose`.
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
    as_given = {result.case: result for result in before.cases}
    measured = [as_given[case] for case in cases]
    after = [held_out.through(result, chosen.part_maps[part]) for result, part in zip(measured, parts)]
    old, new = (
        pd.DataFrame([case_values(result.bins) for result in results]).to_dict("list") for results in (measured, after)
    )
    before_map, after_map = table(measured), table(after)
    after_map[_NETWORK] = before_map[_NETWORK]
    for values, of in ((old, before_map), (new, after_map)):
        errors = (of.predicted_dice - of.Dice).abs()
        values[PREDICTED_DICE_ERROR] = errors.groupby(of.case, sort=False).mean().tolist()
    ignore = held_out.first.labels.ignore_label is not None
    return CalibrationMap.of_fits(
        tried,
        chosen,
        structures,
        parts=dict(zip(cases, parts)),
        labels=["out", "in"] if held_out.first.labels.regions else list(held_out.first.labels.names),
        nll=float(np.mean([case_loss(case, chosen.map) for case in voxels])),
        certain_background=certain_background(voxels),
        effect=changes(old, new, patients if groups else None),
        detected=detected_in(measured),
        groups=dict(zip(cases, patients)) if groups else {},
        quality=_learn_quality(after_map, dict(zip(cases, patients)), dict(zip(cases, parts)), as_deployed, ignore),
    )


def _learn_quality(
    cases: pd.DataFrame, patients: Mapping[str, str], parts: Mapping[str, str], as_deployed: bool, ignore_label: bool
) -> MapQuality:
    """What held-out cases teach of Dice, volumes and presence, and how it does on cases that it has not seen.

    With ``why_not`` where the volumes of the cases have different units: calibration does not fail by it.
    """
    counts, units = (len(patients), len(set(patients.values()))), sorted(set(cases.unit))
    if len(units) != 1:
        return MapQuality("", *counts, f"volumes are in {' and '.join(units)}")
    learned = learn(cases, patients, parts, as_deployed=as_deployed, ignore_label=ignore_label)
    return MapQuality(units[0], *counts, "", learned, learn_presence(cases, patients))


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
