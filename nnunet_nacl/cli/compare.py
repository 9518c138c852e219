"""`nnunet_nacl compare`: several trainers on the same cases."""

from __future__ import annotations

import argparse

from nnunet_nacl.cli.processes import add_processes_option, number_of_processes

HELP = "compare trainers on the same cases: tables, statistics, ranks and figures"

_DESCRIPTION = """\
Compares validated models: segmentation (DSC, HD95) and calibration (ECE, CECE, NLL, Brier on six masks), with paired
differences to the first trainer, their 95 % bootstrap intervals over cases, Wilcoxon tests with Holm's correction, and
ranks. All trainers must have validated the same cases with their probabilities (nnUNetv2_train ... --npz).

A trainer is named as to nnU-Net, or given as the path of its model folder, such as a second training in another
nnUNet_results. LABEL= before either is how tables and figures call it.
"""

_EPILOG = """\
Writes into OUT: comparison.json (every number, for `nnunet_nacl report` and your own scripts), tables/*.csv, *.md and
*.tex (the .csv in full precision), figures/*.png and *.svg. What calibration.json of a fold knows is not measured
again, so a second run only redraws.

examples:
  nnunet_nacl compare -d 4 -c 3d_fullres -tr nnUNetTrainer nnUNetTrainerCE nnUNetTrainerNACL -o comparison
  nnunet_nacl compare -d 4 27 -c 2d -f 0 1 -tr nnUNetTrainer nnUNetTrainerNACL -o comparison --allow-missing
  nnunet_nacl compare -d 4 -c 2d -o repeated -tr Stock=nnUNetTrainer "Stock again=results2/Dataset004_Hippocampus/\\
nnUNetTrainer__nnUNetPlans__2d"
"""

_MOST_DRAWS = 100_000  # their counts take 8 bytes per draw and case: 0.8 GB for 1,000 cases


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("-d", metavar="DATASET", nargs="+", action="extend", required=True, help="data sets, names or numbers")
    add("-c", metavar="CONFIGURATION", required=True, help="2d, 3d_fullres, ... (of all data sets)")
    add(
        "-tr",
        metavar="TRAINER",
        nargs="+",
        action="extend",
        required=True,
        help="two or more: [LABEL=]NAME or [LABEL=]MODEL_FOLDER; the first is the reference of all differences",
    )
    add(
        "-f",
        metavar="FOLD",
        nargs="+",
        action="extend",
        help="folds 0 to 4, or all for fold_all (default: the folds "
        "that are present, which must be the same for all trainers)",
    )
    add("-p", metavar="PLANS", default="nnUNetPlans", help="default: %(default)s")
    add("-o", metavar="FOLDER", required=True, help="output folder")
    add(
        "--allow-missing",
        action="store_true",
        help="where folds or cases are missing for some trainer, compare on what all have and say so on every output",
    )
    add(
        "-relative",
        metavar=("A", "B"),
        nargs=2,
        help="the two trainers of the figure of relative differences, B "
        "against A, by name or label (default: the last against the first)",
    )
    add("-bootstrap", metavar="N", type=int, default=10_000, help="draws of the bootstrap (default: %(default)s)")
    add("-seed", metavar="N", type=int, default=0, help="seed of the draws (default: %(default)s)")
    add_processes_option(parser, "cases measured at the same time")


def run(args: argparse.Namespace) -> int:
    """Compares; the exit status is 0, or 2 through UserError."""
    import shlex
    import sys
    from pathlib import Path

    from nnunet_nacl.comparison.compare import compare
    from nnunet_nacl.comparison.figures import draw_figures
    from nnunet_nacl.comparison.formats import terminal_text
    from nnunet_nacl.comparison.gather import gather
    from nnunet_nacl.comparison.models import check_models
    from nnunet_nacl.comparison.tables import make_tables
    from nnunet_nacl.comparison.trainers import read_trainers
    from nnunet_nacl.comparison.write import check_output_folder, write_comparison, write_tables

    if hasattr(sys.stdout, "reconfigure"):  # names of structures and labels may be more than the terminal can show
        sys.stdout.reconfigure(errors="backslashreplace")
    _check(args)
    processes = number_of_processes(args.np)
    trainers = read_trainers(args.tr)
    relative = _relative(args.relative, trainers)
    folder = Path(args.o)
    check_output_folder(folder)
    check_models(args.d, trainers, args.p, args.c, args.f, args.allow_missing)
    datasets = [
        gather(
            dataset,
            trainers,
            plans=args.p,
            configuration=args.c,
            folds=args.f,
            allow_missing=args.allow_missing,
            cache=folder / "cache",
            num_processes=processes,
            progress=True,
        )
        for dataset in args.d
    ]
    _check_datasets(datasets)
    comparison = compare(trainers, datasets, n_bootstrap=args.bootstrap, seed=args.seed)
    tables = make_tables(comparison)
    write_tables(tables, folder, comparison.notes)
    figures = draw_figures(comparison, folder, relative=relative, progress=True)
    command = shlex.join(["nnunet_nacl", *_typed(args, sys.argv)])
    path = write_comparison(comparison, tables, figures, folder, command=command, allow_missing=args.allow_missing)
    print("\n\n".join(terminal_text(table) for table in tables if not table.id.startswith("statistics")))
    print(f"\n{_summary(comparison)}")
    for note in comparison.notes:
        print(f"\nNOTE: {note}")
    print(
        f"\nwritten: {path}, {len(tables)} tables in {folder / 'tables'}, {len(figures)} figures in "
        f"{folder / 'figures'}"
    )
    return 0


