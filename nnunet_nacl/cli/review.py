"""`nnunet_nacl review`: lists the cases to check from saved predictions, and reads a reader's marks
back."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from nnunet_nacl.cli.options import (
    FLAGS,
    OptionSettings,
    add_options,
    exit_status,
    fill_paragraphs,
    number_of_processes,
    print_not_counted,
    report_problems,
    settings_from,
    whole_number,
    work_can_be_stopped,
)
from nnunet_nacl.settings import ListSettings, Output
from nnunet_nacl.utilities.errors import UserError

HELP = (
    "list the cases to look at first, from saved predictions; see what a reader's marks say of the"
    " flags"
)

_DESCRIPTION = """\
Has two uses. With -i it makes the list of cases to look at first, as `nnunet_nacl predict` does,
from predictions that were saved with their probabilities. With -back it reads what came of a
list: a reader's marks, and corrected labels.
"""

_EPILOG = """\
examples:
  nnunet_nacl review -i predictions -o reviewed -map calibration_map.json -bad 0.8 -maps
  nnunet_nacl review -back out -marks marks.csv -corrected corrected
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.usage = (
        "%(prog)s -i PREDICTIONS -o OUT [options]\n       %(prog)s -back OUT [-marks FILE ...]"
        " [-corrected FOLDER]"
    )
    parser.description = fill_paragraphs(_DESCRIPTION)
    parser.epilog = fill_paragraphs(_EPILOG)
    groups = {
        "make a list from saved predictions": "-i -o -map -djfile -pfile",
        "make a list: which cases to flag": f"{FLAGS} -also",
        "make a list: what else to write": (
            "-pages -maps -recall -findings --slicer --save_probabilities"
        ),
        "make a list: how to run": "-np --trust_checkpoint --quiet --overwrite",
        "see what came of a list": "-back -marks -corrected",
    }
    marks = (
        "marks saved by the pages, or annotations.csv of SegmentationReview; the last one counts"
    )
    corrected = "corrected labels of some scans, named like the predictions"
    changes: dict[str, str | OptionSettings] = {
        "-i": {"metavar": "PREDICTIONS"},
        "-o": {
            "metavar": "OUT",
            "help": "output folder: open index.html there; not inside a folder of predictions",
        },
        "-map": (
            "calibration_map.json, which calibrates the probabilities and predicts Dice and volumes"
        ),
        "-back": {
            "metavar": "OUT",
            "type": Path,
            "help": "folder of a list; outcome.html there shows the outcome",
        },
        "-maps": "confidence, entropy (no name: these two), probabilities",
        "-marks": {
            "nargs": "+",
            "type": Path,
            "action": "extend",
            "default": [],
            "metavar": "FILE",
            "help": marks,
        },
        "-corrected": {"metavar": "FOLDER", "type": Path, "help": corrected},
    }
    add_options(parser, groups, changes)


def run(args: argparse.Namespace) -> int:
    """Reviews; exit status 1 if some cases could not be done."""
    if bool(args.back) == bool(args.i):
        raise UserError(
            "give -i PREDICTIONS, to make a list, or -back OUT, to see what came of one."
        )
    if bool(args.back) != bool(args.marks or args.corrected):
        raise UserError(
            "-back OUT, the folder of a list, goes with -marks marks.csv, which its pages save, or"
            " -corrected FOLDER, of corrected labels, or both."
        )
    if args.back:
        if args.o:
            raise UserError("-back writes into its own folder; leave out -o.")
        return _back(args)
    if not args.o:
        raise UserError("give -o FOLDER.")
    return _review(args)


def _back(args: argparse.Namespace) -> int:
    """See what came of a list; exit status 1 where the page alone could not be made."""
    from nnunet_nacl.worklist.list_files import OUTCOME_PAGE
    from nnunet_nacl.worklist.outcome.text import outcome_lines
    from nnunet_nacl.worklist.review import read_back

    result = read_back(args.back, args.marks, args.corrected)
    written = result.write()
    print(*outcome_lines(result.outcome), sep="\n")
    if written.page is None:
        print(f"written: {written.document}")
        report_problems("review", {OUTCOME_PAGE: written.why_no_page or ""})
        return 1
    print(f"written: {written.document}, {written.page}")
    return 0


def _review(args: argparse.Namespace) -> int:
    """Make a list; exit status 1 if some cases could not be done."""
    from nnunet_nacl.cli.list_text import delivered_text
    from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
    from nnunet_nacl.worklist.review import review_folder

    output = settings_from(
        Output,
        args,
        num_processes=number_of_processes(args.np),
        command=shlex.join(["nnunet_nacl", *args.argv]),
    )
    also = whole_number(args.also, "-also", "", 1) or 0
    wanted = settings_from(ListSettings, args, also=also)
    with work_can_be_stopped("case"):
        folder = PredictionFolder.open(
            args.i,
            dataset_json=args.djfile,
            plans=args.pfile,
            need_reference=False,
            need_probabilities=True,
        )
        delivered = review_folder(folder, wanted, output, args.map)
    print_not_counted(args, delivered.bad, delivered.structure_names)
    print(delivered_text(delivered, "case", with_slicer=args.slicer))
    problems = {**delivered.failed, **delivered.lost_pages}
    report_problems("review", problems)
    return exit_status(problems)
