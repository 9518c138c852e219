"""`nnunet_nacl tune`: learns where to cut, and writes the network that cuts there."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nnunet_nacl.cli import options
from nnunet_nacl.settings import TUNED, GivenCases, NetworkSettings, TuneSettings

if TYPE_CHECKING:
    from nnunet_nacl.calibration.tune import TuneResult

HELP = "learn the threshold of each structure that gives the best Dice, as a network of its own"

_DESCRIPTION = f"""\
Labels are nnU-Net's argmax, which fits networks that were trained with a Dice term. After another
loss the best place to cut is another one. This finds, for each structure, what added to its logit
gives the highest mean Dice on cases that the networks were not trained on: a model's validation
cases, or images of your own (-i -gt). What it changes is measured on other patients than it was
chosen on; where the 95 % interval of the gain reaches 0, argmax stays.

Each fold gets {TUNED} beside its final checkpoint, the same network with another bias in
its last layer, for -chk of `nnUNetv2_predict` and every command here. It is less calibrated: run
`nnunet_nacl calibrate ... -chk {TUNED}` next.
"""

_EPILOG = """\
examples:
  nnunet_nacl tune -d 31 -c 2d -tr nnUNetTrainerNACL
  nnunet_nacl tune -d 28 -c 2d -tr nnUNetTrainerCE -threshold Infarct=0.3
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.usage = (
        "%(prog)s -d DATASET -c CONFIGURATION [-tr TRAINER] [-i FOLDER -gt LABELS] [options]"
    )
    parser.description = options.fill_paragraphs(_DESCRIPTION)
    parser.epilog = options.fill_paragraphs(_EPILOG)
    groups = {
        "the model": f"{options.MODEL} -m -chk",
        "the cases": "-i -gt -groups --allow-training-cases --any_age",
        "the decision": "-structures -metric -threshold",
        "how to run": f"{options.NETWORK} -np --trust_checkpoint --quiet",
    }
    changes: dict[str, str | options.OptionSettings] = {
        "-i": "images of your own, which all folds predict, in place of the validation cases",
        "-gt": "folder with their ground truth",
        "--allow-training-cases": (
            "with images of your own: also take cases that the folds were trained on"
        ),
        "-structures": options.setting(TuneSettings, "structures", "NAME"),
        "-metric": options.setting(
            TuneSettings,
            "metric",
            "METRIC",
            choices=("dice", "present"),
            text="dice: nnU-Net's mean (default); present: of cases whose truth has the structure",
        ),
        "-threshold": options.setting(
            TuneSettings,
            "thresholds",
            "NAME=P",
            nargs="+",
            text="cut these structures at probabilities of your own; nothing is measured",
        ),
    }
    options.add_options(parser, groups, changes)


def run(args: argparse.Namespace) -> int:
    """Tunes; exit status 1 if some cases could not be used."""
    model = options.model_of(args)
    num_processes = options.number_of_processes(args.np)
    from nnunet_nacl.calibration.tune import tune_networks

    with options.work_can_be_stopped("case"):
        result = tune_networks(
            options.settings_from(GivenCases, args, model=model, images=args.i, labels=args.gt),
            options.settings_from(NetworkSettings, args),
            options.settings_from(TuneSettings, args, num_processes=num_processes),
        )
    written = result.write()
    _print_result(result, [str(path) for path in written], args)
    options.report_problems("tune", result.failed, "cases could not be used")
    return options.exit_status(result.failed)


def _print_result(result: TuneResult, written: list[str], args: argparse.Namespace) -> None:
    """What the biases change, where the networks lie, and in the last line what to do next."""
    from nnunet_nacl.cli.tuning_text import tuning_text
    from nnunet_nacl.utilities.command_lines import calibrate_command

    print(tuning_text(result, written))
    if written:
        folder = result.model.folder
        print(f"next: {calibrate_command(folder, TUNED, folds=args.f, groups=args.groups)}")
