"""`nnunet_nacl campaign`: many trainings, compared, from one file."""

from __future__ import annotations

import argparse

HELP = "train, calibrate, evaluate and compare many models from one file, on this machine or on a cluster"

_DESCRIPTION = """\
Runs data sets x configurations x folds x trainers x seeds, as one YAML file names them: prepares and preprocesses the
data, trains and validates, calibrates, decides, evaluates, compares and makes the pages. The engine is Snakemake
(`pip install 'nnunet_nacl[campaign]'`, Python 3.11 or newer); every job is commands of nnU-Net's and of this package.

What is finished is never run again. A training that died or was preempted resumes from its last checkpoint when the
same command is run again. One that fails leaves the others running and is listed at the end. nnU-Net's folders are
those of the environment (nnUNet_raw, nnUNet_preprocessed, nnUNet_results).
"""

_EPILOG = """\
In the campaign's folder: comparison/ (tables, figures, pages), logs/ (one for each job), done/ (what is finished).
Exit status: 0; 1 if some job failed (each is listed with its log); 2 if nothing was run.

examples:
  nnunet_nacl campaign campaigns/clinic.yaml --dry-run
  nnunet_nacl campaign campaigns/clinic.yaml --cores 16 --gpus 1
  nnunet_nacl campaign campaigns/clinic.yaml --executor slurm --keep documents \\
      -snakemake "--default-resources slurm_partition=gpu mem_mb=32000 runtime=2d"
  nnunet_nacl campaign campaigns/clinic.yaml --status
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("file", metavar="FILE.yaml", help="the campaign; docs/how-to/many-trainings.md says what it may hold")
    add("-o", metavar="FOLDER", help="the campaign's folder (default: ./FILE)")
    add("--cores", metavar="N", type=int, help="CPU cores of this machine to use (default: all)")
    add("--gpus", metavar="N", type=int, help="GPUs of this machine to use (default: one; each training takes one)")
    add("--executor", metavar="NAME", help="where jobs run: local (default), slurm, or another plugin of Snakemake")
    add("--jobs", metavar="N", type=int, default=100, help="with --executor: jobs at the same time (default: 100)")
    keep = "documents: remove probabilities and optimiser states once measured (default: %(default)s)"
    add("--keep", choices=("all", "documents"), default="all", help=keep)
    add("-snakemake", metavar="OPTIONS", default="", help="further options of Snakemake, in one pair of quotes")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="print the jobs that would be run")
    what.add_argument("--status", action="store_true", help="print how far the campaign is")
    what.add_argument("--so-far", action="store_true", help="compare what is finished, data set by data set")


def run(args: argparse.Namespace) -> int:
    """Runs the campaign; exit status 1 if some job failed."""
    import os
    import shlex
    from pathlib import Path

    from nnunet_nacl.campaign.campaign_file import read_campaign
    from nnunet_nacl.campaign.progress import progress_of
    from nnunet_nacl.campaign.snakemake_run import (
        CAMPAIGN_FILE,
        LOG,
        check_engine,
        run_engine,
        submission_errors,
        write_campaign,
    )
    from nnunet_nacl.campaign.stages import compare_so_far
    from nnunet_nacl.errors import UserError
    from nnunet_nacl.file_lock import locked

    path = Path(args.file)
    folder = Path(args.o or path.stem).absolute()
    for flag in ("cores", "gpus", "jobs"):
        if (getattr(args, flag) or 1) < 1:
            raise UserError(f"--{flag} must be at least 1, got {getattr(args, flag)}.")
    campaign = read_campaign(path) | {"keep": args.keep}
    if (args.status or args.so_far) and not (folder / CAMPAIGN_FILE).is_file():
        raise UserError(f"{folder}: no campaign was started there; go where it was started, or give its folder by -o.")
    if args.status:
        print(progress_of(campaign, folder).table())
        return 0
    if args.so_far:
        return compare_so_far(campaign, folder)
    check_engine(args.executor)
    taken = f"this campaign is running already in {folder}; --status shows how far it is."
    with locked(folder / ".lock", taken) as inherited:
        write_campaign(campaign, folder, dict(os.environ))
        shown = {"line": ""}

        def show() -> None:
            line = progress_of(campaign, folder).trainings
            if line.partition(";")[0] != shown["line"].partition(";")[0]:
                shown["line"] = line
                print(line, flush=True)

        logged = (folder / LOG).stat().st_size if (folder / LOG).is_file() else 0
        options = {"executor": args.executor, "jobs": args.jobs, "options": shlex.split(args.snakemake)}
        cores = args.cores or os.cpu_count() or 1
        gpus = (args.gpus or 1) if campaign["device"] == "cuda" else None
        status = run_engine(folder, inherited, cores=cores, gpus=gpus, dry_run=args.dry_run, on_poll=show, **options)
    if args.dry_run:
        return 2 if status else 0
    progress = progress_of(campaign, folder)
    print(progress.table())
    if status:
        for message in submission_errors(folder, logged):
            print(f"not started: {message}")
        print(f"Not everything is done (Snakemake's log: {folder / LOG}). The same command resumes.")
    for page in sorted((folder / "comparison").glob("*/*/report.html")):
        print(f"page: {page}")
    return 1 if status else 0
