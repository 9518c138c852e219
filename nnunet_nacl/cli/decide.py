"""`nnunet_nacl decide`: segmentations with the highest expected Dice, from predictions with probabilities."""

from __future__ import annotations

import argparse

from nnunet_nacl.cli.processes import add_processes_option, number_of_processes

HELP = "write the segmentations with the highest expected Dice"

_DESCRIPTION = """\
For folders of predictions with probabilities (nnUNetv2_predict ... --save_probabilities, or a validation folder of
nnUNetv2_train ... --npz): gives every case the segmentation that can expect the highest Dice, by the probabilities,
instead of the most probable label of each voxel. A voxel then belongs to a structure from a probability of half the
structure's expected Dice on, rather than from one half. Networks that trained with a Dice loss have learned that
threshold into their probabilities; those of cross-entropy and calibrated ones leave it to this decision.
It takes the probabilities at their word: calibrate first where they cannot be trusted (NACL's are held back).
"""

_EPILOG = """\
OUT is a folder as nnU-Net writes it: segmentations in the format and geometry of the predictions, dataset.json and
plans.json, and with --probabilities the npz and pkl too, with which `nnunet_nacl evaluate` and `compare` can measure
it: Dice is then that of the decided segmentations, NLL, Brier score and ECE are those of the probabilities. What
changed in each case is in OUT/decision.json. A structure that the most probable labels lack is never added.

nnU-Net's postprocessing was chosen for the most probable labels, and nothing of it is in OUT. --postprocessing lets
nnU-Net choose it again for the decided segmentations (it needs ground truth for every case: use the validation
cases); -pp_pkl_file applies one that was chosen before. Either leaves its result in OUT/postprocessed.

Run again, it does only the cases whose files changed. Exit status: 0; 1 if some cases could not be done (each is
named, the others are written); 2 if nothing could. Research software, not for clinical use.

examples:
  nnUNetv2_predict -i scans -o predictions -d 4 -c 3d_fullres -tr nnUNetTrainerCE --save_probabilities
  nnunet_nacl decide -i predictions -o decided
  nnunet_nacl decide -i .../fold_0/validation -o decided_0 -gt .../gt_segmentations --probabilities --postprocessing
  nnunet_nacl decide -i predictions -o decided -gt labels -groups '^(patient[0-9]+)'
  nnunet_nacl decide -i predictions -o decided -pp_pkl_file decided_0/postprocessing.pkl
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("-i", metavar="FOLDER", required=True, help="predictions with probabilities")
    add("-o", metavar="FOLDER", required=True, help="output folder, not the folder of predictions")
    add("-gt", metavar="FOLDER", help="ground truth: also give the true Dice, before and after")
    add("-groups", metavar="FILE|REGEX", help="patient of each case, for the intervals: as in `nnunet_nacl calibrate`")
    add("--probabilities", action="store_true", help="copy the probabilities (npz, pkl) too")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--postprocessing", action="store_true", help="choose nnU-Net's postprocessing again (needs -gt)"
    )
    group.add_argument("-pp_pkl_file", metavar="FILE", help="apply this postprocessing.pkl of nnU-Net")
    add_processes_option(parser)
    add("-djfile", metavar="FILE", help="dataset.json (default: in the folder or up to two levels above)")
    add("-pfile", metavar="FILE", help="plans.json (default: likewise)")


def run(args: argparse.Namespace) -> int:
    """Decides; exit status 1 if some cases could not be done."""

    from nnunet_nacl.cases.decided_folder import FILE_NAME, decide_folder
    from nnunet_nacl.cli.decision_table import summary_lines
    from nnunet_nacl.cli.postprocessing import apply_postprocessing, choose_postprocessing, read_postprocessing
    from nnunet_nacl.cli.problem_list import report_problems
    from nnunet_nacl.errors import UserError

    processes = number_of_processes(args.np)
    if args.postprocessing and not args.gt:
        raise UserError("--postprocessing compares with the ground truth; give its folder with -gt.")
    if args.groups and not args.gt:
        raise UserError("-groups is for the intervals of the true Dice; give the ground truth with -gt.")
    chosen = read_postprocessing(args.pp_pkl_file) if args.pp_pkl_file else None
    decided = decide_folder(
        args.i,
        args.o,
        references=args.gt,
        probabilities=args.probabilities,
        need_all_references=args.postprocessing,
        groups=args.groups,
        dataset_json=args.djfile,
        plans=args.pfile,
        num_processes=processes,
        progress=True,
    )
    print("\n".join(summary_lines(decided)))
    print(f"\nsegmentations: {decided.output}\nwhat changed: {decided.output / FILE_NAME}")
    if not args.probabilities:
        print("To evaluate or compare them, decide again with --probabilities.")
    if args.postprocessing:
        choose_postprocessing(decided.output, args.gt, processes)
    elif chosen:
        apply_postprocessing(decided.output, chosen, processes)
    report_problems("decide", decided.problems)
    return 1 if decided.problems else 0
