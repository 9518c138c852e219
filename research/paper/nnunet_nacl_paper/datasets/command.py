"""`nnunet_nacl_paper prepare`: from a challenge's folder to nnU-Net's raw format."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from nnunet_nacl_paper.datasets.challenges import CHALLENGES, Challenge
from nnunet_nacl_paper.files import InputError

if TYPE_CHECKING:
    from nnunet_nacl_paper.datasets.prepared_folder import Prepared

HELP = "prepare one of the paper's six data sets for nnU-Net, with the paper's split"

_DESCRIPTION = """\
Reads the folder of a challenge as the challenge distributes it and writes one of nnU-Net's raw
data sets: images and labels on the paper's grid, dataset.json, and the paper's split by patient.
Training and validation cases go to imagesTr and labelsTr, test cases to imagesTs and labelsTs;
splits_final.json lies beside dataset.json, and nnU-Net's planning copies it to where training
looks for it. Intensities are scaled to [0, 1] by nnU-Net (dataset.json says so).

Interrupted or repeated, it does only what is missing.
"""

_EPILOG = """\
challenges (patients for training / validation / test; where there are more or fewer, each part
gets its share):
{challenges}

--native leaves the images alone and nnU-Net normalises and resamples as always; the split is the
same, the number 10 higher, so that both can be had side by side. What differs from the paper is
said at the end of each run, and in the README. A data set that was prepared otherwise is never
overwritten.

Exit status: 0; 1 if some cases could not be prepared (each is named; run again when they are
mended); 2 if the folder is not the challenge's.

example: nnunet_nacl_paper prepare kits19 kits19/data -np 4
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    described = [_describe(challenge) for challenge in CHALLENGES.values()]
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG.format(challenges="\n".join(described))
    add = parser.add_argument
    add("challenge", metavar="CHALLENGE", choices=CHALLENGES, help=", ".join(CHALLENGES))
    add(
        "folder",
        metavar="IN",
        help="the challenge's folder, or the one inside it that holds the cases",
    )
    add("-o", metavar="FOLDER", help="where the data set's folder goes (default: nnUNet_raw)")
    add("-d", metavar="NUMBER", type=int, help="number of the data set (default: see below)")
    add(
        "-seed", metavar="N", type=int, default=0, help="of the random split (default: %(default)s)"
    )
    add("--native", action="store_true", help="no preparation: images as distributed")
    add(
        "-np",
        metavar="N",
        type=int,
        default=os.cpu_count() or 1,
        help="cases at the same time (default: the cores)",
    )


def _describe(challenge: Challenge) -> str:
    """A challenge in the help: its row, and below what its folder holds, a line a file."""
    sizes = " / ".join(map(str, challenge.sizes))
    row = f"  {challenge.name:<11} {challenge.number}  {sizes:<14}  {challenge.preparation}"
    files = f",\n{'':<27}".join(challenge.layouts[0].example.split(", "))
    return f"{row}\n{'':<18}IN holds {files}"


def run(args: argparse.Namespace) -> int:
    """Prepare; exit status 1 if some cases could not be."""
    from nnunet_nacl_paper.datasets.prepared_folder import prepare

    if args.np < 1:
        raise InputError(f"-np must be at least 1, got {args.np}.")
    challenge = CHALLENGES[args.challenge]
    prepared = prepare(
        challenge,
        args.folder,
        output=args.o,
        number=args.d,
        native=args.native,
        seed=args.seed,
        num_processes=args.np,
        progress=True,
    )
    if prepared.problems:
        lines = [f"  {case}: {problem}" for case, problem in prepared.problems.items()]
        count = len(prepared.problems)
        print(f"nnunet_nacl_paper prepare: {count} cases could not be prepared:", file=sys.stderr)
        print(*lines, sep="\n", file=sys.stderr)
        return 1
    print(_text_of(prepared, "as distributed" if args.native else challenge.preparation))
    return 0


def _text_of(prepared: Prepared, preparation: str) -> str:
    """What was written, where it differs from the paper, and the commands that come next."""
    lines = []
    for part, patients in prepared.split.items():
        num_cases = prepared.cases[part]
        lines.append(f"{part + ':':<12}{len(patients):>4} patients, {num_cases} cases")
    lines.append(f"images:     {preparation}")
    if prepared.kept:
        mean = sum(prepared.kept.values()) / len(prepared.kept)
        worst = min(prepared.kept, key=lambda case: prepared.kept[case])
        least = f"{prepared.kept[worst]:.1%} ({worst})"
        lines.append(f"labelled voxels kept: {mean:.1%} in the mean, least {least}")
    lines += [f"note: {note}" for note in prepared.notes]
    number = int(prepared.folder.name.removeprefix("Dataset")[:3])
    lines += [
        "",
        f"written: {prepared.folder}",
        "Next:",
        f"$ nnUNetv2_plan_and_preprocess -d {number} -c 2d --verify_dataset_integrity",
        f"$ nnUNetv2_train {number} 2d 0 -tr nnUNetTrainerNACL_100epochs_adam --npz",
    ]
    return "\n".join(lines)
