"""Predicts or reads cases, and writes segmentations, maps, the review list and its pages into one folder."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import nnunet_nacl
from nnunet_nacl.calibrate.map_file import APPLIED_FILE, map_of, named_map
from nnunet_nacl.case.record import RECORDS, CaseRecord, find_record, record_path
from nnunet_nacl.dicom.output import DICOM, DicomMaker, read_codes
from nnunet_nacl.errors import UserError, list_problems, one_line
from nnunet_nacl.files import checksum, locked, to_json_text, write_atomically
from nnunet_nacl.json_files import encode, read_dict
from nnunet_nacl.nnunet.image_files import RERUN
from nnunet_nacl.nnunet.input_cases import InputCase, find_input_cases
from nnunet_nacl.nnunet.output import MAPS, open_output
from nnunet_nacl.nnunet.predicted import Images
from nnunet_nacl.nnunet.prediction_folder import PREDICT_ARGUMENTS, PredictionFolder, fold_folders
from nnunet_nacl.nnunet.records import SavedPredictions, Source, find_records, records_of, remove_written
from nnunet_nacl.review.delivery import Delivery
from nnunet_nacl.review.list_files import (
    DOCUMENT,
    RESEARCH,
    SCHEMA_VERSION,
    places_of_list,
    promises,
    remove_list,
)
from nnunet_nacl.review.pages import write_list
from nnunet_nacl.review.predicted_quality import CalibratedModel
from nnunet_nacl.review.reasons import LOWEST_MEMBERS_DICE
from nnunet_nacl.review.review_list import DRAW_SEED, About, Aims, ReviewList, review_list

NOT_YET = "not predicted yet: run the part that has it."


@dataclass(frozen=True, kw_only=True)
class Run(About):
    """What documents say of a run; the run fills in what pages say of its cases.

    Attributes:
        folder: That the cases come from, which the output must not lie in.
        arguments: Name and content of the file that tells whose the output folder is.
        document: What prediction.json says of cases and settings.
        aims: Of the list.
        map_path: The file of the map; None where there is none.
        command: As it was given.
        applied: What calibration_applied.json says; empty writes none.
        num_parts: Runs that share the cases, each with a number of its own.
        part: Which of them this is, from 0.
    """

    folder: Path
    arguments: tuple[str, Mapping[str, Any]]
    document: Mapping[str, Any]
    aims: Aims = Aims()
    map_path: Path | None = None
    command: str = ""
    applied: Mapping[str, Any] = field(default_factory=dict)
    num_parts: int = 1
    part: int = 0


def deliver(
    source: Source, delivery: Delivery, run: Run, *, jobs: int = 1, again: bool = False, title: str = ""
) -> tuple[ReviewList, dict[str, str]]:
    """Do every case of a source, or of the run's part of it.

    The output becomes a folder as nnUNetv2_predict leaves it, with prediction.json, index.html and its tables beside
    the segmentations. A case that cannot be done costs only itself. Every file gets its name when it is whole, and the
    record of a case is written last: a run that was stopped goes on where it was. What was done is done ``again`` if
    that is asked for; without a title there is no progress bar.

    Returns:
        The list, which holds the cases of all parts, and what is wrong with the cases of this one.

    Raises:
        UserError: Folders or settings do not fit, or not a single case could be done. A part that has no case is none.
    """
    output, data, names = delivery.output, delivery.data, list(source.names)
    places = (*places_of_list(output, names), MAPS, DICOM, RECORDS, APPLIED_FILE)
    list_lock, records = output / ".nnunet_nacl.list.lock", output / RECORDS
    with open_output(output, [run.folder], data, run.arguments, places, part=run.part):
        with locked(list_lock):
            remove_list(output)
        (output / APPLIED_FILE).unlink(missing_ok=True)  # which a run wrote, or open_output would have refused it
        if run.applied:
            write_atomically(output / APPLIED_FILE, to_json_text(dict(run.applied)))
        if isinstance(source, SavedPredictions):
            _remove_others(output, set(names))
        options: dict[str, Any] = {"names": names[run.part :: run.num_parts], "jobs": jobs, "again": again}
        outcomes = dict(records_of(source, delivery, records, title=title, **options))
        problems = {name: text for name, text in outcomes.items() if isinstance(text, str)}
        done = {name: record for name, record in outcomes.items() if isinstance(record, CaseRecord)}
        n_finished = len(done)
        unusable = {name: one_line(problem) for name, problem in source.problems.items()}
        with locked(list_lock):  # the part that writes it last knows what all have finished
            if run.num_parts > 1:
                found, _ = find_records(source, delivery, records, names)
                done = {name: record for name, record in found.items() if isinstance(record, CaseRecord)}
            waiting = [name for name in names if name not in done and name not in problems]
            wrong = dict(sorted({**{n: t for n, t in problems.items() if n not in done}, **unusable}.items()))
            seen = {name: _digests(source, name, done.get(name)) for name in sorted(names)}
            listed = _write(delivery, run, done, wrong, waiting, seen)
    problems = dict(sorted({**problems, **(unusable if run.part == 0 else {})}.items()))
    if problems and not n_finished:
        raise UserError(f"{run.folder}: no case could be done.{list_problems(problems)}")
    return listed, problems


def _digests(source: Source, name: str, record: CaseRecord | None) -> dict[str, str | None]:
    """Of the files that a case comes from, by name; none where one cannot be read."""
    try:
        files = (record.key if record else source.key(name, {}, None))["files"]
    except OSError:
        return {}
    return {file: found and found["digest"] for file, found in files.items()}


def _write(
    delivery: Delivery,
    run: Run,
    done: Mapping[str, CaseRecord],
    wrong: Mapping[str, str],
    waiting: Sequence[str],
    seen: Mapping[str, Mapping[str, str | None]],
) -> ReviewList:
    """Write the list, its pages and prediction.json; ``seen`` are the digests of each case's files."""
    output, data = delivery.output, delivery.data
    map_file = named_map(run.map_path) if run.map_path else None
    identity = [os.path.abspath(output), map_file, run.document, seen]  # a run that goes on keeps its marks
    run_id = hashlib.sha256(to_json_text(identity).encode()).hexdigest()[:12]
    notes = [*run.notes, *_of_others(delivery, run, {*done, *wrong, *waiting})]
    if delivery.quality and "predictions" in run.document:
        notes += delivery.quality.caveats(done)
    about = replace(
        run,
        title=str(data.plans.get("dataset_name") or data.folder.name),
        structures=list(data.labels.structures.values()),
        problems={**wrong, **dict.fromkeys(waiting, NOT_YET)},
        notes=notes,
        run=run_id,
        file_ending=data.file_ending,
    )
    listed = review_list([done[name] for name in sorted(done)], delivery.quality, run.aims, about)
    write_list(listed, output)
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
        "run": run_id,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": run.command,
        "calibration_map": map_file,
        "maps": list(delivery.maps),
        **run.document,
        "problems": dict(wrong),
        "not_predicted_yet": list(waiting),
        "flags": encode(run.aims.flags),
        "unlike": encode(listed.unlike),
        "members_dice_threshold": LOWEST_MEMBERS_DICE if len(run.members) > 1 else None,
        "notes": [*notes, listed.reservation, RESEARCH],
        "n_cases": len(listed.scans),
        "n_to_look_at": len(listed.cases("is_flagged")),
        "drawn": {"seed": DRAW_SEED, "cases": sorted(listed.cases("is_drawn"))} if run.aims.also else None,
        "scans": promises(listed),
    }
    write_atomically(output / DOCUMENT, to_json_text(document))
    return listed


