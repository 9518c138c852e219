"""`nnunet_nacl calibrate`: fits a calibration map to cases that the networks were not trained on."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from nnunet_nacl.cli import options
from nnunet_nacl.errors import UserError

_LOG = logging.getLogger(__name__)
HELP = "calibrate the confidence of a trained model; its segmentations stay as they are"

_DESCRIPTION = """\
Fits a calibration map to cases that the networks were not trained on: a model's validation cases (-d -c), images of
your own with their ground truth (-i -gt and a model), or saved predictions (-i -gt). Nothing is trained, and no label
changes. `nnunet_nacl predict` finds the map in the model's folder.
"""

_EPILOG = """\
examples:
  nnunet_nacl calibrate -d 4 -c 3d_fullres
  nnunet_nacl calibrate -i images -gt labels -d 4 -c 3d_fullres -groups '^(patient[0-9]+)' -o our_hospital.json
  nnunet_nacl calibrate -i predictions -gt labels -o ensemble.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.usage = "%(prog)s [-d DATASET -c CONFIGURATION | -m FOLDER] [-i FOLDER -gt LABELS] [options]"
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    forms = ("auto", "temperature", "shift", "conditional")
    form = "temperature, shift, conditional, or auto (default): what left-out cases allow"
    groups = {
        "the model": f"{options.MODEL} -m -chk",
        "the cases": "-i -gt -djfile -pfile -groups --allow-training-cases --any_age",
        "the map": "-form -o -map",
        "what flags would cost": "-bad -structures",
        "how to run": f"{options.NETWORK} -np --trust_checkpoint --quiet",
    }
    changes: dict[str, Any] = {
        "-i": "images of your own (with a model), or predictions with their probabilities",
        "--allow-training-cases": "with images of your own: also take cases that the folds were trained on",
        "-form": {"metavar": "FORM", "choices": forms, "default": "auto", "help": form},
        "-o": {
            "metavar": "MAP",
            "help": "file of the map (default: calibration_map.json in the folder of the model or -i)",
        },
        "-map": "fit nothing: use this map, fitted elsewhere, for the model",
    }
    options.add_options(parser, groups, changes)


def run(args: argparse.Namespace) -> int:
    """Calibrates; exit status 1 if some cases could not be used."""
    from nnunet_nacl.calibrator.map_file import MAP_FILE
    from nnunet_nacl.cli.calibration_text import calibration_text, verdict
    from nnunet_nacl.commands.calibrate import CalibrationOptions, calibrate_model
    from nnunet_nacl.files import check_ours
    from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
    from nnunet_nacl.quality.flags import Flags

    processes = options.number_of_processes(args.np)
    model = _model(args)
    if args.map and model:
        return _take_given(args, model)
    output = Path(args.o) if args.o else (model or Path(args.i)) / MAP_FILE
    check_ours([output.with_suffix(".png")])
    bad, files = None, {"dataset_json": args.djfile, "plans": args.pfile}
    if args.bad or args.structures:
        folder = PredictionFolder.open(model or args.i, need_reference=False, **files)
        bad = options.bad_of(args, folder.labels.structures)
    network = options.network_of(args)
    settings = CalibrationOptions(
        images=args.i,
        labels=args.gt,
        output=output,
        folds=args.f,
        checkpoint=args.chk,
        form=args.form,
        groups=args.groups,
        num_processes=processes,
        any_age=args.any_age,
        training_cases=args.allow_training_cases,
        device=network.device,
        step_size=network.step_size,
        mirroring=network.mirroring,
        **files,
    )
    record = calibrate_model(model, settings)
    flags = Flags.of(record.learned.scores, bad, record.names) if record.learned and bad else None
    print(calibration_text(record, flags))
    for note in record.origin.notes:
        print(f"note: {note}")
    print(f"written: {output}   (every number)")
    drawn = True
    if learned := record.learned:
        from nnunet_nacl.reports.flag_figure import draw_flags

        try:
            curves = {flags.called_bad: bad} if flags and bad else None
            recall = {record.names[key]: its for key, its in record.quality.recall.items()} if record.quality else {}
            print(f"figure: {draw_flags(learned.scores, recall, output.with_suffix('.png'), curves)}")
        except UserError as error:  # of a full disk: the map is whole
            drawn = False
            _LOG.error("nnunet_nacl calibrate: the map is written, its figure is not: %s", error)
    print(verdict(record))
    options.report_problems("calibrate", record.origin.problems, "cases could not be used")
    return 0 if drawn and not record.origin.problems else 1


def _model(args: argparse.Namespace) -> Path | None:
    """Folder of the model, None for predictions alone; UserError where the options do not fit."""
    if args.d is None and args.m is None and args.i is None:
        raise UserError("name a model (-d DATASET -c CONFIGURATION) or give a folder (-i FOLDER -gt LABELS).")
    if args.i is not None and args.gt is None and not args.map:
        raise UserError("-i needs -gt LABELS, the ground truth of these cases.")
    if args.m is not None and (args.d is not None or args.i is None):
        raise UserError("-m FOLDER goes with -i IMAGES, without -d; a model's own validation cases need -d and -c.")
    if args.m is None and args.d is None:
        if args.map:
            raise UserError("-map goes with a model (-d); for a folder: `nnunet_nacl review -map`.")
        return None
    return options.model_of(args)


def _take_given(args: argparse.Namespace, model: Path) -> int:
    """Take a map for a model, which may have come from another site: without validation folders."""
    from nnunet_nacl.calibrator.calibrator import Calibrator
    from nnunet_nacl.calibrator.map_file import MAP_FILE, check_output_map
    from nnunet_nacl.files import write_atomically
    from nnunet_nacl.nnunet.trained_model import TrainedModel

    if others := [f"-{name}" for name in ("i", "gt", "groups", "o", "bad", "structures") if getattr(args, name)]:
        raise UserError(f"-map FILE is taken as the model's own map, and fits nothing: leave out {', '.join(others)}.")
    given = Path(args.map)
    Calibrator.of_model(TrainedModel.open(model, args.f, args.chk), given)  # refuses that of other networks
    check_output_map(model / MAP_FILE)
    write_atomically(model / MAP_FILE, given.read_text(encoding="utf-8"))
    print(f"written: {model / MAP_FILE}")
    return 0
