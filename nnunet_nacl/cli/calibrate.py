"""`nnunet_nacl calibrate`: honest probabilities from a model that is trained already."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nnunet_nacl.cli.options import MODEL, NETWORK, add_shared, model_of, network_of, number_of_processes
from nnunet_nacl.errors import UserError

HELP = "calibrate a trained model on its held-out cases; its segmentations stay as they are"

_DESCRIPTION = """\
Fits a map of the probabilities to cases that the network was not trained on: a model's validation cases (-d -c), your
own images (-i -gt with a model), or predictions with probabilities (-i -gt). No label changes, nothing is trained.
`nnunet_nacl predict` finds the map, calibration_map.json, in the model's folder. More: docs/how-to/calibrate.md
"""

_EPILOG = """\
examples:
  nnunet_nacl calibrate -d 4 -c 3d_fullres
  nnunet_nacl calibrate -i images -gt labels -d 4 -c 3d_fullres -groups '^(patient[0-9]+)' -o our_hospital.json
  nnunet_nacl calibrate -i predictions -gt labels -o ensemble.json
  nnunet_nacl calibrate -d 4 -c 3d_fullres -map our_hospital.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.usage = "%(prog)s [-i FOLDER -gt LABELS] [-d DATASET -c CONFIGURATION | -m FOLDER] [options]"
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    add = parser.add_argument
    add_shared(parser, *MODEL, "-m")
    add("-chk", metavar="NAME", default="checkpoint_final.pth", help="checkpoint of the folds (default: %(default)s)")
    add("-i", metavar="FOLDER", help="images of your own (with a model), or predictions with probabilities")
    add("-gt", metavar="LABELS", help="their ground truth")
    add_shared(parser, "-djfile", "-pfile")
    add("-o", metavar="MAP", help="the map (default: calibration_map.json in the model's or the predictions' folder)")
    add(
        "-form",
        metavar="FORM",
        choices=("auto", "temperature", "shift", "conditional"),
        default="auto",
        help="temperature, shift, conditional, or auto (default): conditional as far as left-out cases allow",
    )
    add_shared(parser, "-groups")
    add("-map", metavar="FILE", help="fit nothing, take this map for the model")
    add_shared(parser, *NETWORK, "-np", "--trust_checkpoint")
    add("--write_checkpoints", action="store_true", help="write checkpoint_calibrated.pth too, for nnU-Net alone")
    add("--verbose", action="store_true", help="print every table: slopes, all masks, other signs of presence")
    add("--any_age", action="store_true", help="take predictions that are older than the checkpoint")


