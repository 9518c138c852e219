"""Calibration maps from arrays in memory: for probabilities that nnU-Net's folders do not hold."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

import nnunet_nacl
from nnunet_nacl.calibration.case_voxels import HeldOutCase, pack
from nnunet_nacl.calibration.crossfit import CrossFit, choose, cross_fit, parts_of
from nnunet_nacl.calibration.likelihood import case_loss
from nnunet_nacl.calibration.log_odds import log_odds, most_probable, network_box
from nnunet_nacl.calibration.sampling import draw_sample
from nnunet_nacl.documents.calibration_map import SCOPE, CalibrationMap, MapPart
from nnunet_nacl.documents.map_file import map_to_json
from nnunet_nacl.documents.stored_map import stored_map


def record_of_fits(
    tried: Sequence[CrossFit], chosen: CrossFit, structures: Mapping[str, str], **known
) -> CalibrationMap:
    """What the file of fitted maps holds: of each form the best, with its ridge.

    Args:
        tried: All fits.
        chosen: That in use.
        structures: Name of each structure by nnU-Net's key, in order.
        **known: Further attributes of the record.
    """
    fits = {name: choose(tried, name) for name in dict.fromkeys(each.score.form for each in tried)}
    fits[chosen.score.form] = chosen
    content = map_to_json({name: each.map for name, each in fits.items()}, chosen.score.form, structures)
    for name, each in fits.items():
        content["maps"][name] = stored_map(each.map) | {"ridge": each.score.ridge}
    version = f"nnunet_nacl {nnunet_nacl.__version__}"
    return CalibrationMap(**content, generated_by=version, forms=[each.score for each in tried], **known)


def fit_map(
    probabilities: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    *,
    groups: Sequence[Hashable] | None = None,
    names: Sequence[str] | None = None,
    form: str = "auto",
    regions: bool = False,
) -> CalibrationMap:
    """See :meth:`nnunet_nacl.documents.calibration_map.CalibrationMap.fit`."""
    if len(probabilities) != len(labels) or groups is not None and len(groups) != len(labels):
        raise ValueError(f"one label map, and group, is needed for each of {len(probabilities)} cases.")
    cases = [_case(np.asarray(p), np.asarray(y), regions) for p, y in zip(probabilities, labels)]
    voxels = [draw_sample(case).voxels() for case in cases]
    num = len(voxels[0].log_odds)
    keys = [str(i + (not regions)) for i in range(num)]
    patients = [str(group) for group in (range(len(cases)) if groups is None else groups)]
    parts = parts_of(patients)
    tried = cross_fit(voxels, parts, groups=patients)
    chosen = choose(tried, form)
    known = [f"case {i}" for i in range(len(cases))]
    return record_of_fits(
        tried,
        chosen,
        dict(zip(keys, names or [f"structure {key}" for key in keys])),
        labels=["out", "in"] if regions else ["background", *(names or keys)],
        n_cases=len(cases),
        scope=SCOPE,
        nll=float(np.mean([case_loss(case, chosen.map) for case in voxels])),
        groups=dict(zip(known, patients)) if groups is not None else {},
        cross_fit={
            part: MapPart([case for case, its in zip(known, parts) if its == part], stored_map(fitted))
            for part, fitted in chosen.part_maps.items()
        },
    )


def _case(probs: np.ndarray, labels: np.ndarray, regions: bool) -> HeldOutCase:
    """The voxels of a case inside the network's crop."""
    expected = probs.shape if regions else probs.shape[1:]
    highest = 1 if regions else len(probs) - 1
    if labels.shape != expected or labels.min(initial=0) < 0 or labels.max(initial=0) > highest:
        raise ValueError(
            f"labels must have the shape {expected} and values from 0 to {highest}, got {labels.shape} with "
            f"{labels.min(initial=0)} to {labels.max(initial=0)}."
        )
    if (box := network_box(probs, regions)) is None:
        raise ValueError("nothing but certain background; leave this case out.")
    odds = log_odds(probs[(slice(None), *box)], regions).flatten(1)
    inside = probs[(slice(None), *box)].reshape(len(probs), -1)
    chosen: np.ndarray = np.asarray(most_probable(_tensor(inside), regions))
    if regions:
        target = pack(labels[(slice(None), *box)].reshape(len(labels), -1).astype(bool), len(labels))
        label = pack(chosen, len(labels))
    else:
        kind = np.uint8 if len(probs) <= 256 else np.uint16
        target, label = labels[box].ravel().astype(kind), chosen.astype(kind)
    masks, outside = np.zeros(len(target), np.uint8), np.zeros((0, 3), np.int64)
    return HeldOutCase(target, label, masks, outside, regions, lambda: iter([odds]))


def _tensor(values: np.ndarray):
    import torch

    return torch.from_numpy(np.ascontiguousarray(values))
