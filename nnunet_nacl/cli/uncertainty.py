"""`nnunet_nacl uncertainty`: maps of what a prediction is unsure about, and the cases to look at first."""

from __future__ import annotations

import argparse

from nnunet_nacl.cli.processes import add_processes_option, number_of_processes

HELP = "write uncertainty maps of predictions and list the cases to look at first"

_DESCRIPTION = """\
For folders of predictions with probabilities (nnUNetv2_predict ... --save_probabilities, or a validation folder of
nnUNetv2_train ... --npz): writes maps of each voxel's uncertainty as images that overlay the scan in 3D Slicer or
ITK-SNAP, and review.csv, one row a case, those with the lowest expected Dice first, empty predictions before all.

Several folders of the same cases (each predicted with another fold, -f, or trainer) are taken as members of an
ensemble: maps of their mean, of what they disagree about, and the spread of the volumes. That spread is the only
uncertainty of a volume given without a map; with one folder there is none. No ground truth is needed.

With a calibration map (-map, of `nnunet_nacl calibrate`) and predictions that it calibrated, Dice and volume of every
structure are predicted from what the map learned on held-out cases, with 90 % intervals. They hold for patients like
those that the map was learned from.
"""

_EPILOG = """\
maps, all between 0 and 1:
  confidence           largest class probability
  entropy              entropy of the probabilities / log(number of classes): 0 certain, 1 undecided
  margin               largest minus second largest probability: 0 a tie, 1 certain
  mutual_information   what the members disagree about: entropy of their mean minus mean of their entropies
  expected_entropy     that mean of their entropies
Regions (sigmoid) are in-or-out each; the map shows the least certain region of each voxel.

columns of review.csv:
  rank, case, empty (nothing predicted), empty_structures, problem (why a case could not be done)
  flag, lowest_predicted_dice (with -map), STRUCTURE predicted_dice, predicted_volume_ml, each with
      _low and _high; flag is yes for empty predictions and where the lowest predicted Dice is below -threshold
  lowest_expected_dice decides the rank: the smallest STRUCTURE expected_dice of the predicted structures
  mean_foreground_entropy, ..._confidence, ..._mutual_information: means over the voxels of the predicted structures
  STRUCTURE expected_dice  Dice that the probabilities p promise: 2 sum_predicted p / (sum p + predicted voxels)
  STRUCTURE members_dice  mean Dice between the segmentations of two folders, over all pairs
  STRUCTURE expected_volume_ml  sum of p times the size of a voxel
  STRUCTURE volume_ml  predicted (area_mm2 in 2D, area_pixels without spacing); ..._sd, _min, _max between the folders
  STRUCTURE pieces, largest_piece  connected pieces, and the share of the structure in the largest
  STRUCTURE max_probability  largest anywhere in the image: how near an empty structure came to being predicted
An empty cell is a number that is not defined: means of an empty prediction, spread of one folder.

Writes OUT/review.csv, OUT/uncertainty.json (settings) and OUT/CASE/CASE_MAP.*, with CASE_segmentation.* beside. uint8
images hold round(255 * value). Run again, it does only the cases whose files or settings changed. Exit status: 0; 1 if
some cases could not be done (each is named, also at the end of review.csv; the others are written); 2 if nothing could.
The order is a ranking, no threshold is validated. Research software, not for clinical use.

examples:
  nnUNetv2_predict -i scans -o predictions -d 4 -c 3d_fullres -tr nnUNetTrainerNACL --save_probabilities
  nnunet_nacl uncertainty -i predictions -o review
  nnunet_nacl uncertainty -i predictions_calibrated -o review -map calibration_map.json -threshold 0.8
  nnunet_nacl uncertainty -i predictions_fold0 predictions_fold1 predictions_fold2 -o review -np 4
  nnunet_nacl uncertainty -i predictions -o review -maps entropy -dtype float32 --probabilities
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    add = parser.add_argument
    add(
        "-i",
        metavar="FOLDER",
        nargs="+",
        required=True,
        help="predictions; several folders of the same cases are members of an ensemble",
    )
    add("-o", metavar="FOLDER", required=True, help="output folder, not inside a folder of predictions")
    add(
        "-maps",
        metavar="MAP",
        nargs="+",
        help="which maps (default: confidence entropy margin, and mutual_information for several folders)",
    )
    add(
        "-dtype",
        choices=("uint8", "float32"),
        default="uint8",
        help="type of the images (default: %(default)s, 255 = 1)",
    )
    add("-map", metavar="FILE", help="calibration_map.json: predict Dice and volumes by what it learned")
    add("-threshold", metavar="DICE", type=float, help="with -map: flag cases whose lowest predicted Dice is below")
    add("--calibrated", action="store_true", help="with -map: predicted with the calibrated checkpoint of this map")
    add("--probabilities", action="store_true", help="also write the probabilities of each class or region")
    add_processes_option(parser)
    add("-djfile", metavar="FILE", help="dataset.json (default: in each folder or up to two levels above)")
    add("-pfile", metavar="FILE", help="plans.json (default: likewise)")
    add("--overwrite", action="store_true", help="do every case again (default: only what changed)")


def run(args: argparse.Namespace) -> int:
    """Writes the maps and the list; exit status 1 if some cases could not be done."""

    from nnunet_nacl.cases.map_folder import REVIEW_FILE
    from nnunet_nacl.cases.uncertainty import write_uncertainty
    from nnunet_nacl.cli.problem_list import report_problems
    from nnunet_nacl.documents.review_list import has_intervals, is_flagged, table_text

    processes = number_of_processes(args.np)
    review = write_uncertainty(
        args.i,
        args.o,
        maps=args.maps,
        dtype=args.dtype,
        probabilities=args.probabilities,
        calibration_map=args.map,
        calibrated=args.calibrated,
        threshold=args.threshold,
        dataset_json=args.djfile,
        plans=args.pfile,
        num_processes=processes,
        overwrite=args.overwrite,
        progress=True,
    )

    shown, predicted = min(10, len(review.cases)), review.predicted
    print(
        f"lowest expected Dice first ({shown} of {len(review.cases)} cases; of the worst structure; entropy and "
        "confidence are means over the predicted foreground):"
    )
    print(table_text(review.cases, rows=shown, predicted=predicted, threshold=args.threshold))
    if has_intervals(predicted):
        print("In brackets: 90 % intervals, for patients like those that the map was learned from.")
    if predicted is not None:
        if not review.as_deployed:
            print("The map learned from single networks: for the average of several folds the intervals do not hold.")
        if args.threshold is not None:
            n_flagged = sum(is_flagged(case, predicted[case.case], args.threshold) for case in review.cases)
            print(f"flag: {n_flagged} of {len(review.cases)} cases are empty or predicted below {args.threshold:g}.")
    elif len(review.members) > 1:
        print(f"+-: standard deviation between the volumes that the {len(review.members)} folders predicted.")
    else:
        print("One folder: no uncertainty of the volumes. Give several (-i FOLD0 FOLD1 ...) for their spread.")
    n_empty = sum(case.empty for case in review.cases)
    if n_empty:
        print(f"{n_empty} empty: nothing was predicted there.")
    print(f"\nlist: {review.output / REVIEW_FILE}")
    example = review.output / review.cases[0].case
    scale = ", 255 = 1" if args.dtype == "uint8" else ""
    print(f"maps: {example}/{example.name}_*   ({', '.join(review.settings.maps)}; {args.dtype}{scale})")
    print("The order is a ranking, no threshold is validated. Research software, not for clinical use.")
    report_problems("uncertainty", review.problems)
    return 1 if review.problems else 0