def run(args: argparse.Namespace) -> int:
    """Calibrates; exit status 1 if some cases could not be used."""
    from dataclasses import replace
    from importlib.metadata import version

    from nnunet_nacl.calibration.dice_estimate import DEFAULT_ALPHA, patients_needed
    from nnunet_nacl.cli.calibration_text import calibration_text, verdict
    from nnunet_nacl.cli.terminal import report_problems
    from nnunet_nacl.documents.map_file import MAP_FILE, check_output_map, map_of_folds, structures_of
    from nnunet_nacl.documents.map_record import SCOPE, CalibrationSet
    from nnunet_nacl.documents.patient_groups import read_groups
    from nnunet_nacl.files import check_folder, to_json_text, write_atomically
    from nnunet_nacl.io.checkpoints import check_age
    from nnunet_nacl.json_files import encode
    from nnunet_nacl.models.workflow import calibrate
    from nnunet_nacl.runs.heldout import HeldOut

    processes = number_of_processes(args.np)
    model = _model(args)
    if args.map:
        return _take_given(args, model)
    if args.i is not None:
        check_folder(Path(args.i), "the images, or the predictions")
    output = Path(args.o) if args.o else (model or Path(args.i)) / MAP_FILE
    check_output_map(output)
    folders, networks, inference = _folders(args, model, output, processes)
    held_out = HeldOut(folders)
    if model and not (args.i or args.any_age):
        check_age(model, args.chk, held_out.predicted_ns)
    groups = read_groups(args.groups, list(held_out.files)) if args.groups else None
    of_folds = None
    if model and args.i:
        labels = held_out.first.labels
        of_folds = map_of_folds(model / MAP_FILE, structures_of(labels), labels.regions, networks, inference)
    record = calibrate(
        held_out,
        form=args.form,
        groups=groups,
        centre=of_folds and of_folds[0],
        as_deployed=args.i is not None,
        num_processes=processes,
        progress=True,
    )
    record, unread = _with_profiles(record, held_out, model, args.i, processes)
    notes = [*_notes(held_out, record, model), *unread]
    needed, n_patients = patients_needed(DEFAULT_ALPHA), record.quality.n_patients if record.quality else 0
    if few := of_folds is not None and n_patients < needed:
        notes.append(
            f"{n_patients} patients; with fewer than {needed}, what is predicted of Dice, volumes and presence stays "
            "what the model's validation cases taught."
        )
    record = replace(
        record,
        source=str(model or Path(args.i).resolve()),
        folds=sorted(folders),
        inference=inference,
        checkpoint_sha256=networks,
        scope=SCOPE,
        calibration_set=CalibrationSet.of(record.part_of, groups, networks),
        versions={package: version(package) for package in ("nnunet_nacl", "nnunetv2", "torch")},
        notes=notes,
        problems=held_out.problems,
    )
    stored = replace(record, quality=of_folds[1]) if of_folds and few else record
    write_atomically(output, to_json_text(encode(stored)))

    print(calibration_text(record, held_out.settings, verbose=args.verbose))
    for note in notes:
        print(f"note: {note}")
    if record.quality and record.quality.learned and (scores := record.quality.learned["argmax"].scores):
        from nnunet_nacl.show.flag_figure import draw_flags

        checks = record.quality.checks["argmax"]["dice"]
        print(f"figure: {draw_flags(scores, checks, record.names, output.with_suffix('.png'))}")
    print(f"written: {output}" + ("" if args.verbose else "   (every number; --verbose prints the tables of all)"))
    print(verdict(record))
    if args.write_checkpoints:
        _write_checkpoints(args, model, output, list(folders))
    report_problems("calibrate", held_out.problems, "cases could not be used")
    return 1 if held_out.problems else 0


def _model(args: argparse.Namespace):
    """Folder of the model, None for predictions alone; UserError where the options do not fit."""
    if args.d is None and args.m is None and args.i is None:
        raise UserError("name a model (-d DATASET -c CONFIGURATION) or give a folder (-i FOLDER -gt LABELS).")
    if args.i is not None and args.gt is None and not args.map:
        raise UserError("-i needs -gt LABELS, the ground truth of these cases.")
    if args.m is not None and (args.d is not None or args.i is None):
        raise UserError("-m FOLDER goes with -i IMAGES, without -d; a model's own validation cases need -d and -c.")
    if args.m is None and args.d is None:
        if args.map or args.write_checkpoints:
            raise UserError(
                "-map and --write_checkpoints go with a model (-d); for a folder: `nnunet_nacl review -map`."
            )
        return None
    return model_of(args)


def _folders(args: argparse.Namespace, model, output, processes: int):
    """Folders of held-out cases by fold, hashes of the networks, and the settings of the predictions."""
    from nnunet_nacl.documents.map_file import APPLIED_FILE, sha256
    from nnunet_nacl.io.checkpoints import check_original
    from nnunet_nacl.io.prediction_folder import PredictionFolder
    from nnunet_nacl.prediction.held_out_prediction import predict_labelled
    from nnunet_nacl.prediction.trained_model import TrainedModel
    from nnunet_nacl.prediction.validation_folders import inference_in, inference_of, validation_folders

    network, log = network_of(args), partial(print, file=sys.stderr)
    if args.i is None:
        folders = validation_folders(model, args.f, args.chk, network, num_processes=processes, log=log)
        networks = {fold: sha256(model / f"fold_{fold}" / args.chk) for fold in folders}
        return folders, networks, inference_of(next(iter(folders.values())).folder)
    if model is None:
        log(f"{args.i} is taken for a folder of predictions; name a model (-d, -c) for images.")
        if (Path(args.i) / APPLIED_FILE).is_file():
            raise UserError(f"{args.i} is calibrated already; give the folder that it was made from.")
        folder = PredictionFolder.open(args.i, args.gt, dataset_json=args.djfile, plans=args.pfile)
        return {"": folder}, {}, {}
    opened = TrainedModel.open(model, folds=args.f, checkpoint=args.chk)
    check_original(model, opened.folds, args.chk)
    place = output.with_name(f"{output.stem}_predictions")
    log(f"{args.i} is taken for images: folds {', '.join(opened.folds)} predict them into {place}.")
    folder = predict_labelled(opened, network, Path(args.i), Path(args.gt), place, num_processes=processes)
    return {"": folder}, dict(zip(opened.folds, opened.hashes)), inference_in(network)


