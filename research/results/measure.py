"""Measures the lung nodules (LIDC), or with `-name` another data set, and writes the rows of
results.csv, a command for each part.

    python research/results/measure.py records -task TASK -work WORK [--outer]
    python research/results/measure.py learn calibration patients raters recall losses
        -task TASK -work WORK
    python research/results/measure.py decisions tuned -schedule SCHEDULE -losses LOSS ...
        -task TASK -work WORK
    python research/results/measure.py heart -schedule SCHEDULE -losses LOSS ...
        -published TABLE -task TASK -work WORK [--outer]
    python research/results/measure.py slices -task TASK -work WORK
    python research/results/measure.py scans intervals

TASK is the folder of the task: patients.json, outer_test.json and votes/. Networks are those of the
nnUNet_* variables, trained by protocol.sh; WORK keeps records, so that a part is done again in
minutes. `records` measures the validation cases, with --outer also the cases in no fold, by the
ensemble of all five. `learn` writes lidc_scans.csv, what `predict` would say of each scan; `scans`
makes the rows on lists, orders and intervals from such files, and needs no networks. A task with a
folder `shift` has images and labels of other scanners there; `unlike`, `own` and `weighted` are
about these. `slices` and `intervals` set MAPIE beside the package (mapie_rows.py): on slices of the
validation cases, and on such tables of scans.
With `-trained_on` the other scanners are those of all patients of other manufacturers.
Each scan is judged by a map and limits that have not seen its patient.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from calibration_rows import PEERS, calibration_rows
from decisions import decision_rows
from few_patients import own_rows, patients_rows
from heart import heart_rows
from losses import LOSSES, REFERENCE, SCHEDULE, losses_rows
from mapie_rows import interval_rows, slices_rows
from marginal_ace import ace_rows
from other_scanner import unlike_rows
from raters import raters_rows
from recall_rows import recall_rows
from scans import learn_scans, scan_rows
from study import NetworksOfOneManufacturer, OneManufacturer, Study, make_records
from tuned_networks import tuned_rows
from weighted_limits import weighted_rows

PARTS: dict[str, Callable[[Study], None]] = {
    "learn": learn_scans,
    "calibration": calibration_rows,
    "patients": patients_rows,
    "raters": raters_rows,
    "recall": recall_rows,
    "unlike": unlike_rows,
    "own": own_rows,
    "weighted": weighted_rows,
    "slices": slices_rows,
}
"""Parts that need the study, and no settings of their own."""
TABLE_PARTS: dict[str, Callable[[], None]] = {"scans": scan_rows, "intervals": interval_rows}
"""Parts that need tables of scans alone."""


def main() -> None:
    """Measure the parts that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts",
        nargs="+",
        choices=["records", *PARTS, "losses", "ace", "decisions", "tuned", "heart", *TABLE_PARTS],
        metavar="PART",
    )
    parser.add_argument("-task", type=Path, help="folder of the task")
    parser.add_argument("-work", type=Path, help="folder for records")
    parser.add_argument("-d", default="31", help="data set (default: %(default)s)")
    parser.add_argument("-c", default="2d_small", help="configuration (default: %(default)s)")
    parser.add_argument(
        "-tr",
        default="DiceCE_25epochs_100iters_adam",
        help="behind nnUNetTrainer (default: %(default)s)",
    )
    parser.add_argument("-name", default="LIDC", help="of the data set (default: %(default)s)")
    parser.add_argument("-structure", default="nodule", help="its name (default: %(default)s)")
    parser.add_argument(
        "-bad",
        type=float,
        default=0.5,
        help="Dice below which a scan is bad in patients and own (default: %(default)s)",
    )
    parser.add_argument(
        "-peers",
        nargs="*",
        default=PEERS,
        choices=PEERS,
        help="calibrators of fiducio to measure (default: all)",
    )
    parser.add_argument(
        "-schedule",
        default=SCHEDULE,
        help="behind the loss in the names of the trainers that losses and ace compare (default:"
        " %(default)s)",
    )
    parser.add_argument(
        "-losses",
        nargs="+",
        default=LOSSES,
        metavar="LOSS",
        help=f"to compare, {REFERENCE} with each other one (default: {' '.join(LOSSES)})",
    )
    parser.add_argument(
        "-published", type=Path, help="table of published values of each volume (heart)"
    )
    manufacturers = parser.add_mutually_exclusive_group()
    manufacturers.add_argument(
        "-manufacturer",
        help="learn from the validation cases of this one alone (learn, calibration, recall); the"
        " task has scans.csv, -name names the rows",
    )
    manufacturers.add_argument(
        "-trained_on",
        metavar="MANUFACTURER",
        help="the networks were trained on its patients alone, all cases of others are of other"
        " scanners; the task has scans.csv, -name names the rows",
    )
    parser.add_argument(
        "--outer", action="store_true", help="open the cases in no fold and of other scanners"
    )
    args = parser.parse_args()
    needs_study = not set(args.parts) <= TABLE_PARTS.keys()
    if needs_study and (args.task is None or args.work is None):
        parser.error("these parts need -task and -work")
    torch.set_num_threads(1)
    settings: dict[str, Any] = {
        "task": args.task,
        "work": args.work,
        "dataset": args.d,
        "trainer": args.tr,
        "configuration": args.c,
        "name": args.name,
        "structure": args.structure,
        "bad": args.bad,
        "peers": args.peers,
    }
    if args.manufacturer is not None:
        study: Study = OneManufacturer(**settings, manufacturer=args.manufacturer)
    elif args.trained_on is not None:
        study = NetworksOfOneManufacturer(**settings, manufacturer=args.trained_on)
    else:
        study = Study(**settings)
    measures: dict[str, Callable[[Study], None]] = {
        **PARTS,
        "records": partial(make_records, with_outer=args.outer),
        "losses": partial(losses_rows, schedule=args.schedule, losses=args.losses),
        "ace": partial(ace_rows, schedule=args.schedule, losses=args.losses),
        "decisions": partial(decision_rows, schedule=args.schedule, losses=args.losses),
        "tuned": partial(tuned_rows, schedule=args.schedule, losses=args.losses),
        "heart": partial(
            heart_rows,
            schedule=args.schedule,
            losses=args.losses,
            published=args.published,
            with_outer=args.outer,
        ),
    }
    for part in args.parts:
        if part in TABLE_PARTS:
            TABLE_PARTS[part]()
        else:
            measures[part](study)


if __name__ == "__main__":
    main()
