"""Options that several commands share, with the same meaning in each, and their checks."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_nacl.errors import UserError, list_problems, one_line, some

if TYPE_CHECKING:
    from nnunet_nacl.numbers.flags import Flags
    from nnunet_nacl.review.predicted_quality import QualityOfMap
    from nnunet_nacl.review.review_list import ReviewList


def _option(metavar: str, text: str, **more: Any) -> dict[str, Any]:
    return {"metavar": metavar, "help": text, **more}


_BAD = "a scan is bad below this Dice of a structure, or STRUCTURE=DICE (default: none)"
_COUNT = "with -bad: the structures that count (default: all that -bad says something of)"
_ALSO = "choose N scans by chance that are not flagged: they tell how many bad ones remain"
_SLICER = "write what the 3D Slicer extension SegmentationReview reads into OUT/review"
_RECALL = "also write labels that find this share of each structure's voxels: OUT/sensitive"
_PARTS = "structures listed by parts in findings.csv (no name: all; default: the map's)"
_PAGES = "scans with a page: flagged (and the ten next), all or none (default: %(default)s)"
_ABOVE = "of predictions (default: in their folder or up to two levels above"
_STEP = "step of the networks' window, as a share of the patch (default: %(default)s)"
_PATIENTS = "patient of each case: .json or a regular expression (default: its own, or as maps tell)"
_AT_A_TIME = "cases at the same time (default: nnUNet_def_n_proc, or the CPU cores, at most 8)"
_SWITCH = {"action": "store_true"}
_SHARED: dict[str, dict[str, Any]] = {
    "-d": _option("DATASET", "data set, name or number"),
    "-tr": _option("TRAINER", "default: %(default)s", default="nnUNetTrainer"),
    "-p": _option("PLANS", "default: %(default)s", default="nnUNetPlans"),
    "-c": _option("CONFIGURATION", "2d, 3d_fullres, ..."),
    "-f": _option(
        "FOLD", "folds 0 to 4, or all for fold_all (default: all that are there)", nargs="+", action="extend"
    ),
    "-m": _option("FOLDER", "the model's folder, TRAINER__PLANS__CONFIGURATION, instead of -d and -c"),
    "-djfile": _option("FILE", f"dataset.json {_ABOVE})", type=Path),
    "-pfile": _option("FILE", f"plans.json {_ABOVE})", type=Path),
    "-device": {
        "choices": ("auto", "cuda", "mps", "cpu"),
        "default": "auto",
        "help": "for networks (default: the first that there is)",
    },
    "-step_size": _option("S", _STEP, type=float, default=0.5),
    "--disable_tta": {"help": "no mirroring: faster; calibration was fitted with it", **_SWITCH},
    "-groups": _option("FILE|REGEX", _PATIENTS),
    "-bad": _option("DICE", _BAD, nargs="+", action="extend"),
    "-find": _option("SHARE", "with -bad: share of the bad scans to be flagged (default: 0.9)", type=float),
    "-miss": _option("SHARE", "with -bad: share of all scans that may be bad and not flagged", type=float),
    "-structures": _option("NAME", _COUNT, nargs="+"),
    "-also": _option("N", _ALSO, type=int),
    "--slicer": {"help": _SLICER, **_SWITCH},
    "-recall": _option("SHARE", _RECALL, type=float),
    "-findings": _option("STRUCTURE", _PARTS, nargs="*"),
    "-pages": _option("WHICH", _PAGES, choices=("flagged", "all", "none"), default="flagged"),
    "-np": _option("N", _AT_A_TIME, type=int),
    "--quiet": {"help": "no progress bars: print errors and the last line only", **_SWITCH},
    "--trust_checkpoint": {"help": "load all that checkpoints hold, and call what plans.json names", **_SWITCH},
}
MODEL = ("-d", "-tr", "-p", "-c", "-f")
NETWORK = ("-device", "-step_size", "--disable_tta")


def add_shared(parser: Any, *flags: str, **changes: Any) -> None:
    """Adds options of the table above to the parser of a subcommand, or to a group of it; keywords replace theirs."""
    for flag in flags:
        parser.add_argument(flag, **_SHARED[flag] | changes)


def model_of(args: argparse.Namespace) -> Path:
    """The folder of the model that ``-m``, or ``-d -tr -p -c``, name; UserError where there is none such."""
    from nnunet_nacl.nnunet.prediction_folder import model_folder

    if getattr(args, "m", None) is not None:
        return Path(args.m)
    if args.c is None:
        raise UserError("-d needs -c CONFIGURATION, such as -c 3d_fullres.")
    return model_folder(args.d, args.tr, args.p, args.c)


def network_of(args: argparse.Namespace) -> dict[str, Any]:
    """How networks predict, by :data:`NETWORK`."""
    from nnunet_nacl.nnunet.predicted import find_device

    return {"device": find_device(args.device), "step_size": args.step_size, "mirroring": not args.disable_tta}


def add_flags(parser: Any) -> None:
    """Adds the options of a review list that say which scans are flagged."""
    add_shared(parser, "-bad", "-find", "-miss", "-structures", "-also", "--slicer")


def bad_of(args: argparse.Namespace, names: Mapping[str, str]) -> dict[str, float] | None:
    """What ``-bad`` calls bad, by nnU-Net's key, of structures with these names; prints which of them do not count."""
    from nnunet_nacl.numbers.flags import parse_bad, read_bad

    if not args.bad:
        for flag in ("find", "miss", "structures"):
            if getattr(args, flag, None) is not None:
                raise UserError(f"-{flag} goes with -bad, the Dice below which a scan is bad, such as -bad 0.7.")
        return None
    bad = read_bad(parse_bad(args.bad), names, args.structures)
    if others := [name for key, name in names.items() if key not in bad]:
        flag, verb = "-structures" if args.structures else "-bad", "does" if len(others) == 1 else "do"
        counted = some([names[key] for key in bad])
        print(one_line(f"note: {some(others)} {verb} not count: {flag} names {counted} alone."))
    return bad


