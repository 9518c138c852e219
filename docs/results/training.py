"""Keeps how the networks of a model were trained, from the logs in their checkpoints.

    python docs/results/training.py MODEL VALUES

Writes VALUES/curves.csv from nnU-Net's folder MODEL: by fold and epoch training loss, validation loss and, for each
structure, the Dice that nnU-Net measures while training (`Dice STRUCTURE`, on patches). A fold that was not validated
yet is not finished, and left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch

from nnunet_nacl.documents.document import FILE_NAME, read_document
from nnunet_nacl.files import write_atomically
from nnunet_nacl.io.companion_files import fold_folders


def curve(checkpoint: Path, names: list[str]) -> pd.DataFrame:
    """A row for each epoch of one network.

    Args:
        checkpoint: Its checkpoint_final.pth.
        names: Of the structures, in nnU-Net's order.
    """
    log = torch.load(checkpoint, map_location="cpu", weights_only=False)["logging"]
    losses = pd.DataFrame({"training loss": log["train_losses"], "validation loss": log["val_losses"]})
    dice = pd.DataFrame(log["dice_per_class_or_region"], columns=names).add_prefix("Dice ")
    return pd.concat([losses, dice], axis=1).rename_axis("epoch").reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("values", type=Path, metavar="VALUES")
    arguments = parser.parse_args()
    curves = {}
    for fold, folder in fold_folders(arguments.model).items():
        if (document := folder / "validation" / FILE_NAME).is_file():
            names = list(read_document(document).names.values())
            curves[fold] = curve(folder / "checkpoint_final.pth", names)
    if not curves:
        raise SystemExit(f"{arguments.model}: no fold is trained and validated; train one with nnUNetv2_train first.")
    table = pd.concat(curves, names=["fold"]).reset_index("fold")
    arguments.values.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.values / "curves.csv", table.to_csv(index=False, float_format="%.5g"))


if __name__ == "__main__":
    main()
