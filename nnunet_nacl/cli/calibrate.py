"""`nnunet_nacl calibrate`: honest probabilities from a model that is trained already."""

from __future__ import annotations

import argparse

from nnunet_nacl.cli.options import add_files, add_groups, add_model, add_processes, add_trust, number_of_processes

HELP = "calibrate a trained model on its held-out cases, and write it into the checkpoints"

_DESCRIPTION = """\
Fits a map of the log-odds, z_0 + a_k (z_k - z_0) + b_k, to cases that the network was not trained on, and reports what
it changes, measured on cases that its fit has not seen. Nothing is trained.

Of a model (-d, -tr, -p, -c, -f) the validation cases of the folds are taken, by their npz files or by the samples that
our trainers and `nnunet_nacl evaluate --predict` leave. One map serves all folds, and each fold gets a
checkpoint_calibrated.pth; the originals stay. Of a folder (-i, -gt) the map alone is written: for ensembles, or for a
hospital's own cases, predicted as the model is used (`nnUNetv2_predict ... --save_probabilities`).
"""

_EPILOG = """\
Predict with the calibrated checkpoints, in stock nnU-Net too:  nnUNetv2_predict ... -chk checkpoint_calibrated.pth
or calibrate saved probabilities:  nnunet_nacl review -i PREDICTIONS -map calibration_map.json -o OUT

Exit status: 0; 1 if some cases could not be used (each is listed); 2 if nothing was done.

examples:
  nnunet_nacl calibrate -d 4 -tr nnUNetTrainer -c 3d_fullres
  nnunet_nacl calibrate -i predictions -gt labels -groups '^(patient[0-9]+)' -o our_hospital.json
  nnunet_nacl calibrate -d 4 -tr nnUNetTrainer -c 3d_fullres -map our_hospital.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    add = parser.add_argument
    add_model(parser)
    add("-chk", metavar="NAME", default="checkpoint_final.pth", help="checkpoint of the folds (default: %(default)s)")
    add("-i", metavar="PREDICTIONS", help="folder of predictions with probabilities, instead of a model")
    add("-gt", metavar="LABELS", help="their ground truth")
    add_files(parser, "in PREDICTIONS or up to two levels above")
    add("-o", metavar="MAP", help="the map (default: calibration_map.json in the model's or the predictions' folder)")
    add(
        "-form",
        choices=("auto", "temperature", "shift", "logodds"),
        default="auto",
        help="temperature: one slope; shift: one slope, an offset for each structure; logodds: a slope and an offset "
        "for each. auto, the default: shift, unless left-out cases speak against it: logodds where their NLL is better "
        "by more than one standard error, temperature where shift's offsets make it worse, as with few cases",
    )
    add_groups(parser)
    add("-map", metavar="FILE", help="fit nothing, write this map into the model's checkpoints")
    add_processes(parser)
    add_trust(parser)
    add("--no-checkpoints", action="store_true", help="write no calibrated checkpoints")
    add("--any-age", action="store_true", help="take predictions that are older than the checkpoint")


def run(args: argparse.Namespace) -> int:
    """Calibrates; exit status 1 if some cases could not be used."""
    from pathlib import Path

    from nnunet_nacl.cases.checkpoints import CALIBRATED, write_calibrated
    from nnunet_nacl.cases.heldout import HeldOut
    from nnunet_nacl.cases.locate import find_fold_folders, model_folder
    from nnunet_nacl.cases.prediction_folder import PredictionFolder
    from nnunet_nacl.cli.problem_list import report_problems
    from nnunet_nacl.documents.map_file import APPLIED_FILE, MAP_FILE, check_output_map, sha256
    from nnunet_nacl.documents.patient_groups import read_groups
    from nnunet_nacl.errors import UserError
    from nnunet_nacl.files import to_json_text, write_atomically
    from nnunet_nacl.models.workflow import calibrate
    from nnunet_nacl.show.effect_table import effect_table

    if (args.d is None) == (args.i is None):
        raise UserError("name a model (-d DATASET -c CONFIGURATION) or give a folder (-i PREDICTIONS -gt LABELS).")
    processes = number_of_processes(args.np)
    model = None
    if args.d is not None:
        if args.c is None:
            raise UserError("-d needs -c CONFIGURATION, such as -c 3d_fullres.")
        model = model_folder(args.d, args.tr, args.p, args.c)
        if args.map:
            return _write_given(args, model)
        folders = find_fold_folders(model, args.f)
        if "all" in folders:
            raise UserError(
                "fold all was trained on every case, its validation cases too: nothing is held out. Give trained folds "
                "(-f 0 1 2 3 4), or cases of your own (-i PREDICTIONS -gt LABELS)."
            )
    else:
        if args.gt is None:
            raise UserError("-i needs -gt LABELS, the ground truth of these predictions.")
        if args.map:
            raise UserError("-map goes with a model (-d); for a folder use `nnunet_nacl review -map`.")
        folders = {"": PredictionFolder.open(args.i, args.gt, dataset_json=args.djfile, plans=args.pfile)}
        if (Path(args.i) / APPLIED_FILE).is_file():
            raise UserError(f"{args.i} is calibrated already; give the folder that it was made from.")
    output = Path(args.o) if args.o else (model or Path(args.i)) / MAP_FILE
    check_output_map(output)
    held_out = HeldOut(folders)
    baked = None if args.no_checkpoints else model
    if baked:
        _check_checkpoints(args, baked, held_out)
    groups = read_groups(args.groups, list(held_out.files)) if args.groups else None
    calibration = calibrate(
        held_out,
        form=args.form,
        groups=groups,
        output=None if model else output,
        as_deployed=model is None,
        num_processes=processes,
        progress=True,
    )
    fitted = calibration.chosen.fit.map
    notes = _notes(args, held_out, calibration) if model else []
    document = calibration.to_json() | {"source": str(model or Path(args.i).resolve()), "folds": sorted(folders)}
    document |= {"notes": notes, "problems": held_out.problems}
    if baked:
        mark = {key: document[key] for key in ("schema_version", "regions", "structures", "form", "generated_by")}
        document["checkpoints"] = write_calibrated(baked, list(folders), args.chk, fitted, mark, progress=True)
        notes += _other_folds(baked, fitted)
        document["checkpoint_sha256"] = {fold: sha256(baked / f"fold_{fold}" / CALIBRATED) for fold in folders}
    write_atomically(output, to_json_text(document))

    print(_summary(calibration))
    print(effect_table(calibration.effect, calibration.structures))
    print("NLL all is what the map is fitted by. Masks that look at the truth reward holding back, and may get worse.")
    print(f"\n{calibration.quality.table()}")
    for note in notes:
        print(f"\nnote: {note}")
    print(f"\nwritten: {output}")
    for path in [baked / f"fold_{fold}" / CALIBRATED for fold in folders if baked]:
        print(f"written: {path}")
    report_problems("calibrate", held_out.problems, "cases could not be used")
    return 1 if held_out.problems else 0


def _check_checkpoints(args: argparse.Namespace, model, held_out) -> None:
    from nnunet_nacl.cases.checkpoints import check_checkpoints

    oldest: dict[str, int] = {}
    for case, fold in held_out.fold.items() if not args.any_age else ():
        oldest[fold] = min(held_out.made(case), oldest.get(fold, held_out.made(case)))
    check_checkpoints(model, list(held_out.folders), args.chk, predicted_ns=oldest)


def _notes(args: argparse.Namespace, held_out, calibration) -> list[str]:
    """What the user must know of this configuration."""
    from nnunet_nacl.cases.checkpoints import CALIBRATED
    from nnunet_nacl.cases.map_resampling import resampling_difference

    folder = held_out.first
    configuration = folder.plans.get("configurations", {}).get(args.c, {})
    notes = []
    if configuration.get("previous_stage"):
        notes.append(
            f"cascade: this is its last stage. Predict {configuration['previous_stage']} with its original checkpoint; "
            "a calibrated one would change what this stage is given."
        )
    if configuration.get("next_stage"):
        notes.append(
            f"cascade: {configuration['next_stage']} was trained on predictions of the original checkpoint; "
            "never give it those of the calibrated one."
        )

    def read():
        data = folder.load(next(iter(held_out.files.values())))
        return data.probabilities.whole(), data.spacing_mm

    if calibration.exact:
        difference = resampling_difference(folder.plans, args.c, read, calibration.chosen.fit.map)
        if difference:
            notes.append(
                "these plans resample probabilities by cubic interpolation, which clips: the calibrated checkpoint "
                f"and `nnunet_nacl review -map` differ, on case {next(iter(held_out.files))} by at most "
                f"{difference[0]:.2g}, {difference[1]:.2g} on average."
            )
    else:
        notes.append(
            "values after calibration are estimates from samples; for exact ones of the calibrated checkpoint run "
            f"`nnunet_nacl evaluate -d {args.d} -tr {args.tr} -p {args.p} -c {args.c} --predict -chk {CALIBRATED}`."
        )
    return notes


def _other_folds(model, calibration) -> list[str]:
    """A warning where folds keep what an earlier map made of them."""
    from nnunet_nacl.cases.checkpoints import CALIBRATED, calibrated_otherwise

    others = calibrated_otherwise(model, calibration)
    if not others:
        return []
    return [
        f"the {CALIBRATED} of fold {', '.join(others)} holds another, earlier map. Predict with the folds of this one "
        "alone (-f), or calibrate all folds together."
    ]


def _write_given(args: argparse.Namespace, model) -> int:
    """Write a map into a model, which may have come as a zip file: without validation folders."""
    from pathlib import Path

    from nnunet_nacl.cases.checkpoints import CALIBRATED, check_checkpoints, write_calibrated
    from nnunet_nacl.cases.prediction_folder import PredictionFolder
    from nnunet_nacl.documents.map_file import MAP_FILE, map_to_json, read_map, structures_of
    from nnunet_nacl.errors import UserError
    from nnunet_nacl.files import write_atomically

    present = sorted(path.parent.name.removeprefix("fold_") for path in model.glob(f"fold_*/{args.chk}"))
    folds = list(dict.fromkeys(args.f or present))
    if not folds:
        raise UserError(f"{model} has no fold with a {args.chk}; name another with -chk.")
    folder = PredictionFolder.open(model, need_reference=False)
    calibration = read_map(args.map, structures_of(folder.labels), folder.labels.regions)
    check_checkpoints(model, folds, args.chk, predicted_ns={})
    mark = map_to_json(calibration, structures_of(folder.labels))
    write_calibrated(model, folds, args.chk, calibration, mark, progress=True)
    write_atomically(model / MAP_FILE, Path(args.map).read_text(encoding="utf-8"))  # predictions look for it there
    for note in _other_folds(model, calibration):
        print(f"note: {note}\n")
    for path in (model / MAP_FILE, *(model / f"fold_{fold}" / CALIBRATED for fold in folds)):
        print(f"written: {path}")
    return 0


def _summary(calibration) -> str:
    fit, parts = calibration.chosen.fit, calibration.chosen.part_maps
    lines = [f"form {calibration.form}, {len(calibration.parts)} cases, {len(parts)} parts"]
    columns = (*fit.standard_errors.reshape(2, -1), fit.map.slopes, fit.map.offsets)
    for (key, name), slope_error, offset_error, slope, offset in zip(calibration.structures.items(), *columns):
        shift = "no offset" if calibration.form == "temperature" else f"offset {offset:+.4f} ({offset_error:.4f})"
        lines.append(f"  {key} {name}: slope {slope:.4f} (standard error {slope_error:.4f}), {shift}")
    scores = ", ".join(f"{form} {one.score.nll:.5f}" for form, one in calibration.by_form.items())
    lines.append(f"cross-validated NLL: {scores}")
    changed = f"{calibration.confident_changed:.0f} of {calibration.confident:.0f}"
    lines.append(f"confident foreground voxels (p > 0.9) that get another label: {changed}\n")
    return "\n".join(lines)