def _of_others(delivery: Delivery, run: Run, listed: set[str]) -> list[str]:
    """That segmentations lie in the folder that are not of this run's scans."""
    output, ending = delivery.output, delivery.data.file_ending
    others = sorted({path.name.removesuffix(ending) for path in output.glob(f"*{ending}")} - listed)
    if not others:
        return []
    shown = ", ".join(map(one_line, others[:3])) + (", ..." if len(others) > 3 else "")
    return [
        f"{output} holds {len(others)} segmentation{'s' * (len(others) > 1)} of scans that are not in "
        f"{run.folder} ({shown}): of an earlier run, and not in this list."
    ]


def _remove_others(output: Path, names: set[str]) -> None:
    """Remove what is of other predictions than these: nothing of them may lie beside the new ones."""
    for path in sorted((output / RECORDS).glob("*.npz")):
        record = None if path.stem in names else find_record(output / RECORDS, path.stem)
        if record:
            remove_written(record, output)
            record_path(output / RECORDS, record.case).unlink(missing_ok=True)


def review_source(folder: PredictionFolder, map_path: Path | None) -> tuple[SavedPredictions, Run]:
    """Cases of a folder of predictions, opened without a truth, and what documents say of it and the map on them.

    UserError where the folder holds no probabilities.
    """
    place, labels = folder.folder, folder.labels
    if next(place.glob("*.npz"), None) is None:
        for validation in (place / "validation", *(fold / "validation" for fold in fold_folders(place).values())):
            if next(validation.glob("*.npz"), None) is not None:
                raise UserError(f"{place} holds no predictions, but {validation} does: give that.")
        raise UserError(f"{place} holds no probabilities (*.npz); {RERUN}.")
    source = SavedPredictions(folder)
    for name in {"", ".", ".."}.intersection(source.names):
        source.names = [other for other in source.names if other != name]
        source.problems[name] = f"{source.path(name)}: no folder for maps can have the name {name!r}; rename the case."
    made_by, applied = {"generated_by": "nnunet_nacl review"}, dict[str, Any]()
    if (place / APPLIED_FILE).is_file():  # as calibrated as what it is made from
        applied = read_dict(place / APPLIED_FILE)
    elif map_path is not None:
        applied = {"applied_to": str(place.resolve()), "map": str(map_path.resolve()), "map_sha256": checksum(map_path)}
    return source, Run(
        folder=place,
        arguments=("review_args.json", made_by | {"predictions": os.path.abspath(place)}),
        document={
            "predictions": {"folder": os.path.abspath(place)} | map_of(place),
            "dataset": folder.plans.get("dataset_name"),
            "form": "least certain region of each voxel" if labels.regions else "classes",
            "structures": labels.structures,
        },
        made={
            "Predictions": str(place),
            "Calibrated by": str(map_path or "no map"),
            "Segmentations": "as they were predicted",
        },
        map_path=map_path,
        applied=applied | made_by if applied else {},
    )


