"""`nnunet_nacl evaluate`: segmentation and calibration of predictions that nnU-Net made."""

from __future__ import annotations

import argparse

from nnunet_nacl.cli.options import (
    add_files,
    add_inference,
    add_model,
    add_processes,
    add_threshold,
    add_trust,
    number_of_processes,
    threshold_of,
)

HELP = "measure segmentation and calibration of a validated model or of a folder of predictions"

_DESCRIPTION = """\
Measures Dice, HD95, ASSD, ECE, CECE, ACE, MCE, NLL and Brier score per case, structure and mask, and writes
calibration.json: of a trained model's validation cases (-d -c), or of predictions that have their probabilities
(ground truth first, as for nnUNetv2_evaluate_folder). More: docs/how-to/evaluate.md
"""

_EPILOG = """\
examples:
  nnunet_nacl evaluate -d 4 -c 3d_fullres --predict
  nnunet_nacl evaluate labelsTs predictions -map calibration_map.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.usage = "%(prog)s (-d DATASET -c CONFIGURATION | gt_folder pred_folder) [options]"
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("gt_folder", nargs="?", help="folder with the ground truth")
    add("pred_folder", nargs="?", help="folder with the predictions")
    add_files(parser, "in pred_folder or up to two levels above")
    add_model(parser)
    add("--predict", action="store_true", help="predict the validation cases of -d first")
    add("-chk", metavar="NAME", default="checkpoint_final.pth", help="for --predict (default: %(default)s)")
    add_inference(parser, "--predict")
    add("-o", metavar="FILE", help="output file, must end with .json")
    add_processes(parser)
    add("-bins", metavar="N", type=int, default=15, help="confidence bins (default: %(default)s)")
    for mask, what in (("dilated", "radius"), ("boundary", "reach")):
        explained = f"{what} of the mask `{mask}` (default: %(default)s mm)"
        add(f"-{mask}", metavar="MM", type=float, default=2.0, help=explained)
    add_threshold(parser, nargs=1)
    learned = "measure pred_folder through this map, and how far its predicted Dice holds"
    add("-map", metavar="FILE", help=learned)
    add("--csv", action="store_true", help="also write every number to a .csv file beside the output")
    add_trust(parser)
    add("--chill", action="store_true", help="do not complain about cases that have no prediction")


def run(args: argparse.Namespace) -> int:
    """Evaluates; exit status 1 if something could not be evaluated."""
    from pathlib import Path

    from nnunet_nacl.calibration.quality_report import quality_report
    from nnunet_nacl.cases.dice_thresholds import DiceThresholds
    from nnunet_nacl.cases.folds import default_output, evaluate_folds
    from nnunet_nacl.cases.held_out_presence import learn_presence
    from nnunet_nacl.cases.locate import find_fold_folders, model_folder
    from nnunet_nacl.cases.predicted_quality import open_map
    from nnunet_nacl.cases.prediction_folder import PredictionFolder
    from nnunet_nacl.cases.quality_block import quality_rows
    from nnunet_nacl.cli.problem_list import report_problems
    from nnunet_nacl.documents.decision_json import delivered_in
    from nnunet_nacl.documents.map_file import sha256
    from nnunet_nacl.documents.results import EvaluationSettings, detected_in
    from nnunet_nacl.errors import UserError
    from nnunet_nacl.files import to_json_text, write_atomically
    from nnunet_nacl.json_files import one_line, read_dict
    from nnunet_nacl.show.detected_tables import LABELS, detected_text
    from nnunet_nacl.show.evaluation_table import check_csv, csv_text, table_text
    from nnunet_nacl.show.presence_table import presence_text
    from nnunet_nacl.show.quality_tables import quality_text

    by_name, by_folder, asked = args.d is not None, args.gt_folder is not None, None
    if args.map and by_name:
        raise UserError(
            "-map is for a folder of predictions; for a model's own validation cases `nnunet_nacl compare -tr "
            "TRAINER+calibrated` predicts Dice."
        )
    if args.predict and not by_name:
        raise UserError("--predict needs a model: -d DATASET -c CONFIGURATION.")
    if by_name == by_folder:
        raise UserError("name a model (-d DATASET -c CONFIGURATION) or give two folders (gt_folder pred_folder).")
    try:
        settings = EvaluationSettings(args.bins, args.dilated, args.boundary)
    except ValueError as error:
        raise UserError(str(error)) from None
    below = threshold_of(args)
    processes = number_of_processes(args.np)

    if by_name:
        if args.c is None:
            raise UserError("-d needs -c CONFIGURATION, such as -c 3d_fullres.")
        model = model_folder(args.d, args.tr, args.p, args.c)
        folders = _predicted(args, model, settings, processes) if args.predict else find_fold_folders(model, args.f)
        title = f"{model.parent.name}, {model.name}, fold {' '.join(folders)}"
    else:
        if args.pred_folder is None:
            raise UserError("two folders are needed: gt_folder pred_folder.")
        references = Path(args.gt_folder)
        folder = PredictionFolder.open(args.pred_folder, references, dataset_json=args.djfile, plans=args.pfile)
        folders = {"": folder.expecting_all_references()}
        if args.map:
            treatment, asked, _ = open_map(Path(args.map), folder)
            if treatment.map is not None:  # beside what was measured of the predictions as they are
                folders[""] = folders[""].treated(treatment)
                args.o = args.o or str(Path(args.pred_folder) / "calibrated" / "calibration.json")
        title = str(folder.folder) + (f" through {args.map}" if args.map else "")
    output = Path(args.o or default_output(folders))
    if args.csv:
        check_csv(output.with_suffix(".csv"))

    evaluation, output, failed = evaluate_folds(
        folders, settings=settings, chill=args.chill, output=args.o, num_processes=processes, progress=True
    )
    print(table_text(evaluation, one_line(f"{title}: {len(evaluation.cases)} cases")))
    kind = "argmax" if by_name else delivered_in(folders[""].folder)
    found = {LABELS[kind]: detected_in(evaluation.cases)}
    if by_name and (decided := _decided(folders, evaluation)):
        found[LABELS["decided"]] = decided.detected
    if text := detected_text(found, evaluation.names):
        print(f"\n{text}")
    threshold = DiceThresholds.of(below, evaluation.names).values
    rows = quality_rows(evaluation.cases)
    if asked and not asked.predicts_dice:
        asked = None
    if rows and asked:
        rows = asked.learned.predict_dice(rows, asked.reservations(case.case for case in evaluation.cases))
    if rows:
        print(f"\n{quality_text(rows, threshold)}")
    groups = asked.record.groups if asked else {}
    patients = [groups.get(case.case, case.case) for case in evaluation.cases]
    there = learn_presence(evaluation.cases, evaluation.names, patients, only_listed=True)
    if text := presence_text(there):
        print(f"\n{text}")
    if rows and asked:
        print("".join(f"note: {note}\n" for note in rows.reservations), end="")
        predicted = {"map_sha256": sha256(asked.path), "notes": rows.reservations}
        predicted |= quality_report(rows, threshold).to_json()
        write_atomically(output, to_json_text(read_dict(output) | {"predicted_quality": predicted}))
    print(f"\nwritten: {output}")
    if args.csv:
        write_atomically(output.with_suffix(".csv"), csv_text(evaluation))
        print(f"written: {output.with_suffix('.csv')}")
    problems = failed | evaluation.problems
    report_problems("evaluate", problems, "could not be evaluated")
    return 1 if problems else 0


def _decided(folders: dict, evaluation):
    """The same cases as `calibrate` decides them, each by what the others taught; None where it has not."""
    from nnunet_nacl.cases.quality_block import DECIDED, rows_of_blocks
    from nnunet_nacl.comparison.treated_folder import calibrated
    from nnunet_nacl.documents.document import FILE_NAME, read_document
    from nnunet_nacl.errors import UserError

    try:
        documents = [calibrated(read_document(folder.folder / FILE_NAME), folder) for folder in folders.values()]
    except UserError:
        return None
    blocks = {case.case: case.blocks[DECIDED] for document in documents for case in document.cases}
    cases = [case.case for case in evaluation.cases]
    if not blocks.keys() >= set(cases):
        return None
    return rows_of_blocks([blocks[case] for case in cases], tuple(evaluation.names))


def _predicted(args: argparse.Namespace, model, settings, processes: int) -> dict:
    """The folds' validation cases, predicted by a checkpoint."""
    from nnunet_nacl.cases.locate import trained_folds
    from nnunet_nacl.prediction.validation_prediction import predict_validation

    network = {"device": args.device, "step_size": args.step_size, "mirroring": not args.disable_tta}
    options = {"settings": settings, "num_processes": processes, "progress": True}
    folds = trained_folds(model, args.chk, args.f)
    return {fold: predict_validation(model, fold, args.chk, network, **options) for fold in folds}
