"""`nnunet_nacl compare`: compares models or predictions on the same cases."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_nacl.cli.options import add_options, bad_of, number_of_processes, report_problems
from nnunet_nacl.errors import UserError

HELP = "compare trainers, ensembles or any predictions on the same cases: tables, statistics and figures"

_DESCRIPTION = """\
Compares methods on the same cases: how well they segment, and how far their confidence can be trusted. The first method
is the reference; tests, intervals and one page show how the others differ from it. A method is a trained model (-tr) or
a folder of predictions (-i); what was not measured yet is measured first. LABEL= before it names it in all tables.
"""

_EPILOG = """\
examples:
  nnunet_nacl compare -d 4 -c 2d -tr nnUNetTrainer Ours=nnUNetTrainerNACL nnUNetTrainer+calibrated -o comparison
  nnunet_nacl compare -i A=test_a B=test_b -gt labelsTs -o test
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.usage = "%(prog)s [-d DATASET -c CONFIGURATION -tr TRAINER ...] [-i FOLDER ...] -o FOLDER [options]"
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    groups = {
        "the methods": "-tr -d -c -p -f -i -gt -djfile -pfile -unranked",
        "the cases": "-groups --allow-missing --allow-training-cases",
        "which scans are bad": "-bad -structures",
        "the output, and how to run": "-o -np --trust_checkpoint --quiet",
    }

    def method(flag: str, text: str) -> dict[str, Any]:  # both in one list, which keeps their order
        return {**several, "dest": "methods", "default": [], "type": partial(lambda *pair: pair, flag), "help": text}

    several: dict[str, Any] = {"nargs": "+", "action": "extend"}
    changes: dict[str, Any] = {
        "-tr": method("-tr", "[LABEL=]NAME or [LABEL=]MODEL_FOLDER; +calibrated behind it: as its map calibrates it"),
        "-i": method("-i", "[LABEL=]FOLDER of predictions with their probabilities"),
        "-d": {**several, "help": "data sets: their names or numbers; not needed for -i alone"},
        "-gt": {"type": Path, "help": "folder with the ground truth of -i (default: nnU-Net's own)"},
        "-unranked": {**several, "metavar": "LABEL", "help": "methods that are shown, but not tested"},
        "-groups": "patient of each case: .json file or regular expression (default: as the models' maps say)",
        "--allow-missing": {"action": "store_true", "help": "compare the folds and cases that all have, with a note"},
        "--allow-training-cases": "compare cases that networks were trained on, with a note",
        "-o": {"required": True},
    }
    add_options(parser, groups, changes)


def run(args: argparse.Namespace) -> int:
    """Compares; the exit status is 0, 1 where the page alone could not be made, or 2 through UserError."""
    from nnunet_nacl.evaluation.comparison import ALPHA
    from nnunet_nacl.evaluation.dataset import align, locate
    from nnunet_nacl.evaluation.figures import write_figures
    from nnunet_nacl.evaluation.methods import Options, read_methods
    from nnunet_nacl.evaluation.page import (
        PAGE_NAME,
        check_output_folder,
        comparison_page,
        comparison_to_json,
        files_of_comparison,
        write_comparison,
    )
    from nnunet_nacl.evaluation.tables import WITHOUT_BAD, comparison_tables, write_tables
    from nnunet_nacl.reports.rendering import write_page

    _check(args)
    methods, folder = read_methods(args.methods, args.unranked or ()), Path(args.o)
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
    located = {found.name: found for found in (locate(dataset, methods, options) for dataset in args.d or [None])}
    if len(located) < len(args.d or ()):
        raise UserError(f"-d names one of {', '.join(located)} twice; name each data set once.")
    check_output_folder(folder, list(located.values()))
    ready = [replace(one, bad=bad_of(args, one.methods[0].first.labels.structures)) for one in located.values()]
    comparisons = [align(one) for one in ready]
    notes = [note for comparison in comparisons for note in comparison.notes]
    tables = comparison_tables(comparisons)
    files = files_of_comparison(folder)
    written = write_tables(tables, files, notes)
    figures = write_figures(comparisons, files)
    command = shlex.join(["nnunet_nacl", *args.argv])
    document = comparison_to_json(comparisons, written, figures, files.written, command=command)
    path = write_comparison(document, files)
    print("\n\n".join(table.to_text() for table in tables if not table.id.startswith("statistics")))
    for comparison in comparisons:
        print(f"\n{comparison.where}, masks reach {comparison.settings.reach}; p < {ALPHA} after Holm's correction:")
        clear = comparison.statistics.query("verdict not in ('none', 'untested')")
        for (name, verdict), rows in clear.groupby(["trainer", "verdict"], sort=False):
            print(
                f"  {comparison.labels[name]} {verdict}: {', '.join(comparison.columns[c].title for c in rows.column)}"
            )
        none_tested = comparison.statistics.verdict.isin(["untested"]).all()
        print(f"  {'no test was made' if none_tested else 'no test shows a difference'}\n" * clear.empty, end="")
    print("" if args.bad else f"\n{WITHOUT_BAD}\n", end="")
    for note in notes:
        print(f"\nNOTE: {note}")
    where = f"{len(tables)} tables in {folder / 'tables'}, {len(figures)} figures in {folder / 'figures'}"
    print(f"\nwritten: {path}, {where}")
    page = folder / PAGE_NAME
    reason = write_page(page, partial(comparison_page, document, tables, folder))
    if reason is not None:
        report_problems("compare", {PAGE_NAME: reason})
        return 1
    print(f"page: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    return 0


def _check(args: argparse.Namespace) -> None:
    """What can be wrong with the arguments alone."""
    from nnunet_nacl.cases.groups import read_groups

    flags, folds = {flag for flag, _ in args.methods}, args.f or ()
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
    read_groups(args.groups, ())