def flags_of(
    args: argparse.Namespace, names: Mapping[str, str], quality: QualityOfMap | None, unknown: str = ""
) -> Flags | None:
    """What ``-bad``, ``-find``, ``-miss`` and ``-structures`` ask for; ``unknown``: why nothing is known of Dice."""
    from nnunet_nacl.numbers.flags import Flags, share_of

    if (bad := bad_of(args, names)) is None:
        return None
    find, miss = share_of(args.find, "-find"), share_of(args.miss, "-miss")
    if quality is None:
        raise UserError(f"-bad: nothing is known of Dice: {unknown}")
    return Flags.of(quality.learned.scores, bad, names, find, miss)


def write_for_slicer(output: Path, listed: ReviewList, images: Mapping[str, Path], ending: str) -> None:
    """What ``--slicer`` asks for, in the order of the list; prints what to open."""
    from nnunet_nacl.review.list_files import PAGES
    from nnunet_nacl.review.slicer import TO_EDIT, write_mapping

    folder = output / PAGES
    kept = write_mapping(folder, output, {case: images[case] for case in listed.scans.index}, ending)
    print(f"3D Slicer: open {folder} in SegmentationReview")
    if kept:
        print(f"note: {folder / TO_EDIT} keeps {len(kept)} masks of an earlier run; remove it to have them made anew.")


def number_of_processes(given: int | None) -> int:
    """The value of ``-np``, or the default: nnUNet_def_n_proc, or the cores that this process may use, at most 8."""
    number = whole_number(given, "-np", "nnUNet_def_n_proc", 1)
    if number is not None:
        return number
    from joblib import cpu_count  # which takes long to load

    return min(cpu_count(), 8)


def whole_number(given: int | None, flag: str, variable: str, least: int) -> int | None:
    """The value of a flag, else of one of nnU-Net's environment variables, at least ``least``; None without either."""
    source, text = (variable, os.environ.get(variable)) if given is None else (flag, str(given))
    if text is None:
        return None
    try:
        number = int(text)
    except ValueError:  # as nnU-Net reads it
        raise UserError(f"{source} must be a whole number of at least {least}, got {text!r}.") from None
    if number < least:
        raise UserError(f"{source} must be at least {least}, got {number}.")
    return number


def check_environment() -> None:
    """UserError where nnU-Net could not be imported: it takes these variables for numbers."""
    for variable, least in (("nnUNet_def_n_proc", 1), ("nnUNet_n_proc_DA", 0)):
        whole_number(None, "", variable, least)


def report_problems(subcommand: str, problems: Mapping[str, str], what: str = "could not be done") -> None:
    """Lists the problems of cases on stderr under their number and ``what``; nothing if there are none."""
    if listed := list_problems(problems):
        logging.getLogger(__name__).error("\nnnunet_nacl %s: %d %s:%s", subcommand, len(problems), what, listed)