def _notes(held_out, record, model) -> list[str]:
    """What the user must know of this calibration."""
    notes = []
    configuration = model and held_out.first.plans.get("configurations", {}).get(model.name.rpartition("__")[2], {})
    if configuration and configuration.get("previous_stage"):
        notes.append("cascade: this map is for its last stage; the stage before is predicted as ever.")
    if any(each.form == "given" for each in record.forms):
        notes.append("the map is drawn to that of the model's validation cases, as far as these cases allow.")
    if record.quality.presence is None and not record.quality.why_not:
        notes.append(
            "what is in a scan was not learned: an earlier version measured these cases, and their probabilities are "
            "gone; predict them again."
        )
    return notes


def _with_profiles(record, held_out, model, images: str | None, processes: int):
    """The record with what its scans look like; and why that is not known."""
    from dataclasses import replace

    from nnunet_nacl.prediction.calibration_profiles import learn_profiles

    if record.quality is None or record.quality.why_not:
        return record, []
    why = "predictions alone do not tell; name the model (-d, -c), and give images"
    if model:
        cases = [case for part in record.cross_fit.values() for case in part.cases]
        files, patients = [held_out.files[case] for case in cases], [record.groups.get(case, case) for case in cases]
        try:
            place = Path(images) if images else None
            profiles = learn_profiles(held_out.first, files, patients, model, place, num_processes=processes)
            return replace(record, quality=replace(record.quality, profiles=profiles)), []
        except UserError as error:
            why = str(error)
    return record, [f"what these scans look like was not learned, so none will be said to be unlike them: {why}"]


def _take_given(args: argparse.Namespace, model) -> int:
    """Take a map for a model, which may have come as a zip file: without validation folders."""
    from nnunet_nacl.documents.map_file import MAP_FILE, check_networks, read_map, read_record, sha256, structures_of
    from nnunet_nacl.files import write_atomically
    from nnunet_nacl.io.locate import folds_with, trained_folds
    from nnunet_nacl.io.prediction_folder import PredictionFolder

    folder, given = PredictionFolder.open(model, need_reference=False), Path(args.map)
    read_map(given, structures_of(folder.labels), folder.labels.regions)
    present = folds_with(model, args.chk)
    folds = trained_folds(model, args.chk, args.f) if args.f else present
    networks = {fold: sha256(model / f"fold_{fold}" / args.chk) for fold in present}
    check_networks(given, read_record(given), networks)
    write_atomically(model / MAP_FILE, given.read_text(encoding="utf-8"))
    print(f"written: {model / MAP_FILE}")
    if args.write_checkpoints:
        _write_checkpoints(args, model, model / MAP_FILE, folds)
    return 0


def _write_checkpoints(args: argparse.Namespace, model, path, folds: Sequence[str]) -> None:
    """The affine map of the file into a checkpoint of each fold."""
    from nnunet_nacl.documents.map_file import map_to_json, read_map, structures_of
    from nnunet_nacl.io.checkpoints import CALIBRATED, write_calibrated
    from nnunet_nacl.io.prediction_folder import PredictionFolder

    labels = PredictionFolder.open(model, need_reference=False).labels
    form = args.form if args.form in ("temperature", "shift") else "temperature"
    affine = read_map(path, structures_of(labels), labels.regions, form)
    mark = map_to_json({form: affine}, form, structures_of(labels))
    write_calibrated(model, folds, args.chk, affine, mark, progress=True)
    for fold in folds:
        print(f"written: {model / f'fold_{fold}' / CALIBRATED}   ({form})")
