"""Options that mean the same in every command that has them."""

from __future__ import annotations

import argparse
import os


def add_model(parser: argparse.ArgumentParser, *, required: bool = False, folds: str = "every fold present") -> None:
    """Adds ``-d -tr -p -c -f``, which name a trained model.

    Args:
        parser: Of the subcommand.
        required: Whether there is no other way to name what it works on.
        folds: What it takes without ``-f``, for the help.
    """
    add = parser.add_argument
    add("-d", metavar="DATASET", required=required, help="data set, name or number")
    add("-tr", metavar="TRAINER", default="nnUNetTrainer", help="default: %(default)s")
    add("-p", metavar="PLANS", default="nnUNetPlans", help="default: %(default)s")
    add("-c", metavar="CONFIGURATION", required=required, help="2d, 3d_fullres, ...")
    add("-f", metavar="FOLD", nargs="+", help=f"folds 0 to 4, or all for fold_all (default: {folds})")


def add_files(parser: argparse.ArgumentParser, where: str = "in the folder or up to two levels above") -> None:
    """Adds ``-djfile -pfile``.

    Args:
        parser: Of the subcommand.
        where: The files are looked for, for the help.
    """
    parser.add_argument("-djfile", metavar="FILE", help=f"dataset.json (default: {where})")
    parser.add_argument("-pfile", metavar="FILE", help="plans.json (default: there too; nnUNetv2_ensemble writes none)")


def add_inference(parser: argparse.ArgumentParser, what: str = "") -> None:
    """Adds ``-device -step_size --disable_tta``, as nnU-Net has them.

    Args:
        parser: Of the subcommand.
        what: The option that they belong to, for the help; empty where the whole command predicts.
    """
    before, add = f"with {what}: " if what else "", parser.add_argument
    add("-device", choices=("cuda", "cpu", "mps"), default="cuda", help=f"{before}default: %(default)s")
    window = f"{before}step of the window, as a share of the patch (default: %(default)s)"
    add("-step_size", metavar="S", type=float, default=0.5, help=window)
    add("--disable_tta", action="store_true", help=f"{before}no mirroring: faster; calibration was fitted with it")


def add_groups(parser: argparse.ArgumentParser, default: str = "its own") -> None:
    """Adds ``-groups``.

    Args:
        parser: Of the subcommand.
        default: Who the patients are without it, for the help.
    """
    groups = "patient of each case: .json, or a regular expression"
    parser.add_argument("-groups", metavar="FILE|REGEX", help=f"{groups} (default: {default})")


def add_decision(parser: argparse.ArgumentParser) -> None:
    """Adds ``-decide -beta``, see :func:`nnunet_nacl.io.treatment.beta_of`."""
    decide = "take the labels with the highest expected Dice, or F-beta (default: labels are kept)"
    parser.add_argument("-decide", choices=("dice", "fbeta"), help=decide)
    beta = "with -decide fbeta: weight of recall over precision (default: 2: finds more)"
    parser.add_argument("-beta", metavar="BETA", type=float, help=beta)


def add_threshold(
    parser: argparse.ArgumentParser,
    meaning: str = "a case is bad below this Dice",
    default: str = "0.8",
    nargs: int | str = "+",
) -> None:
    """Adds ``-threshold``.

    Args:
        parser: Of the subcommand.
        meaning: What holds below, for the help.
        default: What holds without it.
        nargs: 1 where the subcommand has arguments without a flag, which may follow.
    """
    single = "STRUCTURE=DICE for one"
    parser.add_argument(
        "-threshold", metavar="DICE", nargs=nargs, action="extend", help=f"{meaning}, or {single} (default: {default})"
    )


REASON_TO_LOOK = {
    "meaning": "look below this predicted Dice",
    "default": "the map's",
}
"""What ``-threshold`` means in a review list."""


def add_findings(parser: argparse.ArgumentParser) -> None:
    """Adds ``-findings``."""
    listed = "the map's"
    parser.add_argument(
        "-findings",
        metavar="STRUCTURE",
        nargs="*",
        help=f"structures listed by parts in findings.csv (no name: all; default: {listed})",
    )


def threshold_of(args: argparse.Namespace, unknown: str = "") -> dict[str, float]:
    """The values of ``-threshold`` as :mod:`nnunet_nacl.review.reasons` takes them; empty for the defaults.

    Args:
        args: Of the subcommand.
        unknown: Why Dice is not known.

    Raises:
        UserError: One is no Dice, or they were given where Dice is not known.
    """
    from nnunet_nacl.errors import UserError
    from nnunet_nacl.review.reasons import parse_thresholds

    given = parse_thresholds(args.threshold or ())
    if given and unknown:
        raise UserError(f"-threshold is about predicted Dice, of which nothing is known: {unknown}")
    return given


def add_trust(parser: argparse.ArgumentParser) -> None:
    """``--trust_checkpoint``, which :func:`nnunet_nacl.cli.main.main` heeds."""
    trust = "load all that checkpoints hold, and call whatever plans.json names"
    parser.add_argument("--trust_checkpoint", action="store_true", help=trust)


def add_processes(parser: argparse.ArgumentParser, what: str = "cases at the same time") -> None:
    """Adds ``-np``.

    Args:
        parser: Of the subcommand.
        what: What the number counts, for the help.
    """
    parser.add_argument(
        "-np", metavar="N", type=int, help=f"{what} (default: nnUNet_def_n_proc, or the CPU cores, at most 8)"
    )


def number_of_processes(given: int | None) -> int:
    """The value of ``-np``, or the default: nnUNet_def_n_proc, or the cores that this process may use, at most 8.

    Raises:
        UserError: The value is below 1.
    """
    number = whole_number(given, "-np", "nnUNet_def_n_proc", 1)
    if number is not None:
        return number
    from joblib import cpu_count  # which takes long to load

    return min(cpu_count(), 8)


def whole_number(given: int | None, flag: str, variable: str, least: int) -> int | None:
    """The value of a flag, else of one of nnU-Net's environment variables; None where there is neither.

    Raises:
        UserError: It is no whole number, or a smaller one than ``least``.
    """
    from nnunet_nacl.errors import UserError

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