def _check(args: argparse.Namespace) -> None:
    """What can be wrong with the arguments alone."""
    from nnunet_nacl.errors import UserError

    for fold in args.f or ():
        if not (fold.isdigit() or fold == "all"):
            raise UserError(f"-f {fold}: folds are 0, 1, 2, ... or all (nnU-Net's fold_all).")
    if args.f and "all" in args.f and len(set(args.f)) > 1:
        raise UserError("-f all is nnU-Net's fold_all, whose cases lie in the other folds too; give it alone.")
    if not args.o.strip():
        raise UserError("-o is empty; give a folder.")
    if not 100 <= args.bootstrap <= _MOST_DRAWS:
        raise UserError(f"-bootstrap must be at least 100 and at most {_MOST_DRAWS}, got {args.bootstrap}.")
    if args.seed < 0:
        raise UserError(f"-seed must be at least 0, got {args.seed}.")


def _relative(given: list[str] | None, trainers: list) -> tuple[str, str] | None:
    """Names of the two trainers of ``-relative``."""
    from nnunet_nacl.errors import UserError

    if given is None:
        return None
    names = []
    for text in given:
        found = [trainer.name for trainer in trainers if text in (trainer.name, trainer.label)]
        if not found:
            listed = ", ".join(f"{trainer.name} ({trainer.label})" for trainer in trainers)
            raise UserError(f"-relative {text}: not among the trainers compared: {listed}.")
        names.append(found[0])
    if names[0] == names[1]:
        raise UserError(f"-relative needs two different trainers, got {given[0]} twice.")
    return names[0], names[1]


def _check_datasets(datasets: list) -> None:
    """UserError unless the data sets were measured in the same way."""
    from nnunet_nacl.errors import UserError

    for dataset in datasets:
        own, first = dataset.settings.to_json(), datasets[0].settings.to_json()
        differing = [key for key in own if key != "paper" and own[key] != first[key]]
        if differing:
            raise UserError(
                f"{dataset.name} and {datasets[0].name} were evaluated with other settings ({', '.join(differing)}); "
                "run `nnunet_nacl evaluate` with the same options for both."
            )


def _typed(args: argparse.Namespace, argv: list[str]) -> list[str]:
    """The command line, rebuilt from the arguments where this was not started as a command (tests, notebooks)."""
    if len(argv) > 1 and argv[1] == "compare":
        return argv[1:]
    words = ["compare", "-d", *args.d, "-c", args.c, "-tr", *args.tr, "-p", args.p, "-o", args.o]
    words += ["-bootstrap", str(args.bootstrap), "-seed", str(args.seed)]
    words += (["-f", *args.f] if args.f else []) + (["-relative", *args.relative] if args.relative else [])
    return [*words, *(["--allow-missing"] if args.allow_missing else [])]


def _summary(comparison) -> str:
    """What the tests found, for the terminal: the whole table has a line for each metric and trainer."""
    labels, lines = comparison.labels, []
    for dataset in comparison.datasets:
        titles = comparison.columns_of(dataset)
        found = [row for row in comparison.statistics if row.dataset == dataset.name]
        lines.append(f"Against {comparison.trainers[0].label} on {dataset.name}, p < 0.05 after Holm's correction:")
        for name in comparison.names[1:]:
            for verdict in ("better", "worse", "mixed"):
                listed = [titles[row.column].title for row in found if (row.trainer, row.verdict) == (name, verdict)]
                if listed:
                    lines.append(f"  {labels[name]} {verdict}: {', '.join(listed)}")
            if not any(row.trainer == name and row.verdict in ("better", "worse", "mixed") for row in found):
                untested = any(row.trainer == name and row.verdict == "untested" for row in found)
                lines.append(f"  {labels[name]}: {'too few cases for a test' if untested else 'no difference shown'}")
        if powerless := comparison.powerless(dataset):
            lines.append(f"  too few cases for p (Holm) < 0.05, however clear the difference: {', '.join(powerless)}")
    return "\n".join(lines)
