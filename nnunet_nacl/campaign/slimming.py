"""Removes what a model needs no more once it is measured, so that hundreds of trainings fit a disk."""

from __future__ import annotations

import os
from pathlib import Path

from nnunet_nacl.cases.checkpoint_files import read_checkpoint, write_checkpoint
from nnunet_nacl.files import replacing

__all__ = ["drop_optimiser_state", "drop_probabilities"]


def drop_optimiser_state(fold_folder: Path) -> None:
    """The moments of the optimiser out of the final checkpoint, and the checkpoint of the best epoch.

    nnU-Net still loads the checkpoint, to predict and to validate. Its time stays, by which `nnunet_nacl calibrate`
    tells that the predictions are its own.

    Raises:
        UserError: It cannot be written, for want of space perhaps; the checkpoint stays as it was.
    """
    path = fold_folder / "checkpoint_final.pth"
    checkpoint = read_checkpoint(path)
    if (checkpoint.get("optimizer_state") or {}).get("state"):
        before = path.stat()
        checkpoint["optimizer_state"]["state"] = {}
        with replacing(path, fix="free some space") as temporary:
            write_checkpoint(checkpoint, temporary)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    (fold_folder / "checkpoint_best.pth").unlink(missing_ok=True)


def drop_probabilities(model_folder: Path) -> None:
    """Probabilities of all cases, of which the documents hold the measurements: of the folds and of the test cases."""
    for folder in (*model_folder.glob("fold_*/validation*"), *model_folder.glob("test*")):
        for path in folder.glob("*.npz"):
            path.unlink()
