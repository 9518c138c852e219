"""`nnunet_nacl evaluate`: measures segmentation and calibration of predictions against the ground
truth."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_nacl.cli.options import (
    COUNTED_FINDINGS,
    MODEL,
    NETWORK,
    OptionSettings,
    add_options,
    exit_status,
    fill_paragraphs,
    model_of,
    number_of_processes,
    print_not_counted,
    report_problems,
    setting,
    settings_from,
)
from nnunet_nacl.settings import GivenCases, MeasureSettings, NetworkSettings
from nnunet_nacl.utilities.errors import UserError

HELP = "measure segmentation and calibration of a validated model or of a folder of predictions"

_DESCRIPTION = """\
Measures how well predictions segment (Dice, HD95, ASSD), and how far their confidence can be
trusted (ECE, NLL, Brier score and others): a trained model's validation cases, or a folder of
predictions (-i -gt).
"""

_EPILOG = """\
examples:
  nnunet_nacl evaluate -d 4 -c 3d_fullres --predict
  nnunet_nacl evaluate -i predictions -gt labelsTs -map calibration_map.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.usage = (
        "%(prog)s (-d DATASET -c CONFIGURATION | -m FOLDER | -i PREDICTIONS -gt LABELS) [options]"
    )
    parser.description = fill_paragraphs(_DESCRIPTION)
    parser.epilog = fill_paragraphs(_EPILOG)
    groups = {
        "a folder of predictions": "-i -gt -map -djfile -pfile --chill",
        "a model's validation cases": f"{MODEL} -m --predict -chk {NETWORK}",
        "what to measure": "-bins -dilated -boundary -bad -structures -findings",
        "the output, and how to run": "-o --csv -np --trust_checkpoint --quiet",
    }
    changes: dict[str, str | OptionSettings] = {
        "-i": {"metavar": "PREDICTIONS", "type": Path},
        "-gt": {"type": Path},
        "-map": (
            "calibrate the probabilities by this map, and measure how good its predicted Dice is"
        ),
        "--chill": setting(MeasureSettings, "chill"),
        "--predict": setting(MeasureSettings, "predict"),
        "-chk": "with --predict: file of the network in each fold (default: %(default)s)",
        "-bins": setting(MeasureSettings, "n_bins", "N"),
        "-findings": COUNTED_FINDINGS,
        "-o": setting(MeasureSettings, "output", "FILE"),
        "--csv": setting(MeasureSettings, "csv"),
        "-dilated": setting(MeasureSettings, "dilation_mm", "MM"),
        "-boundary": setting(MeasureSettings, "boundary_mm", "MM"),
    }
    add_options(parser, groups, changes)


def run(args: argparse.Namespace) -> int:
    """Evaluates; exit status 1 if something could not be evaluated."""
    _check_options(args)
    model = None if args.i is not None else model_of(args)
    from nnunet_nacl.cli.evaluation_text import evaluation_text
    from nnunet_nacl.comparison.evaluate import evaluate_cases

    result = evaluate_cases(
        settings_from(GivenCases, args, model=model, images=None),
        settings_from(NetworkSettings, args),
        settings_from(MeasureSettings, args, num_processes=number_of_processes(args.np)),
    )
    print_not_counted(args, result.bad, result.evaluation.names)
    print(evaluation_text(result))
    written = result.write()
    print(f"\nwritten: {', '.join(map(str, written))}")
    report_problems("evaluate", result.failed, "could not be evaluated")
    return exit_status(result.failed)


def _check_options(args: argparse.Namespace) -> None:
    """UserError where they do not go together."""
    names_model = args.d is not None or args.m is not None
    if args.map and names_model:
        raise UserError(
            "-map is for a folder of predictions (-i); for a model's own validation cases"
            " `nnunet_nacl compare -tr TRAINER+calibrated` predicts Dice."
        )
    if args.predict and not names_model:
        raise UserError("--predict needs a model: -d DATASET -c CONFIGURATION, or -m FOLDER.")
    if names_model == (args.i is not None):
        raise UserError(
            "name a model (-d DATASET -c CONFIGURATION, or -m FOLDER) or a folder of predictions"
            " (-i PREDICTIONS -gt LABELS)."
        )
    if (args.i is None) != (args.gt is None):
        raise UserError(
            "-i PREDICTIONS and -gt LABELS go together: the folder with their ground truth is"
            " needed."
        )
