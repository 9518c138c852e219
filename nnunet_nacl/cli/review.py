"""`nnunet_nacl review`: lists the cases to check from saved predictions, and reads a reader's marks back."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_nacl.cli.options import add_flags, add_shared, number_of_processes
from nnunet_nacl.errors import UserError

HELP = "list the cases to look at first; calibrate saved predictions, write uncertainty maps"

_DESCRIPTION = """\
Lists the cases to look at first, from predictions with probabilities (nnUNetv2_predict --save_probabilities); a map of
`nnunet_nacl calibrate` calibrates them, and predicts Dice and volumes.
"""

_EPILOG = """\
examples:
  nnunet_nacl review -i predictions -o reviewed -map calibration_map.json -bad 0.8 -maps
  nnunet_nacl review -back out -marks marks.csv -corrected corrected
Research software, not for clinical use.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.usage = "%(prog)s (-i FOLDER | -back OUT) [-o FOLDER] [options]"
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    add = parser.add_argument
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("-i", metavar="FOLDER", help="predictions, with their probabilities")
    back = "what came of the flags in this folder: outcome.json, outcome.html"
    given.add_argument("-back", metavar="OUT", type=Path, help=back)
    marks = "with -back: marks of pages, or annotations.csv of SegmentationReview; the last counts"
    add("-marks", metavar="FILE", nargs="+", type=Path, action="extend", default=[], help=marks)
    add("-corrected", metavar="FOLDER", type=Path, help="with -back: corrected labels of some scans, named like theirs")
    add("-o", metavar="FOLDER", help="output folder, not inside a folder of predictions")
    add("-map", metavar="FILE", help="calibration_map.json: calibrate, and predict Dice and volumes")
    add("-maps", metavar="MAP", nargs="*", help="write maps: confidence, entropy (no name: these), probabilities")
    add_shared(parser, "-recall", "-findings", "-pages")
    add_flags(parser)
    add("--save_probabilities", action="store_true", help="save the probabilities (npz, pkl) too, to evaluate OUT")
    add_shared(parser, "-np", "-djfile", "-pfile", "--trust_checkpoint", "--quiet")
    add("--overwrite", action="store_true", help="do every case again (default: only what changed)")


def run(args: argparse.Namespace) -> int:
    """Reviews; exit status 1 if some cases could not be done."""
    answers = bool(args.marks or args.corrected)
    if bool(args.back) != answers:
        raise UserError("-back OUT, the folder of a list, goes with -marks FILE or -corrected FOLDER, or both.")
    if bool(args.back) == bool(args.o):
        raise UserError("give -o FOLDER." if args.o is None else "-back writes into its own folder; leave out -o.")
    if args.back:
        return _back(args.back, args.marks, args.corrected)
    return _review(args)


def _back(output: Path, marks: Sequence[Path], corrected: Path | None) -> int:
    from nnunet_nacl.files import check_ours, to_json_text, write_atomically
    from nnunet_nacl.json_files import encode
    from nnunet_nacl.review.list_files import OUTCOME, OUTCOME_PAGE
    from nnunet_nacl.review.outcome import outcome_lines, outcome_page, read_outcome

    check_ours([output / OUTCOME, output / OUTCOME_PAGE])
    outcome = read_outcome(output, marks, corrected)
    write_atomically(output / OUTCOME, to_json_text(encode(outcome)))
    write_atomically(output / OUTCOME_PAGE, outcome_page(outcome))
    print(*outcome_lines(outcome), f"written: {output / OUTCOME}, {output / OUTCOME_PAGE}", sep="\n")
    return 0


def _review(args: argparse.Namespace) -> int:
    from nnunet_nacl.cli.review_text import deliver_as_asked, work_of
    from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
    from nnunet_nacl.review.predicted_quality import check_same_networks, open_map
    from nnunet_nacl.review.sources import review_source

    processes, map_path = number_of_processes(args.np), Path(args.map) if args.map else None
    folder = PredictionFolder.open(args.i, dataset_json=args.djfile, plans=args.pfile, need_reference=False)
    note = check_same_networks(map_path, folder) if map_path else ""
    calibration, quality, why_not = open_map(map_path, folder) if map_path else (None, None, "")
    why_not = why_not or "give the map that predicts it, -map."
    delivery = work_of(args, folder, (calibration, quality, why_not))
    source, run = review_source(folder, map_path)
    run = replace(run, notes=[note] if note else [])
    images = {name: folder.image(name) for name in source.names if args.slicer}
    return deliver_as_asked(args, source, delivery, run, images, title="review", jobs=processes)
