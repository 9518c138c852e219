"""Against the calibrators of `fiducio`, which fit by Adam, on the same voxels: what held-out cases say of each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.case_voxels import Voxels
from nnunet_nacl.calibration.fitting import fit_affine, fit_conditional
from nnunet_nacl.calibration.likelihood import case_loss
from tests.calibration.problems import chosen


def hardened(cases: int, voxels: int, rng: np.random.Generator) -> Iterator[Voxels]:
    """A network that sees the truth through noise, exaggerates, and adds to the class that it chose.

    By how much depends on the class, as Dice in the loss does: no map of any of the families made the truth.
    """
    for _ in range(cases):
        logits = rng.normal([1.0, 0, 0], 1.5, (voxels, 3)) + rng.normal(0, 0.2, 3)  # cases differ
        gumbel = rng.gumbel(size=logits.shape)
        target = torch.from_numpy((logits + gumbel).argmax(1))  # drawn with the probabilities softmax(logits)
        seen = 2.5 * (logits + rng.normal(0, 0.5, logits.shape))
        best = seen.argmax(1)
        seen[np.arange(voxels), best] += np.array([1.0, 4.0, 2.0])[best]
        odds = torch.from_numpy(seen[:, 1:] - seen[:, :1]).T.float()
        yield Voxels(odds, chosen(odds, False), target)


def loss_of(calibrator, cases: list[Voxels]) -> float:
    """Mean over cases of the negative log likelihood."""
    losses = []
    for voxels in cases:
        probs = calibrator.transform(as_logits([voxels]))
        losses.append(float(-probs.gather(1, voxels.target[:, None]).log().mean()))
    return float(np.mean(losses))


def as_logits(cases: list[Voxels]) -> torch.Tensor:
    """(N, 3) logits of all their voxels."""
    odds = torch.cat([voxels.log_odds for voxels in cases], 1)
    return torch.cat([torch.zeros_like(odds[:1]), odds]).T.contiguous()


def test_held_out_likelihood_is_no_worse_than_that_of_others():
    pytest.importorskip("torch", "2.10", reason="fiducio needs torch 2.10")
    fiducio = pytest.importorskip("fiducio", reason="needs fiducio: pip install fiducio")
    rng = np.random.default_rng(0)
    shown, held_out = (list(hardened(8, 1000, rng)) for _ in range(2))
    found = {}
    centre = fit_affine(shown, "temperature")
    maps = {"shift": fit_affine(shown, "shift").map, "conditional": fit_conditional(shown, centre, 1e-4).map}
    for name, calibration in (maps | {"as trained": CalibrationMap.identity(2)}).items():
        found[name] = float(np.mean([case_loss(voxels, calibration) for voxels in held_out]))
    target = torch.cat([voxels.target for voxels in shown])
    for name in ("TS", "DC", "CMSop", "CDC"):
        found[name] = loss_of(getattr(fiducio, name)().fit(as_logits(shown), target), held_out)
    assert found["conditional"] < 0.9 * found["as trained"]
    assert all(found["conditional"] < 0.99 * found[name] for name in ("shift", "TS", "DC", "CMSop")), found
    # CDC has matrices of log-probabilities, one number more a row, and may change labels
    assert found["conditional"] < 1.01 * found["CDC"], found
