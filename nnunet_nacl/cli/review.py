"""`nnunet_nacl review`: from predictions with probabilities to what is delivered, and the cases to look at first."""

from __future__ import annotations

import argparse

from nnunet_nacl.cli.options import (
    REASON_TO_LOOK,
    add_decision,
    add_files,
    add_findings,
    add_groups,
    add_processes,
    add_threshold,
    add_trust,
    number_of_processes,
    threshold_of,
)

HELP = "list the cases to look at first; calibrate and decide saved predictions, write uncertainty maps"
COMMON_FLAGS = "-i -o -map -decide -maps -findings -threshold -np --overwrite".split()

_DESCRIPTION = """\
Lists the cases to look at first, from predictions with probabilities: folders of nnUNetv2_predict ...
--save_probabilities, or a validation folder of nnUNetv2_train ... --npz. No ground truth is needed.

OUT becomes a folder as nnU-Net writes it: segmentations in the format and geometry of the
predictions, dataset.json and plans.json. Beside them lie review.csv, one row a case, those with the lowest expected
Dice first, empty predictions before all, review_details.csv, all else that was measured in the same rows, and
index.html, the same list with pictures.

The segmentations are those that were predicted. With a calibration map (-map, of `nnunet_nacl calibrate`) the
probabilities are calibrated, and Dice and volume of every structure are predicted from what the map learned on held-out
cases, with 90 % intervals for patients like those.
With -decide dice every case gets the segmentation that can expect the highest Dice by the probabilities: a voxel then
belongs to a structure from a probability of half the structure's expected Dice on, rather than from one half. With a
map that has learned when a structure is in a scan, one that nnU-Net's labels lack is added where it is probably there.
Calibrate where the probabilities cannot be trusted.

Several folders of the same cases (each predicted with another fold, -f, or trainer) are members of an ensemble: the
segmentation follows from their mean probabilities, and the list says what they disagree about.
"""

