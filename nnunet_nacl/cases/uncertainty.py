"""Folders of predictions in; maps and the list of cases out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nnunet_nacl
from nnunet_nacl.cases.ensemble_members import MemberCase, find_cases, member_names, open_members
from nnunet_nacl.cases.map_folder import REVIEW_FILE, SETTINGS_FILE, MapSettings, OutputFolder
from nnunet_nacl.cases.map_images import DTYPES, check_dtype
from nnunet_nacl.cases.predicted_quality import QualityOfMap
from nnunet_nacl.cases.prediction_folder import PredictionFolder
from nnunet_nacl.cases.reviewed_case import MAPS, MEMBER_MAPS
from nnunet_nacl.cases.worker_processes import guarded, run_in_workers
from nnunet_nacl.documents.map_file import map_of
from nnunet_nacl.documents.review_list import CaseReview, PredictedCase, in_order, review_csv_text
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import to_json_text, write_atomically

__all__ = ["Review", "write_uncertainty"]

_BYTES_PER_PROCESS = 64 << 20  # a new process needs seconds to load PyTorch; so many bytes of npz take longer


@dataclass(frozen=True)
class Review:
    """What was written.

    Attributes:
        output: The folder; the maps of a case lie in ``output/CASE/``.
        settings: Which maps, and how they are stored.
        members: Short names of the folders.
        cases: The rows, in the order in which to look at them.
        problems: What is wrong with the cases that are not among them.
        predicted: By case what the map predicts of it; None without a map.
        as_deployed: Whether the map learned from predictions as they are in use, not from single networks.
    """

    output: Path
    settings: MapSettings
    members: list[str]
    cases: list[CaseReview]
    problems: dict[str, str]
    predicted: dict[str, PredictedCase] | None = None
    as_deployed: bool = True


def write_uncertainty(
    folders: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    maps: Sequence[str] | None = None,
    dtype: str = "uint8",
    probabilities: bool = False,
    calibration_map: str | os.PathLike | None = None,
    calibrated: bool = False,
    threshold: float | None = None,
    dataset_json: str | os.PathLike | None = None,
    plans: str | os.PathLike | None = None,
    num_processes: int = 1,
    overwrite: bool = False,
    progress: bool = False,
) -> Review:
    """Write uncertainty maps of every case and the list of the cases to look at first.

    Args:
        folders: Predictions with probabilities; several folders of the same cases are members of an ensemble.
        output: Folder to write to, none of ``folders`` and not inside one. Cases that an earlier run finished from
            the same files with the same settings are kept.
        maps: Some of ``confidence``, ``entropy``, ``margin`` and, for several folders, ``mutual_information`` and
            ``expected_entropy``. None takes the first three, and ``mutual_information`` for several folders.
        dtype: ``uint8`` (255 = 1) or ``float32``.
        probabilities: Also write each channel's probabilities as an image.
        calibration_map: calibration_map.json that has learned about Dice and volumes: both are then predicted.
        calibrated: Whether the predictions were made with the checkpoint that this map was written into; a folder of
            ``nnunet_nacl apply`` is known to be calibrated.
        threshold: Flag the cases whose lowest predicted Dice is below.
        dataset_json: Path of dataset.json; None looks in each folder and up to two levels above.
        plans: Path of plans.json; likewise.
        num_processes: Cases at the same time, at most: 1, or little to do, starts no process.
        overwrite: Do every case again.
        progress: Show a progress bar on stderr.

    Returns:
        The list, and the problems of the cases that are not in it.

    Raises:
        UserError: A folder or setting cannot be used, or not a single case could be done.
    """
    if not folders:
        raise UserError("give at least one folder of predictions.")
    members = open_members(folders, dataset_json=dataset_json, plans=plans)
    settings = MapSettings(_check_maps(maps, len(members)), dtype, probabilities)
    if dtype not in DTYPES:
        raise UserError(f"the type must be one of {', '.join(DTYPES)}, got {dtype!r}.")
    check_dtype(dtype, members[0].file_ending)
    quality = _open_quality(calibration_map, members, calibrated, threshold)
    cases, problems = find_cases(members)
    folder = OutputFolder.open(output, members, settings, [case.case for case in cases])

    done: dict[str, CaseReview] = {}
    todo = []
    for case in cases:
        if refusal := folder.refusal(case):
            problems[case.case] = refusal
        elif not overwrite and (known := folder.finished(case)):
            done[case.case] = known
        else:
            todo.append(case)
    for case, outcome in _run(folder, todo, num_processes, progress, len(cases)):
        if isinstance(outcome, str):
            problems[case.case] = outcome
        else:
            done[case.case] = outcome
    problems = dict(sorted(problems.items()))
    if not done:
        listed = "".join(f"\n  {case}: {problem}" for case, problem in problems.items())
        raise UserError(f"no case could be done.{listed}")

    names = member_names([member.folder for member in members])
    predicted = None if quality is None else {case: quality.predict(review) for case, review in done.items()}
    reviews = in_order(list(done.values()))
    described = _describe(folder, names, problems) | _describe_quality(quality, threshold, calibrated)
    write_atomically(folder.path / SETTINGS_FILE, to_json_text(described))
    write_atomically(folder.path / REVIEW_FILE, review_csv_text(reviews, names, problems, predicted, threshold))
    return Review(
        folder.path, settings, names, reviews, problems, predicted, quality is None or quality.learned.as_deployed
    )


def _open_quality(
    path: str | os.PathLike | None, members: Sequence[PredictionFolder], calibrated: bool, threshold: float | None
) -> QualityOfMap | None:
    if path is None:
        if threshold is not None or calibrated:
            raise UserError(
                "-threshold and --calibrated are about predicted Dice: give the map that predicts it, -map."
            )
        return None
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"the threshold is a Dice, from 0 to 1, got {threshold}.")
    if len(members) > 1:
        raise UserError(
            "a map predicts the Dice of one folder, not of several members; make one with nnUNetv2_ensemble --save_npz "
            "and learn a map from such a folder (`nnunet_nacl calibrate -i ENSEMBLE -gt LABELS`)."
        )
    return QualityOfMap.open(path, members[0], calibrated=calibrated)


def _describe_quality(quality: QualityOfMap | None, threshold: float | None, calibrated: bool) -> dict:
    if quality is None:
        return {}
    learned = quality.learned
    return {
        "predicted": {
            "map": str(quality.path.resolve()),
            **quality.named(calibrated=calibrated),
            "segmentations": learned.delivered,
            "learned_as_deployed": learned.as_deployed,
            "threshold": threshold,
        },
    }


def _check_maps(maps: Sequence[str] | None, n_members: int) -> tuple[str, ...]:
    if maps is None:
        return MAPS[:3] if n_members == 1 else MAPS[:4]
    for name in maps:
        if name not in MAPS:
            raise UserError(f"there is no map {name!r}; there are {', '.join(MAPS)}.")
        if name in MEMBER_MAPS and n_members == 1:
            raise UserError(f"the map {name} compares members: give two or more folders of the same cases.")
    return tuple(dict.fromkeys(maps))


def _describe(folder: OutputFolder, names: Sequence[str], problems: Mapping[str, str]) -> dict:
    labels, settings = folder.members[0].labels, folder.settings
    form = "least certain region of each voxel" if labels.regions else "classes"
    return {
        "schema_version": 1,
        "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
        "members": [
            {"name": name, "folder": str(m.folder.resolve())} | map_of(m.folder)
            for name, m in zip(names, folder.members)
        ],
        "maps": list(settings.maps),
        "form": form,
        "dtype": settings.dtype,
        "value": "stored / 255" if settings.dtype == "uint8" else "stored",
        "structures": {labels.key(c): labels.names[c] for c in labels.foreground},
        "ranked_by": "lowest_expected_dice, rising; empty predictions first",
        "volume_uncertainty": (
            f"sample standard deviation and range of the volumes that {len(names)} members predicted"
            if len(names) > 1
            else "none: there is one member, and voxels are not independent"
        ),
        "not_done": dict(problems),
        "note": "Research software, not for clinical use. The order is a ranking; no threshold is validated.",
    }


def _run(
    folder: OutputFolder, todo: Sequence[MemberCase], num_processes: int, progress: bool, total: int
) -> Iterator[tuple[MemberCase, CaseReview | str]]:
    from tqdm import tqdm

    process = partial(_process, folder)
    processes = _number_of_processes(todo, num_processes)
    outcomes = zip(todo, map(process, todo)) if processes <= 1 else run_in_workers(process, todo, processes)
    bar = tqdm(total=total, initial=total - len(todo), desc="uncertainty", unit="case", disable=not (progress and todo))
    with bar:
        for case, outcome in outcomes:
            bar.update()
            died = "a worker process died, perhaps for lack of memory; run again with a smaller -np, the finished cases"
            yield case, outcome or f"{case.files[0].probabilities}: {died} are kept."


def _number_of_processes(todo: Sequence[MemberCase], most: int) -> int:
    size = 0
    for case in todo:
        for files in case.files:
            with contextlib.suppress(OSError):  # gone since the folder was listed: a problem of that case
                size += files.probabilities.stat().st_size
    return min(most, len(todo), size // _BYTES_PER_PROCESS)


def _process(folder: OutputFolder, case: MemberCase) -> CaseReview | str:
    return guarded(case.files[0].probabilities, lambda: folder.process(case))