def predict_source(
    model: CalibratedModel,
    network: Mapping[str, Any],
    images: Path,
    *,
    previous: Path | None = None,
    dicom: tuple[Path | None, str] = (None, ""),
    parts: tuple[int, int] = (1, 0),
    **options: Any,
) -> tuple[Images, DicomMaker | None, Run]:
    """A folder of scans and the networks of a model as cases, what writes DICOM objects, and what documents say.

    Args:
        model: The model.
        network: Arguments of :class:`~nnunet_nacl.nnunet.network.Network` beside the model.
        images: Folder of the scans.
        previous: Folder with the segmentations of the stage before, for a cascade.
        dicom: For DICOM series, file of the structures' codes and axes of the training's images.
        parts: Runs that share the scans, and which of them this is, from 0.
        **options: Of :class:`~nnunet_nacl.nnunet.predicted.Images`.

    Raises:
        UserError: There are no scans, or codes, stage before or number of the part do not fit.
    """
    if model.previous_stage and previous is None:
        raise UserError(
            f"a cascade: this network needs the segmentations of {model.previous_stage}. Predict them with that "
            "configuration's original checkpoint, and give their folder with -prev_stage_predictions."
        )
    if previous is not None and not model.previous_stage:
        raise UserError(f"-prev_stage_predictions {previous}: {model.configuration} is no stage of a cascade.")
    cases, problems = find_input_cases(images, model.opened, previous, orientation=dicom[1])
    maker, (num_parts, part) = _dicom_maker(model, images, cases, *dicom), parts
    if not 0 <= part < num_parts:
        raise UserError(f"-part_id must be from 0 to {num_parts - 1} for -num_parts {num_parts}, got {part}.")
    if part >= len(cases):
        print(f"note: part {part} of {num_parts} has none of the {len(cases)} scans.", file=sys.stderr)
    source = Images(model, network, cases, check=maker.check if maker else None, **options)
    source.problems = problems
    arguments = {"generated_by": "nnunet_nacl predict", "num_parts": num_parts, "part_id": part}
    return (
        source,
        maker,
        Run(
            folder=images,
            arguments=(PREDICT_ARGUMENTS, {"list_of_lists_or_source_folder": str(images.resolve())} | arguments),
            num_parts=num_parts,
            part=part,
            map_path=model.map_path,
            members=[f"fold_{fold}" for fold in model.folds],
            **_of_model(model, images, network["step_size"], network["mirroring"]),
        ),
    )


def _of_model(model: CalibratedModel, images: Path, step_size: float, mirroring: bool) -> dict[str, Any]:
    """Attributes of a run of predict that say how its networks were used."""
    notes = [f"{missing[0].upper()}{missing[1:]}" for missing in model.missing]
    notes += model.other_inference(step_size, mirroring)
    if model.quality is not None:
        notes += model.quality.caveats((), several=len(model.folds) > 1)
    document: dict[str, Any] = {
        "images": str(images.resolve()),
        "model": {
            "folder": str(model.folder.resolve()),
            "dataset": model.opened.plans.get("dataset_name"),
            "trainer": model.trainer,
            "configuration": model.configuration,
            "checkpoint": model.checkpoint,
            "checkpoints_sha256": dict(zip(model.folds, model.hashes)),
        },
        "calibrated": model.calibration is not None,
        "step_size": step_size,
        "mirroring": mirroring,
        "training_range": model.training.whose or None,
    }
    made = {
        "Scans": str(images),
        "Model": model.folder.name,
        "Folds": ", ".join(model.folds),
        "Checkpoint": model.checkpoint + ("" if model.calibration else " (not calibrated)"),
        "Segmentations": "nnU-Net's own labels, as nnUNetv2_predict",
        "Spacing and size": f"compared with {model.training.whose or 'nothing'} (axes z, y, x as nnU-Net's)",
    }
    return {"document": document, "made": made, "notes": notes}


def _dicom_maker(
    model: CalibratedModel, images: Path, cases: Sequence[InputCase], codes: Path | None, orientation: str
) -> DicomMaker | None:
    """Writes the objects of DICOM series; None for other scans. UserError if codes are missing, or not needed."""
    if not any(case.orientation for case in cases):
        if (codes or orientation) and cases:
            raise UserError(f"-codes and -orientation go with DICOM series; {images} holds other images.")
        return None
    names = [model.labels.names[channel] for channel in model.labels.foreground]
    if codes is None:
        raise UserError(f"{images} holds DICOM series: give -codes FILE, with a code for {', '.join(names)}.")
    several = hashlib.sha256("".join(model.hashes).encode()).hexdigest()
    serial = model.hashes[0] if len(model.hashes) == 1 else several
    return DicomMaker(read_codes(codes, names), model.folder.name, serial)
