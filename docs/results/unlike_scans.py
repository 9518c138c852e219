"""What scans look like to a model that was calibrated, and whether its intervals of Dice hold there.

    python docs/results/unlike_scans.py MODEL VALUES.csv SET=IMAGES:LABELS ... [-f 0 ...] [--every 1]

MODEL is nnU-Net's model folder with the calibration_map.json of `nnunet_nacl calibrate`, IMAGES a folder of scans,
LABELS their ground truth. Each scan is predicted by the average of the folds (-f), as `nnunet_nacl predict` does. A row
each: set, network, case, the numbers of its profile, and by structure the true and the predicted Dice with its 90 %
interval; before them the calibration scans (set `folds`), from the map. Rows that are there are not made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from nnunet_nacl.documents.map_file import MAP_FILE, read_record
from nnunet_nacl.files import write_atomically
from nnunet_nacl.io.image_files import read_images
from nnunet_nacl.prediction.input_cases import InputCase, find_input_cases
from nnunet_nacl.prediction.network import Network, segment_case
from nnunet_nacl.prediction.preprocessed_case import read_and_preprocess
from nnunet_nacl.prediction.profile import profile_names
from nnunet_nacl.prediction.trained_model import TrainedModel

KEYS = ["set", "network", "case"]


def calibration_rows(model: Path) -> list[dict]:
    """Of the profiles in the map."""
    record = read_record(model / MAP_FILE)
    profiles = record.quality.profiles if record.quality else None
    if profiles is None:
        raise SystemExit(f"{model / MAP_FILE} holds no profiles; calibrate again.")
    cases = [case for part in record.cross_fit.values() for case in part.cases]
    rows = zip(cases, profiles.values)
    return [{"set": "folds", "network": "single", "case": case} | dict(zip(profiles.names, row)) for case, row in rows]


def scan_row(model: TrainedModel, network: Network, case: InputCase, truth: Path) -> dict:
    """The numbers of a scan, and what its intervals are worth."""
    reviewed = segment_case(model, network.predict(read_and_preprocess(model, case, any_size=True)))
    labels, true = model.labels, read_images(model.opened.reader, [truth])[0][0]
    channels = model.opened.channel_names
    row = dict(zip(profile_names(labels, channels), np.round(reviewed.finished.profile, 5).tolist()))
    assert model.quality is not None
    known = model.quality.complete(reviewed.finished.row)
    for channel, structure in zip(labels.foreground, known.structures):
        there, segmented = labels.mask(true, channel), labels.mask(reviewed.case.segmentation, channel)
        size, name = there.sum() + segmented.sum(), structure.name
        row[f"Dice {name}"] = 2 * (there & segmented).sum() / size if size else np.nan
        row[f"predicted Dice {name}"] = structure.predicted_dice
        row[f"Dice low {name}"], row[f"Dice high {name}"] = structure.dice_interval
    return row | {"entropy": known.mean_foreground_entropy, "confidence": known.mean_foreground_confidence}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("values", type=Path)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("-f", nargs="+", type=int, default=[0])
    parser.add_argument("--every", type=int, default=1, help="2 takes every second scan")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = pd.read_csv(args.values).to_dict("records") if args.values.exists() else []
    done = {tuple(row[key] for key in KEYS) for row in rows}
    if not done:
        rows += calibration_rows(args.model)
    model = TrainedModel.open(args.model, folds=args.f)
    network = Network(model, device="cpu")
    kind = "average" if len(args.f) > 1 else f"single_{args.f[0]}"
    todo = []
    for entry in args.sets:
        name, _, places = entry.partition("=")
        images, labels = map(Path, places.split(":"))
        cases = find_input_cases(images, model.opened)[0][:: args.every]
        todo += [(name, case, labels) for case in cases if (name, kind, case.case) not in done]
    for name, case, labels in tqdm(todo, "predict", unit="scan"):
        truth = labels / f"{case.case}{model.opened.file_ending}"
        rows.append({"set": name, "network": kind, "case": case.case} | scan_row(model, network, case, truth))
        write_atomically(args.values, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))


if __name__ == "__main__":
    main()
