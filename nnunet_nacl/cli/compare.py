"""`nnunet_nacl compare`: compares models or predictions on the same cases."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from functools import partial
from pathlib import Path

from nnunet_nacl.cli.options import (
    COUNTED_FINDINGS,
    OptionSettings,
    add_options,
    fill_paragraphs,
    number_of_processes,
    print_not_counted,
    report_problems,
    settings_from,
)
from nnunet_nacl.settings import ComparisonSettings
from nnunet_nacl.utilities.errors import UserError

HELP = (
    "compare trainers, ensembles or any predictions on the same cases: tables, statistics and"
    " figures"
)

_DESCRIPTION = """\
Compares methods on the same cases: how well they segment, and how far their confidence can be
trusted. The first method is the reference; tests, intervals and one page show how the others
differ from it. A method is a trained model (-tr) or a folder of predictions (-i); what was not
measured yet is measured first. LABEL= before it names it in all tables.
"""

_EPILOG = """\
examples:
  nnunet_nacl compare -d 4 -c 2d -tr nnUNetTrainer Ours=nnUNetTrainerNACL \
nnUNetTrainer+calibrated -o comparison
  nnunet_nacl compare -i A=test_a B=test_b -gt labelsTs -o test
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.usage = (
        "%(prog)s [-d DATASET -c CONFIGURATION -tr TRAINER ...] [-i FOLDER ...] -o FOLDER [options]"
    )
    parser.description = fill_paragraphs(_DESCRIPTION)
    parser.epilog = fill_paragraphs(_EPILOG)
    groups = {
        "the methods": "-tr -d -c -p -f -i -gt -djfile -pfile -unranked",
        "the cases": "-groups --allow-missing --allow-training-cases",
        "what to measure": "-bad -structures -findings",
        "the output, and how to run": "-o -np --trust_checkpoint --quiet",
    }

    several: OptionSettings = {"nargs": "+", "action": "extend"}
    changes: dict[str, str | OptionSettings] = {
        "-tr": _methods_option(
            "-tr",
            "[LABEL=]NAME or [LABEL=]MODEL_FOLDER; behind it +tuned: its checkpoint_tuned.pth, and"
            " +calibrated: as its map calibrates it",
        ),
        "-i": _methods_option("-i", "[LABEL=]FOLDER of predictions with their probabilities"),
        "-d": {**several, "help": "data sets: their names or numbers; not needed for -i alone"},
        "-gt": {
            "type": Path,
            "help": "folder with the ground truth of -i (default: nnU-Net's own)",
        },
        "-unranked": {
            **several,
            "metavar": "LABEL",
            "help": "methods that are shown, but not tested",
        },
        "-findings": COUNTED_FINDINGS,
        "-groups": (
            "patient of each case: .json file or regular expression (default: as the models' maps"
            " say)"
        ),
        "--allow-missing": {
            "action": "store_true",
            "help": "compare the folds and cases that all have, with a note",
        },
        "--allow-training-cases": "compare cases that networks were trained on, with a note",
        "-o": {"required": True},
    }
    add_options(parser, groups, changes)


def _methods_option(flag: str, text: str) -> OptionSettings:
    """An option whose values go, with its flag, into the one list of methods, which keeps their
    order."""
    return {
        "nargs": "+",
        "action": "extend",
        "dest": "methods",
        "default": [],
        "type": partial(_pair_with_flag, flag),
        "help": text,
    }


def _pair_with_flag(flag: str, text: str) -> tuple[str, str]:
    return flag, text


def run(args: argparse.Namespace) -> int:
    """Compares; the exit status is 0, 1 where the page alone could not be made, or 2 through
    UserError."""
    _check_options(args)
    from nnunet_nacl.cli.comparison_text import comparison_text
    from nnunet_nacl.comparison.compare import compare_methods
    from nnunet_nacl.comparison.methods import read_method
    from nnunet_nacl.comparison.output_folder import PAGE_NAME

    options = settings_from(
        ComparisonSettings,
        args,
        datasets=args.d or (),
        configuration=args.c or "",
        unranked=args.unranked or (),
        num_processes=number_of_processes(args.np),
    )
    methods = [read_method(text, flag == "-tr") for flag, text in args.methods]
    result = compare_methods(methods, options, None if args.o is None else Path(args.o))
    for comparison in result.comparisons:
        print_not_counted(args, comparison.bad, comparison.structures)
    print(comparison_text(result))
    written = result.write(command=shlex.join(["nnunet_nacl", *args.argv]))
    tables = f"{written.num_tables} tables in {written.folder / 'tables'}"
    figures = f"{written.num_figures} figures in {written.folder / 'figures'}"
    print(f"\nwritten: {written.document}, {tables}, {figures}")
    if written.page is None:
        report_problems("compare", {PAGE_NAME: written.why_no_page or ""})
        return 1
    print(f"page: {written.page} ({written.page.stat().st_size / 1e6:.1f} MB)")
    return 0


def _check_options(args: argparse.Namespace) -> None:
    """UserError for what is missing, before anything heavy is loaded."""
    if len(args.methods) < 2:
        raise UserError(
            "a comparison needs at least two: -d DATASET -c CONFIGURATION -tr TRAINER TRAINER, -tr"
            " MODEL_FOLDER MODEL_FOLDER, or -i PREDICTIONS PREDICTIONS -gt LABELS."
        )
    trainers = []
    for flag, text in args.methods:
        name = text.partition("=")[2] or text
        path = re.sub(r"(\+tuned)?(\+calibrated)?$", "", name)
        if flag == "-tr" and os.sep not in path and not os.path.isdir(path):
            trainers.append(path)
    if trainers and not (args.d and args.c):
        raise UserError(
            f"-tr {trainers[0]} is found by its data set and configuration: add -d DATASET -c"
            " CONFIGURATION, such as -d 4 -c 3d_fullres, or give the folders of the models."
        )
