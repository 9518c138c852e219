"""`nnunet_nacl review`: lists the cases to check from saved predictions, and reads a reader's marks back."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_nacl.cli.options import FLAGS, add_options, number_of_processes, report_problems
from nnunet_nacl.errors import UserError

HELP = "list the cases to look at first, from saved predictions; see what a reader's marks say of the flags"

_SEVERAL: dict[str, Any] = {"nargs": "+", "type": Path, "action": "extend", "default": []}
_DESCRIPTION = """\
Has two uses. With -i it makes the list of cases to look at first, as `nnunet_nacl predict` does, from predictions that
were saved with their probabilities. With -back it reads what came of a list: a reader's marks, and corrected labels.
"""

_EPILOG = """\
examples:
  nnunet_nacl review -i predictions -o reviewed -map calibration_map.json -bad 0.8 -maps
  nnunet_nacl review -back out -marks marks.csv -corrected corrected
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.usage = (
        "%(prog)s -i PREDICTIONS -o OUT [options]\n       %(prog)s -back OUT [-marks FILE ...] [-corrected FOLDER]"
    )
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    groups = {
        "make a list from saved predictions": "-i -o -map -djfile -pfile",
        "make a list: which cases to flag": f"{FLAGS} -also",
        "make a list: what else to write": "-pages -maps -recall -findings --slicer --save_probabilities",
        "make a list: how to run": "-np --trust_checkpoint --quiet --overwrite",
        "see what came of a list": "-back -marks -corrected",
    }
    marks = "marks saved by the pages, or annotations.csv of SegmentationReview; the last one counts"
    corrected = "corrected labels of some scans, named like the predictions"
    changes: dict[str, Any] = {
        "-i": {"metavar": "PREDICTIONS"},
        "-o": {"metavar": "OUT", "help": "output folder: open index.html there; not inside a folder of predictions"},
        "-map": "calibration_map.json, which calibrates the probabilities and predicts Dice and volumes",
        "-back": {"metavar": "OUT", "type": Path, "help": "folder of a list; outcome.html there shows the outcome"},
        "-maps": "confidence, entropy (no name: these two), probabilities",
        "-marks": {**_SEVERAL, "metavar": "FILE", "help": marks},
        "-corrected": {"metavar": "FOLDER", "type": Path, "help": corrected},
    }
    add_options(parser, groups, changes)


def run(args: argparse.Namespace) -> int:
    """Reviews; exit status 1 if some cases could not be done."""
    if bool(args.back) == bool(args.i):
        raise UserError("give -i PREDICTIONS, to make a list, or -back OUT, to see what came of one.")
    if bool(args.back) != bool(args.marks or args.corrected):
        raise UserError("-back OUT, the folder of a list, goes with -marks FILE or -corrected FOLDER, or both.")
    if bool(args.back) == bool(args.o):
        raise UserError("give -o FOLDER." if args.o is None else "-back writes into its own folder; leave out -o.")
    if args.back:
        return _back(args.back, args.marks, args.corrected)
    return _review(args)


def _back(output: Path, marks: Sequence[Path], corrected: Path | None) -> int:
    from nnunet_nacl.files import check_ours, to_json_text, write_atomically
    from nnunet_nacl.json_files import encode
    from nnunet_nacl.reports.rendering import write_page
    from nnunet_nacl.worklist.list_files import OUTCOME, OUTCOME_PAGE
    from nnunet_nacl.worklist.outcome import outcome_lines, outcome_page, read_outcome

    check_ours([output / OUTCOME, output / OUTCOME_PAGE])
    outcome = read_outcome(output, marks, corrected)
    write_atomically(output / OUTCOME, to_json_text(encode(outcome)))
    reason = write_page(output / OUTCOME_PAGE, partial(outcome_page, outcome))
    print(*outcome_lines(outcome), sep="\n")
    if reason is None:
        print(f"written: {output / OUTCOME}, {output / OUTCOME_PAGE}")
        return 0
    print(f"written: {output / OUTCOME}")
    report_problems("review", {OUTCOME_PAGE: reason})
    return 1


def _review(args: argparse.Namespace) -> int:
    from nnunet_nacl.calibrator.calibrator import Calibrator
    from nnunet_nacl.cli.review_text import deliver_as_asked, work_of
    from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
    from nnunet_nacl.worklist.sources import review_run

    processes = number_of_processes(args.np)
    folder = PredictionFolder.open(args.i, dataset_json=args.djfile, plans=args.pfile, need_reference=False)
    calibrator = Calibrator(missing=("give the map that predicts it, -map.",))
    if args.map:
        calibrator = Calibrator.of_folder(Path(args.map), folder)
    delivery = work_of(args, folder, calibrator)
    run = review_run(folder, calibrator)
    images = {name: folder.image(name) for name in folder.names if args.slicer}
    return deliver_as_asked(args, folder, delivery, run, images, title="review", jobs=processes)
