"""Time of a calibration map on one synthetic case, beside nnU-Net's export of it, and of fits
beside those of fiducio.

    python research/benchmarks/calibration_map.py [--shape 200 384 384] [--classes 14] [--core N]
    python research/benchmarks/calibration_map.py --records MODEL/fold_0/validation/records ...

First: the logits of a case go through nnU-Net's export (resampling from voxels twice as large in
the plane, softmax, label map); then its probabilities are read in blocks, once as they are and once
through a map. The map's time is the difference. The goal: at most 0.2 of the export's. Voxels where
no structure has a probability above one in a million are left as they are, and take no time: none
is in the first case, 80 % are in the second. Second: every form is fitted to the samples of all
cases, and so are the calibrators of fiducio (if it is installed) to as many voxels, drawn from the
samples by their weights. CPU time.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from export import make_logits, plans
from page import pin_to_one_core

from nnunet_nacl.estimators.voxels import Voxels


def map_beside_export(classes: int, shape: tuple[int, ...], certain: float) -> None:
    """Prints the times, where a share of the layers is background for certain."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_nacl.estimators.log_odds_map import LogOddsMap, map_from_tables
    from nnunet_nacl.nnunet.export import export_logits

    coarse = (shape[0], shape[1] // 2, shape[2] // 2)
    names = {"background": 0, **{f"organ {k}": k for k in range(1, classes)}}
    manager = PlansManager(plans())
    configuration = manager.get_configuration("3d_fullres")
    properties = {
        "spacing": [1.5, 0.4, 0.4],
        "shape_before_cropping": shape,
        "shape_after_cropping_and_before_resampling": shape,
        "bbox_used_for_cropping": [[0, n] for n in shape],
    }
    logits = make_logits(classes, coarse)
    logits[0, : round(certain * shape[0])] += 12
    labels = manager.get_label_manager({"labels": names})
    start = time.process_time()
    exported = export_logits(logits, properties, configuration, manager, labels)
    export_seconds = time.process_time() - start
    rng = np.random.default_rng(0)
    num_structures = classes - 1
    slopes = rng.uniform(0.7, 1.3, (classes, num_structures))
    offsets = rng.normal(size=(classes, num_structures))
    calibration = map_from_tables(slopes, offsets)

    def read_blocks(applied: LogOddsMap | None) -> float:
        start = time.process_time()
        for where in exported.boxes():
            exported.under(applied, where)
        return time.process_time() - start

    plain_seconds = read_blocks(None)
    mapped_seconds = read_blocks(calibration)
    share = (mapped_seconds - plain_seconds) / export_seconds
    print(
        f"{certain:.0%} certain: export {export_seconds:.1f} s, probabilities"
        f" {plain_seconds:.1f} s, calibrated ones {mapped_seconds:.1f} s: the map takes"
        f" {share:.2f} of the export"
    )


def fits(folders: list[Path]) -> None:
    """Prints the times of fits."""
    from nnunet_nacl.cases.record import read_record
    from nnunet_nacl.estimators.crossfit import RIDGES
    from nnunet_nacl.estimators.fitting import fit_conditional, fit_temperature

    cases = []
    for folder in folders:
        for path in sorted(folder.glob("*.npz")):
            sample = read_record(path).sample
            if sample is not None:
                cases.append(sample.voxels())
    num_voxels = sum(len(voxels.target) for voxels in cases)
    print(f"{len(cases)} cases, {num_voxels:,} voxels")
    start = time.process_time()
    prior_map = fit_temperature(cases)
    print(f"temperature  {time.process_time() - start:.1f} s")
    start = time.process_time()
    fit_conditional(cases, prior_map, RIDGES[-1])
    print(f"conditional  {time.process_time() - start:.1f} s")
    fits_of_fiducio(cases)


def fits_of_fiducio(cases: list[Voxels]) -> None:
    """Prints the times of its fits to as many voxels, drawn by their weights."""
    try:
        import fiducio
    except ImportError:
        print("fiducio is not installed")
        return
    rng = np.random.default_rng(0)
    logits = []
    target = []
    for voxels in cases:
        weights = voxels.all_weights.numpy()
        places = rng.choice(len(weights), len(weights), p=weights / weights.sum())
        drawn = torch.from_numpy(places)
        odds = voxels.log_odds[:, drawn].float()
        logits.append(torch.cat([torch.zeros_like(odds[:1]), odds]).T)
        target.append(voxels.target[drawn].long())
    for name in ("TS", "CMSop", "CDC"):
        start = time.process_time()
        getattr(fiducio, name)().fit(torch.cat(logits), torch.cat(target))
        print(f"{name:<12} {time.process_time() - start:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", type=int, nargs=3, default=[200, 384, 384])
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--core", type=int)
    parser.add_argument("--records", type=Path, nargs="+")
    arguments = parser.parse_args()
    pin_to_one_core(arguments.core)
    if arguments.records:
        fits(arguments.records)
    else:
        for certain in (0.0, 0.8):
            map_beside_export(arguments.classes, tuple(arguments.shape), certain)


if __name__ == "__main__":
    main()
