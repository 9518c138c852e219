"""Other calibrators, fitted to the same held-out cases as a map: nnU-Net's labels are kept under all of them.

`temperature` is that of `nnunet_nacl calibrate`, fitted to the same samples as its map. CMSop and CDC are calibrators
by predicted class of the package fiducio (arXiv 2607.01902), fitted to voxels drawn evenly from the same cases by
L-BFGS; CDC_Adam by the steps of Adam that are fiducio's default.
"""

from __future__ import annotations

import numpy as np
import torch

from nnunet_nacl.calibration.fitting import fit_affine
from nnunet_nacl.calibration.log_odds import network_box
from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.runs.heldout import HeldOut

PEERS = ("temperature", "CMSop", "CDC", "CDC_Adam")
VOXELS = 20_000
"""Of a case, for fiducio's."""


class Fiducio:
    """A calibrator of fiducio as a map: probabilities in, probabilities out.

    Attributes:
        slopes: Names it in the signature of what is measured with it; so do the offsets.
    """

    def __init__(self, name: str, held_out: HeldOut, cases: list[str]) -> None:
        import fiducio

        logits, target = zip(*(_drawn(held_out, case) for case in cases))
        classes = torch.from_numpy(np.concatenate(target).astype(np.int64))
        optimizer = "adam" if name.endswith("_Adam") else "lbfgs"
        self._fitted = getattr(fiducio, name.removesuffix("_Adam"))(optimizer=optimizer).fit(torch.cat(logits), classes)
        text = " ".join((name, optimizer, str(VOXELS), *cases)).encode()
        self.slopes, self.offsets = np.frombuffer(text.ljust(8 * -(-len(text) // 8)), np.int64), np.zeros(1)

    def __call__(self, probs: np.ndarray, inside: tuple[slice, ...] | None = None) -> np.ndarray:
        result = probs.astype(np.float32)
        box = inside or network_box(probs)
        if box is not None and result[(slice(None), *box)].size:
            own = result[(slice(None), *box)]
            changed = self._fitted.transform(_logs(own.reshape(len(own), -1)))
            result[(slice(None), *box)] = changed.T.reshape(own.shape).numpy()
        return result


_DRAWN: dict[str, tuple[torch.Tensor, np.ndarray]] = {}


def _drawn(held_out: HeldOut, case: str) -> tuple[torch.Tensor, np.ndarray]:
    """(n, K) log probabilities and (n,) classes of ``VOXELS`` voxels of a case; a case is read once."""
    if case not in _DRAWN:
        loaded = held_out.folders[held_out.fold[case]].load(held_out.files[case])
        box, probs = loaded.probabilities.crop, loaded.probabilities.whole()
        box = box or (slice(0),) * (probs.ndim - 1)  # nothing was predicted
        inside, classes = probs[(slice(None), *box)].reshape(len(probs), -1), loaded.truth[box].reshape(-1)
        places = np.random.default_rng(0).choice(len(classes), min(VOXELS, len(classes)), replace=False)
        _DRAWN[case] = _logs(inside[:, places]), classes[places]
    return _DRAWN[case]


def _logs(probs: np.ndarray) -> torch.Tensor:
    """(n, K) log probabilities of (K, n)."""
    return torch.from_numpy(np.log(np.maximum(probs, np.finfo(np.float32).tiny)).T.copy()).float()


def fit_peer(name: str, held_out: HeldOut, cases: list[str]) -> LogOddsMap | Fiducio:
    """Fit one of ``PEERS`` to cases."""
    if name != "temperature":
        return Fiducio(name, held_out, cases)
    return fit_affine([held_out.sample(case).voxels() for case in cases], name, with_errors=False).map
