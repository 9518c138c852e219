"""`nnunet_nacl apply`: calibrates probabilities that are saved already."""

from __future__ import annotations

import argparse

from nnunet_nacl.cli.processes import add_processes_option, number_of_processes

HELP = "apply a calibration map to a folder of predictions with probabilities"

_DESCRIPTION = """\
Writes a sibling of a folder of predictions with calibrated probabilities: npz, pkl and segmentation of every case,
dataset.json and plans.json, as nnU-Net writes them. nnUNetv2_ensemble, `nnunet_nacl evaluate` and `nnunet_nacl
uncertainty` read it. The predictions stay as they are.
Predictions of a checkpoint_calibrated.pth are calibrated already, which nothing in their folder says: give only those
of the original checkpoint.
"""

_EPILOG = """\
Run again, it does only the cases whose probabilities changed. Exit status: 0; 1 if some cases could not be done (each
is listed, the others are saved); 2 if nothing could.

example:
  nnunet_nacl apply -i predictions -map calibration_map.json -o predictions_calibrated
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("-i", metavar="PREDICTIONS", required=True, help="folder of predictions with probabilities")
    add("-map", metavar="FILE", required=True, help="calibration_map.json of `nnunet_nacl calibrate`")
    add("-o", metavar="OUT", required=True, help="the new folder")
    add("-djfile", metavar="FILE", help="dataset.json (default: in PREDICTIONS or up to two levels above)")
    add("-pfile", metavar="FILE", help="plans.json (default: likewise; nnUNetv2_ensemble writes none)")
    add_processes_option(parser)


def run(args: argparse.Namespace) -> int:
    """Applies; exit status 1 if some cases could not be done."""

    from nnunet_nacl.cases.conversion import apply_to_folder
    from nnunet_nacl.cases.prediction_folder import PredictionFolder
    from nnunet_nacl.cli.problem_list import report_problems

    folder = PredictionFolder.open(args.i, dataset_json=args.djfile, plans=args.pfile, need_reference=False)
    processes = number_of_processes(args.np)
    done, problems = apply_to_folder(folder, args.map, args.o, num_processes=processes, progress=True)
    print(f"{len(done)} cases written to {args.o}")
    report_problems("apply", problems, "cases could not be done")
    return (1 if done else 2) if problems else 0
