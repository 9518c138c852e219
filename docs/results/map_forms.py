"""Measures every form of the calibration map on the same cases, with the network's labels kept.

    python docs/results/map_forms.py MODEL VALUES.csv                          cross-fitted, on the validation cases
    python docs/results/map_forms.py MODEL VALUES.csv -i NAME=PREDICTIONS ... -gt LABELS     on other cases

MODEL is nnU-Net's model folder, whose folds kept the probabilities of their validation cases (--npz). The maps are
fitted to their samples as `nnunet_nacl calibrate` does it; with predictions, the maps of all cases are measured on
them. A row of VALUES.csv is one case of one network under one form. A table of means goes to the terminal; the bias
is of the expected Dice, its error the mean over structures. With --peers, calibrators of the package fiducio stand
beside: they are fitted to voxels drawn evenly from the same cases, and the network's labels are kept as well.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from nnunet_nacl.calibration.crossfit import choose, cross_fit, parts_of
from nnunet_nacl.calibration.log_odds import network_box
from nnunet_nacl.documents.document import Evaluation
from nnunet_nacl.documents.patient_groups import read_groups
from nnunet_nacl.files import write_atomically
from nnunet_nacl.io.locate import find_fold_folders
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.io.treatment import Treatment
from nnunet_nacl.runs.evaluate import evaluate_folder
from nnunet_nacl.runs.heldout import HeldOut, case_values
from nnunet_nacl.runs.quality_block import quality_rows

AS_TRAINED = "as trained"
COLUMNS = (
    *(f"ECE {mask}" for mask in ("foreground", "union", "dilated", "predicted", "all")),
    *(f"{score} {mask}" for score in ("NLL", "Brier") for mask in ("dilated", "all")),
)


def rows_of(evaluation: Evaluation, network: str, form: str) -> pd.DataFrame:
    """A row a case: calibration, Dice, and how far the expected Dice is off."""
    cases = sorted(case.case for case in evaluation.cases)
    by_name = {case.case: case for case in evaluation.cases}
    values = pd.DataFrame([case_values(by_name[case].bins) for case in cases])
    table = values[list(COLUMNS)].copy()
    quality = quality_rows([by_name[case] for case in cases])
    assert quality is not None  # documents of this version have it
    off = quality.predicted[..., 0] - quality.true_dice
    with np.errstate(invalid="ignore"):
        table["Dice"] = np.nanmean(quality.true_dice, axis=1)
        table["expected Dice off"], table["bias"] = np.nanmean(np.abs(off), axis=1), np.nanmean(off, axis=1)
    table.insert(0, "case", cases)
    table.insert(0, "form", form)
    table.insert(0, "network", network)
    return table


class Peer:
    """A calibrator of fiducio as a map: probabilities in, probabilities out.

    Attributes:
        slopes: Names it in the signature of what is measured with it; so do the offsets.
    """

    def __init__(self, name: str, held_out: HeldOut, cases: list[str], voxels: int) -> None:
        import fiducio

        rng, logits, target = np.random.default_rng(0), [], []
        for case in cases:
            found = held_out.folders[held_out.fold[case]].load(held_out.files[case])
            box, probs = found.probabilities.crop, found.probabilities.whole()
            if box is not None:
                inside = probs[(slice(None), *box)].reshape(len(probs), -1)
                drawn = rng.choice(inside.shape[1], min(voxels, inside.shape[1]), replace=False)
                logits.append(np.log(np.maximum(inside[:, drawn], np.finfo(np.float32).tiny)).T)
                target.append(found.truth[box].reshape(-1)[drawn])
        rows = torch.from_numpy(np.concatenate(logits)).float()
        start = time.process_time()
        self._fitted = getattr(fiducio, name)().fit(rows, torch.from_numpy(np.concatenate(target).astype(np.int64)))
        print(f"{name}: fitted to {len(rows):,} voxels in {time.process_time() - start:.0f} s of CPU time")
        self.slopes, self.offsets = np.array([hash((name, *cases)) % 2**31]), np.zeros(1)

    def __call__(self, probs: np.ndarray, inside: tuple[slice, ...] | None = None) -> np.ndarray:
        result = probs.astype(np.float32)
        box = inside or network_box(probs)
        if box is not None and result[(slice(None), *box)].size:
            own = result[(slice(None), *box)]
            logs = torch.from_numpy(np.log(np.maximum(own, np.finfo(np.float32).tiny)).reshape(len(own), -1).T.copy())
            result[(slice(None), *box)] = self._fitted.transform(logs).T.reshape(own.shape).numpy()
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("values", type=Path)
    parser.add_argument("-f", nargs="+", help="folds (default: all)")
    parser.add_argument("-i", nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("-gt", type=Path)
    parser.add_argument("-groups", help="as `nnunet_nacl calibrate` takes them")
    parser.add_argument("--peers", nargs="*", default=[], metavar="NAME", help="of fiducio: TS, CMSop, CDC, ...")
    parser.add_argument("-voxels", type=int, default=20_000, help="of a case, for the peers")
    parser.add_argument("-np", type=int, default=1)
    arguments = parser.parse_args()
    held_out = HeldOut(find_fold_folders(arguments.model, arguments.f))
    cases = list(held_out.files)
    groups = read_groups(arguments.groups, cases) if arguments.groups else {case: case for case in cases}
    patients, folds = [groups[case] for case in cases], [held_out.fold[case] for case in cases]
    parts = parts_of(patients, folds if len(held_out.folders) > 1 else None)
    tried = cross_fit([held_out.sample(case).voxels() for case in cases], parts, groups=patients)
    for one in tried:
        score = one.score
        print(
            f"{score.form:<12} ridge {score.ridge:g}  left-out NLL {score.nll:.5f}  excess {score.excess:.5f} "
            f"(standard error {score.standard_error:.5f})"
        )
    print(f"chosen: {choose(tried).score.form}, ridge {choose(tried).score.ridge:g}\n")
    tables = []
    for form in (AS_TRAINED, *dict.fromkeys(one.score.form for one in tried), *arguments.peers):
        maps, whole = None, None
        if form in arguments.peers:
            names = [None] if arguments.i else sorted(set(parts))
            shown = {out: [case for case, part in zip(cases, parts) if part != out] for out in names}
            made = {out: Peer(form, held_out, shown[out], arguments.voxels) for out in names}
            whole, maps = made.get(None), {case: made.get(part) for case, part in zip(cases, parts)}
        elif form != AS_TRAINED:
            fitted = choose(tried, form)
            whole, maps = fitted.fit.map, {case: fitted.part_maps[part] for case, part in zip(cases, parts)}
        for fold, folder in held_out.folders.items() if not arguments.i else ():
            here = replace(folder, treatment={case: Treatment(one) for case, one in maps.items()}) if maps else folder
            output = folder.folder.parent / f"form_{form.replace(' ', '_')}" / "calibration.json"
            found = evaluate_folder(here, output=output, num_processes=arguments.np, progress=True)
            tables.append(rows_of(found, f"fold_{fold}", form))
        for named in arguments.i:
            name, _, place = named.partition("=")
            folder = PredictionFolder.open(place, arguments.gt)
            here = replace(folder, treatment=Treatment(whole)) if whole else folder
            output = Path(place) / f"form_{form.replace(' ', '_')}" / "calibration.json"
            tables.append(rows_of(evaluate_folder(here, output=output, num_processes=arguments.np), name, form))
    table = pd.concat(tables)
    arguments.values.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.values, table.to_csv(index=False, float_format="%.6g"))
    keys = ["network", "form"] if arguments.i else ["form"]
    numbers = table.columns.drop(["network", "form", "case"])
    print(table.groupby(keys, sort=False)[list(numbers)].mean().round(4).to_string())


if __name__ == "__main__":
    main()
