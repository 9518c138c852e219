"""`nnunet_nacl calibrate`: fits a calibration map to cases that the networks were not trained
on."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_nacl.cli import options
from nnunet_nacl.settings import FitSettings, GivenCases, NetworkSettings
from nnunet_nacl.utilities.errors import UserError

if TYPE_CHECKING:
    from nnunet_nacl.calibration.calibration_result import CalibrationFiles, CalibrationResult

_LOG = logging.getLogger(__name__)
HELP = "calibrate the confidence of a trained model; its segmentations stay as they are"

_DESCRIPTION = """\
Fits a calibration map to cases that the networks were not trained on: a model's validation cases
(-d -c), images of your own with their ground truth (-i -gt and a model), or saved predictions
(-i -gt). Nothing is trained, and no label changes. `nnunet_nacl predict` finds the map in the
model's folder.
"""

_EPILOG = """\
examples:
  nnunet_nacl calibrate -d 4 -c 3d_fullres
  nnunet_nacl calibrate -i images -gt labels -d 4 -c 3d_fullres -groups '^(patient[0-9]+)' -o \
our_hospital.json
  nnunet_nacl calibrate -i predictions -gt labels -o ensemble.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.usage = (
        "%(prog)s [-d DATASET -c CONFIGURATION | -m FOLDER] [-i FOLDER -gt LABELS] [options]"
    )
    parser.description = options.fill_paragraphs(_DESCRIPTION)
    parser.epilog = options.fill_paragraphs(_EPILOG)
    forms = ("auto", "temperature", "conditional")
    groups = {
        "the model": f"{options.MODEL} -m -chk",
        "the cases": "-i -gt -djfile -pfile -groups --allow-training-cases --any_age",
        "the map": "-form -o -map",
        "what flags would cost": "-bad -structures",
        "how to run": f"{options.NETWORK} -np --trust_checkpoint --quiet",
    }
    changes: dict[str, str | options.OptionSettings] = {
        "-i": "images of your own (with a model), or predictions with their probabilities",
        "--allow-training-cases": (
            "with images of your own: also take cases that the folds were trained on"
        ),
        "-form": options.setting(FitSettings, "form", "FORM", choices=forms),
        "-o": {
            "metavar": "MAP",
            "help": (
                "file of the map (default: calibration_map.json in the folder of the model or -i)"
            ),
        },
        "-map": "fit nothing: use this map, fitted elsewhere, for the model",
    }
    options.add_options(parser, groups, changes)


def run(args: argparse.Namespace) -> int:
    """Calibrates; exit status 1 if some cases could not be used, or the figure could not be
    written."""
    model = _model(args)
    num_processes = options.number_of_processes(args.np)
    from nnunet_nacl.calibration.calibrate import calibrate_cases

    if args.map and model:
        return _take_map(args, model)
    given = options.settings_from(
        GivenCases,
        args,
        model=model,
        images=None if model is None else args.i,
        predictions=args.i if model is None else None,
    )
    result = calibrate_cases(
        given,
        options.settings_from(NetworkSettings, args),
        options.settings_from(FitSettings, args, num_processes=num_processes),
    )
    written = result.write()
    options.print_not_counted(args, result.bad, result.calibration_map.names)
    _print_result(result, written)
    options.report_problems("calibrate", result.failed, "cases could not be used")
    return options.exit_status(result.failed, written.why_no_figure)


def _print_result(result: CalibrationResult, written: CalibrationFiles) -> None:
    """What the map changes and has learned, where it lies, and in the last line what to think of
    it."""
    from nnunet_nacl.cli.calibration_text import calibration_text, verdict

    print(calibration_text(result.calibration_map, result.flags))
    for note in result.notes:
        print(f"note: {note}")
    print(f"written: {written.calibration_map}   (every number)")
    if written.figure is not None:
        print(f"figure: {written.figure}")
    if written.why_no_figure is not None:
        _LOG.error(
            "nnunet_nacl calibrate: the map is written, its figure is not: %s",
            written.why_no_figure,
        )
    print(verdict(result.calibration_map))


def _model(args: argparse.Namespace) -> Path | None:
    """Folder of the model, None for predictions alone; UserError where the options do not fit."""
    if args.d is None and args.m is None and args.i is None:
        raise UserError(
            "name a model (-d DATASET -c CONFIGURATION, or -m FOLDER), or a folder of predictions"
            " (-i FOLDER -gt LABELS)."
        )
    if args.i is not None and args.gt is None and not args.map:
        raise UserError("-i needs -gt LABELS, the ground truth of these cases.")
    if args.gt is not None and args.i is None:
        raise UserError("-gt LABELS is the ground truth of -i FOLDER: give that, too.")
    if args.m is None and args.d is None:
        if args.map:
            raise UserError(
                "-map goes with a model (-d or -m); for a folder: `nnunet_nacl review -map`."
            )
        return None
    return options.model_of(args)


def _take_map(args: argparse.Namespace, model: Path) -> int:
    """Take a map for a model, which may have come from another site: without validation folders."""
    from nnunet_nacl.calibration.calibrate import take_map

    options_of_fit = ("i", "gt", "groups", "o", "bad", "structures")
    others = [f"-{name}" for name in options_of_fit if getattr(args, name)]
    if others:
        raise UserError(
            "-map FILE is taken as the model's own map, and fits nothing: leave out"
            f" {', '.join(others)}."
        )
    print(f"written: {take_map(model, args.map, folds=args.f, checkpoint=args.chk)}")
    return 0
