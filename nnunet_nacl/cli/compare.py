"""`nnunet_nacl compare`: compares models or predictions on the same cases."""

from __future__ import annotations

import argparse
import shlex
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_nacl.cli.options import add_shared, bad_of, number_of_processes
from nnunet_nacl.errors import UserError

HELP = "compare trainers, ensembles or any predictions on the same cases: tables, statistics and figures"

_DESCRIPTION = """\
Compares segmentation and calibration on the same cases, with paired differences to the first entry, intervals and
tests, and makes one page of it. An entry is a trained model (-tr; +calibrated behind it) or predictions with
probabilities (-i), measured first where they were not.
"""

_EPILOG = """\
examples:
  nnunet_nacl compare -d 4 -c 2d -tr nnUNetTrainer Ours=nnUNetTrainerNACL nnUNetTrainer+calibrated -o comparison
  nnunet_nacl compare -i A=test_a B=test_b -gt labelsTs -o test
"""

_MOST_DRAWS = 100_000  # their counts take 8 bytes per draw and case: 0.8 GB for 1,000 cases


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.usage = "%(prog)s [-d DATASET -c CONFIGURATION -tr TRAINER ...] [-i PATH ...] -o FOLDER [options]"
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    add = parser.add_argument
    model = "[LABEL=]NAME or [LABEL=]MODEL_FOLDER"
    path = "[LABEL=]FOLDER of predictions; the first entry is the reference"
    for flag, metavar, text in (("-tr", "TRAINER", model), ("-i", "PATH", path)):
        # in one list, which keeps the order of both
        entry = partial(lambda flag, text: (flag, text), flag)
        add(flag, metavar=metavar, dest="entries", default=[], nargs="+", action="extend", type=entry, help=text)
    several: dict[str, Any] = {"nargs": "+", "action": "extend"}
    add("-d", metavar="DATASET", help="data sets, names or numbers; for -i alone it is not needed", **several)
    add_shared(parser, "-c", "-p", "-f")
    add("-gt", metavar="LABELS", type=Path, help="folder with the ground truth of -i (default: nnU-Net's own)")
    add_shared(parser, "-djfile", "-pfile")
    add("-o", metavar="FOLDER", required=True, help="output folder")
    add_shared(parser, "-groups")
    unranked = "labels of entries only to compare with, such as what knows the truth: not tested"
    add("-unranked", metavar="LABEL", help=unranked, **several)
    add("--allow-missing", action="store_true", help="compare on what all have, and say so on every output")
    add("--allow-training-cases", action="store_true", help="compare what networks saw, and say so on every output")
    add_shared(parser, "-bad", "-structures")
    add("-bootstrap", metavar="N", type=int, default=10_000, help="draws of the bootstrap (default: %(default)s)")
    add("-seed", metavar="N", type=int, default=0, help="seed of the draws (default: %(default)s)")
    add("--no_page", action="store_true", help="make no page")
    add_shared(parser, "-np", "--trust_checkpoint", "--quiet")


def run(args: argparse.Namespace) -> int:
    """Compares; the exit status is 0, or 2 through UserError."""
    from nnunet_nacl.compare.comparison import ALPHA, Comparison
    from nnunet_nacl.compare.dataset import align, locate, promises_of
    from nnunet_nacl.compare.entries import Options, read_entries
    from nnunet_nacl.compare.figures import write_figures
    from nnunet_nacl.compare.page import check_output_folder, comparison_to_json, make_page, write_comparison
    from nnunet_nacl.compare.tables import WITHOUT_BAD, comparison_tables, write_tables

    _check(args)
    entries, folder = read_entries(args.entries, args.unranked or ()), Path(args.o)
    options = Options(
        plans=args.p,
        configuration=args.c or "",
        folds=args.f,
        references=args.gt,
        dataset_json=args.djfile,
        plans_json=args.pfile,
        allow_missing=args.allow_missing,
        allow_training_cases=args.allow_training_cases,
        groups=args.groups,
        num_processes=number_of_processes(args.np),
    )
    located = {data.name: data for data in (locate(d, entries, options) for d in args.d or [None])}
    if len(located) < len(args.d or ()):
        raise UserError(f"-d names one of {', '.join(located)} twice; name each data set once.")
    check_output_folder(folder)
    bad = {name: bad_of(args, data.entries[0].first.labels.structures) for name, data in located.items()}
    datasets = [align(data) for data in located.values()]
    comparison = Comparison(entries, datasets, n_bootstrap=args.bootstrap, seed=args.seed)
    promises = {data.name: promises_of(data) for data in datasets}
    tables = comparison_tables(comparison, promises, bad)
    written = write_tables(tables, folder, comparison.notes)
    figures = write_figures(comparison, promises, folder)
    settings = {key: getattr(args, key) for key in ("allow_missing", "allow_training_cases", "groups")}
    command = shlex.join(["nnunet_nacl", *args.argv])
    document = comparison_to_json(comparison, written, figures, command=command, settings=settings)
    path = write_comparison(document, folder)
    print("\n\n".join(table.to_text() for table in tables if not table.id.startswith("statistics")))
    for dataset in comparison.datasets:
        print(f"\n{dataset.where}, masks reach {dataset.settings.reach}; p < {ALPHA} after Holm's correction:")
        clear = comparison.tests(dataset).query("verdict not in ('none', 'untested')")
        for row in clear.itertuples():
            print(f"  {comparison.labels[row.trainer]}: {comparison.columns[row.column].title} {row.verdict}")
        print("  no difference\n" * clear.empty, end="")
    print("" if args.bad else f"\n{WITHOUT_BAD}\n", end="")
    for note in comparison.notes:
        print(f"\nNOTE: {note}")
    where = f"{len(tables)} tables in {folder / 'tables'}, {len(figures)} figures in {folder / 'figures'}"
    print(f"\nwritten: {path}, {where}")
    if not args.no_page:
        page = make_page(document, tables, folder)
        print(f"page: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    return 0


def _check(args: argparse.Namespace) -> None:
    """What can be wrong with the arguments alone."""
    from nnunet_nacl.calibrate.workflow import read_groups
    from nnunet_nacl.nnunet.prediction_folder import folds_asked_for

    flags, folds = {flag for flag, _ in args.entries}, folds_asked_for(args.f or ())
    if "-tr" in flags and not (args.d and args.c):
        raise UserError("-tr needs -d DATASET and -c CONFIGURATION, such as -d 4 -c 3d_fullres.")
    if "-i" in flags and args.d and len(args.d) > 1:
        raise UserError("-i holds the cases of one data set; give one -d with it.")
    if "-i" not in flags and (args.gt or args.djfile or args.pfile):
        raise UserError("-gt, -djfile and -pfile belong to predictions given with -i; the models of -tr have theirs.")
    if folds and "-tr" not in flags:
        raise UserError("-f chooses folds of -tr; a folder given with -i is compared as a whole.")
    if "all" in folds and len(folds) > 1:
        raise UserError("-f all is nnU-Net's fold_all, whose cases lie in the other folds too; give it alone.")
    if not 100 <= args.bootstrap <= _MOST_DRAWS:
        raise UserError(f"-bootstrap must be at least 100 and at most {_MOST_DRAWS}, got {args.bootstrap}.")
    if args.seed < 0:
        raise UserError(f"-seed must be at least 0, got {args.seed}.")
    read_groups(args.groups, ())
