"""`nnunet_nacl evaluate`: measures segmentation and calibration of predictions against the ground truth."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_nacl.cli.options import (
    MODEL,
    NETWORK,
    add_shared,
    model_of,
    network_of,
    number_of_processes,
)
from nnunet_nacl.errors import UserError

if TYPE_CHECKING:
    from nnunet_nacl.case.case import EvaluationSettings
    from nnunet_nacl.case.evaluation import Evaluation
    from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
    from nnunet_nacl.numbers.log_odds_map import LogOddsMap
    from nnunet_nacl.review.predicted_quality import QualityOfMap

HELP = "measure segmentation and calibration of a validated model or of a folder of predictions"

_DESCRIPTION = """\
Measures Dice, HD95, ASSD, ECE, CECE, ACE, MCE, NLL and Brier score per case, structure and mask, and writes
calibration.json: of a trained model's validation cases (-d -c), or of predictions that have their probabilities
(-i, with their ground truth -gt). More: docs/how-to/evaluate.md
"""

_EPILOG = """\
examples:
  nnunet_nacl evaluate -d 4 -c 3d_fullres --predict
  nnunet_nacl evaluate -i predictions -gt labelsTs -map calibration_map.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.usage = "%(prog)s (-d DATASET -c CONFIGURATION | -i PREDICTIONS -gt LABELS) [options]"
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("-i", metavar="PREDICTIONS", type=Path, help="folder of predictions with their probabilities")
    add("-gt", metavar="LABELS", type=Path, help="folder with the ground truth of -i")
    add_shared(parser, "-djfile", "-pfile", *MODEL)
    add("--predict", action="store_true", help="predict the validation cases of -d first")
    add("-chk", metavar="NAME", default="checkpoint_final.pth", help="for --predict (default: %(default)s)")
    add_shared(parser, *NETWORK)
    add("-o", metavar="FILE", help="output file, must end with .json")
    add_shared(parser, "-np")
    add("-bins", metavar="N", type=int, default=15, help="confidence bins (default: %(default)s)")
    for mask, explained in (
        ("dilated", "radius of the masks `dilated` and `near`"),
        ("boundary", "reach of `boundary`"),
    ):
        add(f"-{mask}", metavar="MM", type=float, default=2.0, help=f"{explained} (default: %(default)s mm)")
    add_shared(parser, "-bad")
    learned = "measure -i through this map, and how far its predicted Dice holds"
    add("-map", metavar="FILE", help=learned)
    add("--csv", action="store_true", help="also write every number to a .csv file beside the output")
    add("--verbose", action="store_true", help="print every structure, not the ten worst only")
    add_shared(parser, "--trust_checkpoint")
    add("--chill", action="store_true", help="do not complain about cases that have no prediction")


def run(args: argparse.Namespace) -> int:
    """Evaluates; exit status 1 if something could not be evaluated."""
    from nnunet_nacl.calibrate.map_file import map_of
    from nnunet_nacl.case.case import EvaluationSettings
    from nnunet_nacl.case.evaluation import FILE_NAME, Evaluation
    from nnunet_nacl.cli.evaluation_text import check_csv, csv_text, table_text
    from nnunet_nacl.cli.terminal import report_problems
    from nnunet_nacl.errors import one_line
    from nnunet_nacl.files import can_write, check_ours, check_writable, write_atomically
    from nnunet_nacl.json_files import read_dict
    from nnunet_nacl.nnunet.held_out import measure_folders
    from nnunet_nacl.nnunet.records import Work
    from nnunet_nacl.numbers.flags import DEFAULT_BAD, parse_bad, read_bad

    _check(args)
    try:
        settings = EvaluationSettings(args.bins, args.dilated, args.boundary)
    except ValueError as error:
        raise UserError(str(error)) from None
    bad, processes = parse_bad(args.bad or ()), number_of_processes(args.np)
    calibration, quality = None, None
    if args.d is not None:
        folders, title = _of_model(args, settings, processes)
    else:
        folders, title, calibration, quality = _of_folder(args)
    output = Path(args.o or _default_output(folders))
    if output.suffix != ".json":
        raise UserError(f"{output}: the output file must end with .json.")
    check_writable(output)
    check_ours([output])
    if output.is_file() and output.stat().st_size and "metric_per_case" not in read_dict(output):
        raise UserError(f"{output}: not a calibration.json, and would be lost; remove it or choose another -o.")
    if args.csv:
        check_csv(output.with_suffix(".csv"))
    work = Work(calibration, settings)
    measured = measure_folders(folders, work, beside=output.parent, jobs=processes, chill=args.chill, title="measure")
    records, labels = list(measured.records.values()), measured.labels
    evaluation = Evaluation(records, labels, settings, measured.problems)
    for fold, folder in folders.items() if len(folders) > 1 else ():
        of_fold = [record for record in records if measured.fold[record.case] == fold]
        if of_fold and can_write(folder.folder):
            Evaluation(of_fold, labels, settings, {}).write(folder.folder / FILE_NAME)
    print(table_text(evaluation, one_line(f"{title}: {len(records)} cases"), every=args.verbose))
    known = map_of(next(iter(folders.values())).folder)
    known |= _report_quality(evaluation, quality, read_bad(bad, evaluation.names, default=DEFAULT_BAD), args.verbose)
    evaluation.write(output, **known)
    print(f"\nwritten: {output}")
    if args.csv:
        write_atomically(output.with_suffix(".csv"), csv_text(evaluation))
        print(f"written: {output.with_suffix('.csv')}")
    report_problems("evaluate", evaluation.problems, "could not be evaluated")
    return 1 if evaluation.problems else 0


