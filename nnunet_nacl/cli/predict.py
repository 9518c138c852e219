"""`nnunet_nacl predict`: segments scans, and lists those that a human should check."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from nnunet_nacl.cli.options import (
    FLAGS,
    OptionSettings,
    add_options,
    exit_status,
    fill_paragraphs,
    model_of,
    print_not_counted,
    report_problems,
    settings_from,
    whole_number,
    work_can_be_stopped,
)
from nnunet_nacl.settings import ListSettings, NetworkSettings, Output, ScanSettings

HELP = "predict scans and list those to look at first"

_DESCRIPTION = """\
Segments scans as nnUNetv2_predict does and, in the same pass, lists the scans that a human should
check, and where.
example: nnunet_nacl predict -i scans -o out -d 4 -c 3d_fullres -bad 0.7
"""

_EPILOG = """\
These mean the same as in nnUNetv2_predict: -p, -step_size, -prev_stage_predictions, -npp, -nps,
-part_id, --not_on_device, --verbose, and -chk, the file of the network in each fold
(default: checkpoint_final.pth).
"""
_HIDDEN = "-p -chk -step_size -prev_stage_predictions -npp -nps -part_id --not_on_device --verbose"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments: nnUNetv2_predict's, with the same meaning, and ours."""
    parser.usage = "%(prog)s -i SCANS -o OUT (-d DATASET -c CONFIGURATION | -m FOLDER) [options]"
    parser.description = fill_paragraphs(_DESCRIPTION)
    parser.epilog = fill_paragraphs(_EPILOG)
    groups = {
        "the scans and the model": "-i -o -d -c -tr -f -m -map -orientation",
        "which scans to flag": f"{FLAGS} -unlike -groups -also",
        "what else to write": "-pages -maps -recall -findings --slicer --save_probabilities -codes",
        "how to run": (
            "-device --disable_tta --any_size -num_parts --trust_checkpoint --quiet --overwrite"
        ),
        # finished scans are kept anyway, and --quiet shows no progress bar either
        argparse.SUPPRESS: f"{_HIDDEN} --continue_prediction --disable_progress_bar",
    }
    codes = 'for DICOM: a .json file, {"liver": {"code": "10200004", "meaning": "Liver"}}'
    parts = "share the scans among N runs, each with another -part_id: 0, 1, ... (default: 1)"
    axes = "for DICOM: axes of the training images (default: as in nnUNet_preprocessed)"
    changes: dict[str, str | OptionSettings] = {
        "-i": {
            "metavar": "SCANS",
            "required": True,
            "help": "folder of images, SCAN_0000.nii.gz, or of DICOM series",
        },
        "-o": {"metavar": "OUT", "required": True, "help": "output folder: open index.html there"},
        "-orientation": {"metavar": "XYZ", "default": "", "help": axes},
        "-codes": {"metavar": "FILE", "help": codes},
        "--any_size": {
            "action": "store_true",
            "help": "also predict scans far larger or smaller than the training's",
        },
        "-num_parts": {"metavar": "N", "type": int, "default": 1, "help": parts},
        "-chk": {"default": None},
        "-prev_stage_predictions": {},
        "-part_id": {"type": int, "default": 0},
    }
    for flag in ("-npp", "-nps"):
        changes[flag] = {"type": int}
    switches = "--not_on_device --verbose --continue_prediction --disable_progress_bar"
    for flag in switches.split():
        changes[flag] = {"action": "store_true"}
    add_options(parser, groups, changes)


def run(args: argparse.Namespace) -> int:
    """Predicts; exit status 1 if some scans could not be done."""
    model = model_of(args)
    from nnunet_nacl.cli.list_text import delivered_text
    from nnunet_nacl.nnunet.predicted import on_present_device
    from nnunet_nacl.worklist.predict import predict_scans

    reading = settings_from(
        ScanSettings,
        args,
        num_readers=_processes(args, "npp"),
        num_exporters=_processes(args, "nps"),
    )
    network = on_present_device(settings_from(NetworkSettings, args))
    _set_threads(network.device)
    also = whole_number(args.also, "-also", "", 1) or 0
    with work_can_be_stopped("scan"):
        delivered = predict_scans(
            model,
            Path(args.i),
            network=network,
            wanted=settings_from(ListSettings, args, also=also),
            reading=reading,
            writing=settings_from(Output, args, command=shlex.join(["nnunet_nacl", *args.argv])),
            calibration_map=args.map,
        )
    print_not_counted(args, delivered.bad, delivered.structure_names)
    if args.m:
        print(
            "note: a model can hold code, which nnU-Net's own commands run: take models from people"
            " that you trust."
        )
    print(delivered_text(delivered, "scan", with_slicer=args.slicer))
    problems = {**delivered.failed, **delivered.lost_pages}
    report_problems("predict", problems)
    return exit_status(problems)


def _processes(args: argparse.Namespace, name: str) -> int:
    """Value of ``-npp`` or ``-nps``, by default as nnUNetv2_predict has it."""
    number = whole_number(getattr(args, name), f"-{name}", f"nnUNet_{name}", 0)
    if number is None:
        return 3
    return number


def _set_threads(device: str) -> None:
    """As nnUNetv2_predict; but OMP_NUM_THREADS, which PyTorch has read, holds: the run may share
    its cores."""
    import multiprocessing

    import torch

    if device != "cpu":
        torch.set_num_threads(1)
    elif not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(multiprocessing.cpu_count())
