"""`nnunet_nacl evaluate`: segmentation and calibration of predictions that nnU-Net made."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

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
    from nnunet_nacl.case.document import Evaluation
    from nnunet_nacl.case.results import EvaluationSettings
    from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
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
    from nnunet_nacl.case.results import EvaluationSettings
    from nnunet_nacl.cli.evaluation_text import check_csv, csv_text, table_text
    from nnunet_nacl.cli.terminal import report_problems
    from nnunet_nacl.errors import one_line
    from nnunet_nacl.files import write_atomically
    from nnunet_nacl.numbers.flags import DEFAULT_BAD, parse_bad, read_bad
    from nnunet_nacl.runs.folds import default_output, evaluate_folds

    _check(args)
    try:
        settings = EvaluationSettings(args.bins, args.dilated, args.boundary)
    except ValueError as error:
        raise UserError(str(error)) from None
    bad, processes = parse_bad(args.bad or ()), number_of_processes(args.np)
    folders, title, quality = _of_model(args, settings, processes) if args.d is not None else _of_folder(args)
    output = Path(args.o or default_output(folders))
    if args.csv:
        check_csv(output.with_suffix(".csv"))
    evaluation, output, failed = evaluate_folds(
        folders, settings=settings, chill=args.chill, output=args.o, num_processes=processes, progress=True
    )
    print(table_text(evaluation, one_line(f"{title}: {len(evaluation.cases)} cases"), every=args.verbose))
    _print_quality(evaluation, quality, read_bad(bad, evaluation.names, default=DEFAULT_BAD), output, args.verbose)
    print(f"\nwritten: {output}")
    if args.csv:
        write_atomically(output.with_suffix(".csv"), csv_text(evaluation))
        print(f"written: {output.with_suffix('.csv')}")
    problems = failed | evaluation.problems
    report_problems("evaluate", problems, "could not be evaluated")
    return 1 if problems else 0


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


def _of_model(
    args: argparse.Namespace, settings: EvaluationSettings, processes: int
) -> tuple[dict[str, PredictionFolder], str, None]:
    """The validation folders of a model by fold, predicted first if this was asked for, and what they are called."""
    from nnunet_nacl.nnunet.prediction_folder import find_fold_folders

    model = model_of(args)
    if args.predict:
        from nnunet_nacl.nnunet.trained_model import TrainedModel
        from nnunet_nacl.nnunet.validation_folders import predict_validation

        opened, network = TrainedModel.open(model, args.f, args.chk), network_of(args)
        folders = {
            fold: predict_validation(opened, fold, network, settings=settings, num_processes=processes)
            for fold in opened.folds
        }
    else:
        folders = find_fold_folders(model, args.f)
    return folders, f"{model.parent.name}, {model.name}, fold {' '.join(folders)}", None


def _of_folder(args: argparse.Namespace) -> tuple[dict[str, PredictionFolder], str, QualityOfMap | None]:
    """A folder of predictions, as -map leaves it; what it is called, and what the map has learned of Dice."""
    from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
    from nnunet_nacl.review.predicted_quality import open_map
    from nnunet_nacl.review.same_networks import check_same_networks

    folder = PredictionFolder.open(args.i, args.gt, dataset_json=args.djfile, plans=args.pfile)
    expected = folder.with_expected()
    if not args.map:
        return {"": expected}, str(folder.folder), None
    if note := check_same_networks(Path(args.map), folder):
        print(f"note: {note}", file=sys.stderr)
    calibration, quality, _ = open_map(Path(args.map), folder)
    if calibration is not None:  # beside what was measured of the predictions as they are
        expected = replace(expected, calibration=calibration)
        args.o = args.o or str(args.i / "calibrated" / "calibration.json")
    return {"": expected}, f"{folder.folder} through {args.map}", quality


def _print_quality(
    evaluation: Evaluation,
    quality: QualityOfMap | None,
    bad: Mapping[str, float],
    output: Path,
    every: bool,
) -> None:
    """Prints what is found, how far predicted Dice holds, and what is there; stores the middle one if a map has it."""
    from nnunet_nacl.calibrate.map_file import sha256
    from nnunet_nacl.case.results import detected_in
    from nnunet_nacl.case.table import table
    from nnunet_nacl.files import to_json_text, write_atomically
    from nnunet_nacl.json_files import read_dict
    from nnunet_nacl.numbers.presence import learn_presence
    from nnunet_nacl.numbers.quality_report import quality_report
    from nnunet_nacl.show.case_tables import detected_text, presence_text, quality_text

    if text := detected_text(detected_in(evaluation.cases), evaluation.names, every=every):
        print(f"\n{text}")
    rows, notes, patients = table(evaluation.cases), [], {}
    if quality:
        notes, patients = quality.caveats(rows.case), quality.record.groups
        rows = quality.learned.predict_dice(rows)
    print(f"\n{quality_text(rows, bad)}")
    presence = learn_presence(rows, patients)
    if text := presence_text(presence, evaluation.names, every=every):
        print(f"\n{text}")
    if quality:
        print("".join(f"note: {note}\n" for note in notes), end="")
        report = {"map_sha256": sha256(quality.path), "notes": notes}
        report |= quality_report(rows, bad).to_json()
        write_atomically(output, to_json_text(read_dict(output) | {"predicted_quality": report}))