def _check(args: argparse.Namespace) -> None:
    """What can be wrong with the arguments alone."""
    if args.map and args.d is not None:
        raise UserError(
            "-map is for a folder of predictions (-i); for a model's own validation cases `nnunet_nacl compare -tr "
            "TRAINER+calibrated` predicts Dice."
        )
    if args.predict and args.d is None:
        raise UserError("--predict needs a model: -d DATASET -c CONFIGURATION.")
    if (args.d is None) == (args.i is None):
        raise UserError("name a model (-d DATASET -c CONFIGURATION) or a folder of predictions (-i PREDICTIONS).")
    if (args.i is None) != (args.gt is None):
        raise UserError("-i PREDICTIONS and -gt LABELS go together: the folder with their ground truth is needed.")


def _default_output(folders: Mapping[str, PredictionFolder]) -> Path:
    """Where calibration.json goes: into the folder of a single fold, or into the model folder.

    There it is named after the checkpoint where `--predict` made the predictions, beside that of the validations.
    """
    from nnunet_nacl.case.evaluation import FILE_NAME

    first = next(iter(folders.values())).folder
    if len(folders) == 1:
        return first / FILE_NAME
    return first.parent.parent / FILE_NAME.replace(".", f"{first.name.removeprefix('validation')}.")


def _of_model(
    args: argparse.Namespace, settings: EvaluationSettings, processes: int
) -> tuple[dict[str, PredictionFolder], str]:
    """The validation folders of a model by fold, predicted first if this was asked for, and what they are called."""
    from nnunet_nacl.nnunet.held_out import open_predicted, predict_validation
    from nnunet_nacl.nnunet.prediction_folder import find_fold_folders
    from nnunet_nacl.nnunet.records import Work
    from nnunet_nacl.nnunet.trained_model import TrainedModel

    model = model_of(args)
    if args.predict:
        opened, network = TrainedModel.open(model, args.f, args.chk), network_of(args)
        for fold in opened.folds:
            predict_validation(opened, fold, network, Work(settings=settings, with_sample=True), jobs=processes)
        folders = {fold: open_predicted(opened, fold) for fold in opened.folds}
    else:
        folders = find_fold_folders(model, args.f)
    return folders, f"{model.parent.name}, {model.name}, fold {' '.join(folders)}"


def _of_folder(
    args: argparse.Namespace,
) -> tuple[dict[str, PredictionFolder], str, LogOddsMap | None, QualityOfMap | None]:
    """A folder of predictions; what it is called, the map of -map, and what this has learned of Dice."""
    from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
    from nnunet_nacl.review.predicted_quality import check_same_networks, open_map

    folder = PredictionFolder.open(args.i, args.gt, dataset_json=args.djfile, plans=args.pfile)
    expected = {"": folder.with_expected()}
    if not args.map:
        return expected, str(folder.folder), None, None
    if note := check_same_networks(Path(args.map), folder):
        print(f"note: {note}", file=sys.stderr)
    calibration, quality, _ = open_map(Path(args.map), folder)
    if calibration is not None:  # beside what was measured of the predictions as they are
        args.o = args.o or str(args.i / "calibrated" / "calibration.json")
    return expected, f"{folder.folder} through {args.map}", calibration, quality


def _report_quality(
    evaluation: Evaluation, quality: QualityOfMap | None, bad: Mapping[str, float], every: bool
) -> dict[str, Any]:
    """Prints what is found, how far predicted Dice holds, and what is in the scans; the middle one for the document."""
    from nnunet_nacl.calibrate.workflow import detected_in
    from nnunet_nacl.compare.tables import detected_text, presence_text, quality_text
    from nnunet_nacl.files import checksum
    from nnunet_nacl.numbers.presence import learn_presence
    from nnunet_nacl.numbers.quality_report import quality_report

    rows, notes, patients = evaluation.table, [], {}
    if text := detected_text(detected_in(rows), evaluation.names, every=every):
        print(f"\n{text}")
    if quality:
        notes, patients = quality.caveats(rows.case), quality.record.fitted.groups
        rows = quality.learned.predict_dice(rows)
    print(f"\n{quality_text(rows, bad)}")
    if text := presence_text(learn_presence(rows, patients), evaluation.names, every=every):
        print(f"\n{text}")
    if not quality:
        return {}
    print("".join(f"note: {note}\n" for note in notes), end="")
    report = {"map_sha256": checksum(quality.path), "notes": notes}
    return {"predicted_quality": report | quality_report(rows, bad).to_json()}