_EPILOG = """\
maps, all between 0 and 1, in OUT/maps/CASE/ (they overlay the scan in 3D Slicer or ITK-SNAP):
  confidence           largest class probability
  entropy              entropy of the probabilities / log(number of classes): 0 certain, 1 undecided
  margin               largest minus second largest probability: 0 a tie, 1 certain
  probabilities        of each class or region
  mutual_information   what the members disagree about: entropy of their mean minus mean of their entropies
  expected_entropy     that mean of their entropies
Regions (sigmoid) are in-or-out each; the map shows the least certain region of each voxel.

columns of review.csv:
  rank, case, flag, reasons (why the case needs a look), problem (why a case could not be done)
  STRUCTURE predicted_dice with _low and _high, a 90 % interval (with -map)
  STRUCTURE volume_ml  of the segmentation (area_mm2 in 2D, area_pixels without spacing)
  STRUCTURE predicted_volume_low_ml, predicted_volume_high_ml  90 % interval of the true volume (with -map)
  STRUCTURE present_probability  that it is in the scan at all (with -map, where its cases were with and without it)
columns of review_details.csv:
  rank, case, empty (nothing predicted), empty_structures
  lowest_predicted_dice, STRUCTURE predicted_volume_ml (with -map)
  lowest_expected_dice decides the rank: the smallest STRUCTURE expected_dice of the predicted structures
  mean_foreground_entropy, ..._confidence, ..._mutual_information: means over the voxels of the predicted structures
  n_members  folders
  STRUCTURE expected_dice  Dice that the probabilities p promise: 2 sum_predicted p / (sum p + predicted voxels)
  STRUCTURE members_dice  mean Dice between the segmentations of two folders, over all pairs
  STRUCTURE expected_volume_ml  sum of p times the size of a voxel
  STRUCTURE volume_sd_ml, _min, _max, volume_ml FOLDER  of the folders
  STRUCTURE pieces, largest_piece  connected pieces, and the share of the structure in the largest
  STRUCTURE max_probability  largest anywhere in the image: how near an empty structure came to being predicted
An empty cell is a number that is not defined: means of an empty prediction, spread of one folder.

findings.csv has a row for each connected part of the structures that -findings names: real_probability (that it
overlaps the truth at all, with -map), volume, largest diameter, centre in mm (of the scan, as DICOM and SimpleITK have
them: x to the left, y to the back, z to the head), mean and largest probability.

nnU-Net's postprocessing was chosen for the most probable labels, and nothing of it is in a decided OUT.
--postprocessing lets nnU-Net choose it again for the decided segmentations (it needs ground truth for every case: use
the validation cases); -pp_pkl_file applies one that was chosen before. Either leaves its result in OUT/postprocessed.

Run again, it does only the cases whose files or settings changed. Exit status: 0; 1 if some cases could not be done
(each is named, also at the end of review.csv); 2 if nothing could. The order is a ranking, no threshold is validated.
Research software, not for clinical use.

examples:
  nnUNetv2_predict -i scans -o predictions -d 4 -c 3d_fullres --save_probabilities
  nnunet_nacl review -i predictions -o reviewed
  nnunet_nacl review -i predictions -o reviewed -map calibration_map.json -threshold 0.8 -maps
  nnunet_nacl review -i predictions -o calibrated -map calibration_map.json --save_probabilities
  nnunet_nacl review -i .../fold_0/validation -o decided_0 -decide dice -gt .../gt_segmentations --postprocessing
  nnunet_nacl review -i predictions_fold0 predictions_fold1 predictions_fold2 -o reviewed -np 4
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("-i", metavar="FOLDER", nargs="+", required=True, help="predictions; several folders: an ensemble's members")
    add("-o", metavar="FOLDER", required=True, help="output folder, not inside a folder of predictions")
    add("-map", metavar="FILE", help="calibration_map.json: calibrate, and predict Dice and volumes")
    add_decision(parser)
    add(
        "-maps",
        metavar="MAP",
        nargs="*",
        help="write maps (no name: confidence, entropy, margin, and mutual_information for several folders)",
    )
    add("-dtype", choices=("uint8", "float32"), default="uint8", help="of the maps (default: %(default)s, 255 = 1)")
    add_findings(parser)
    add_threshold(parser, f"with -map: {REASON_TO_LOOK['meaning']}", REASON_TO_LOOK["default"])
    add("--save_probabilities", action="store_true", help="save the probabilities (npz, pkl) too, to evaluate OUT")
    add("-gt", metavar="FOLDER", help="with -decide: ground truth, for the true Dice before and after")
    add_groups(parser)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--postprocessing", action="store_true", help="choose nnU-Net's postprocessing again")
    group.add_argument("-pp_pkl_file", metavar="FILE", help="apply this postprocessing.pkl of nnU-Net")
    add_processes(parser)
    add_files(parser, "in each folder or up to two levels above")
    add_trust(parser)
    add("--overwrite", action="store_true", help="do every case again (default: only what changed)")


def run(args: argparse.Namespace) -> int:
    """Reviews; exit status 1 if some cases could not be done."""
    import shlex
    from pathlib import Path

    from nnunet_nacl.cases.components import finding_channels
    from nnunet_nacl.cases.ensemble_members import find_cases, open_members
    from nnunet_nacl.cases.map_images import check_dtype
    from nnunet_nacl.cases.predicted_quality import open_map
    from nnunet_nacl.cases.reviewed_case import choose_maps
    from nnunet_nacl.cases.treatment import Treatment, beta_of
    from nnunet_nacl.cli.decision_table import summary_lines
    from nnunet_nacl.cli.postprocessing import apply_postprocessing, choose_postprocessing, read_postprocessing
    from nnunet_nacl.cli.problem_list import report_problems
    from nnunet_nacl.cli.review_text import print_list
    from nnunet_nacl.documents.map_file import named_map, structures_of
    from nnunet_nacl.documents.patient_groups import read_groups
    from nnunet_nacl.prediction.deliver import Delivery, deliver
    from nnunet_nacl.prediction.saved_predictions import SavedPredictions
    from nnunet_nacl.show.review_page import review_page
    from nnunet_nacl.show.thumbnail import draw_thumbnail

    processes, output = number_of_processes(args.np), Path(args.o)
    _check(args)
    postprocessing = read_postprocessing(args.pp_pkl_file) if args.pp_pkl_file else None
    members = open_members(args.i, dataset_json=args.djfile, plans=args.pfile)
    groups = read_groups(args.groups, [member.case for member in find_cases(members)[0]]) if args.groups else None
    maps: tuple[str, ...] = ()
    if args.maps is not None:
        check_dtype(args.dtype, members[0].file_ending)
        maps = choose_maps(args.maps, len(members))
    map_path = Path(args.map) if args.map else None
    treatment, quality = Treatment(beta=beta_of(args.decide, args.beta)), None
    if map_path:
        treatment, quality, _ = open_map(map_path, members[0], treatment.beta)
    unknown = "" if quality else "give the map that predicts it, -map."
    if quality and not quality.predicts_dice:
        unknown = "it was not learned for F-beta."
    delivery = Delivery(
        output,
        draw_thumbnail,
        treatment,
        quality,
        named_map(map_path) if map_path else None,
        maps,
        args.dtype,
        args.save_probabilities,
        finding_channels(members[0].labels, args.findings, quality.listed if quality else ()),
        threshold_of(args, unknown),
        shlex.join(["nnunet_nacl", *args.argv]),
    )
    saved = SavedPredictions(tuple(members), delivery, map_path, Path(args.gt) if args.gt else None)
    listed, problems = deliver(
        saved.source(num_processes=processes, need_all_references=args.postprocessing),
        delivery,
        page=review_page,
        title="review",
        again=args.overwrite,
        progress=True,
    )
    print_list(listed, output, "cases")
    if listed.decided:
        print("\n" + "\n".join(summary_lines(listed.decided, structures_of(members[0].labels), groups)))
        if not args.save_probabilities:
            print("To evaluate or compare them, run again with --save_probabilities.")
    print(f"segmentations: {output}")
    if maps:
        print(f"maps: {output / 'maps'}/CASE/   ({', '.join(maps)}; {args.dtype})")
    if args.postprocessing:
        choose_postprocessing(output, args.gt, processes)
    elif postprocessing:
        apply_postprocessing(output, postprocessing, processes)
    report_problems("review", problems)
    return 1 if problems else 0


def _check(args: argparse.Namespace) -> None:
    from nnunet_nacl.errors import UserError

    decided = args.decide is not None
    for flag in ("gt", "postprocessing", "pp_pkl_file"):
        if getattr(args, flag) and not decided:
            dashes = "--" if flag == "postprocessing" else "-"
            raise UserError(f"{dashes}{flag} is about decided segmentations: give -decide too.")
    if args.postprocessing and not args.gt:
        raise UserError("--postprocessing compares with the ground truth; give its folder with -gt.")
    if args.map and len(args.i) > 1:
        raise UserError(
            "a map calibrates one folder, not several members; make one with nnUNetv2_ensemble --save_npz and learn a "
            "map from such a folder (`nnunet_nacl calibrate -i ENSEMBLE -gt LABELS`)."
        )
    if args.groups and not args.gt:
        raise UserError("-groups is for the intervals of the true Dice; give the ground truth with -gt.")
