"""Checkpoints that nnU-Net alone can predict with."""

from __future__ import annotations

import io
from pathlib import Path

from nnunet_nacl.errors import UserError
from nnunet_nacl.io.checkpoint_files import read_checkpoint
from nnunet_nacl.io.image_files import quiet
from nnunet_nacl.json_files import first_line

STOCK_TRAINER = "nnUNetTrainer"
# What nnU-Net's predictor asks of a trainer's class. All else of a trainer matters in training only.
_NETWORK_METHOD = "build_network_architecture"


def check_portable(trainer: str) -> None:
    """UserError where nnU-Net's own trainer would build another network than this one does.

    Args:
        trainer: Class name, as checkpoints record it.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        with quiet():
            found = recursive_find_trainer_class_by_name(trainer)
    except Exception as error:
        raise UserError(
            f"the trainer {trainer} cannot be found ({first_line(error)}); install the package that has it."
        ) from None
    own = getattr(found, _NETWORK_METHOD)
    if getattr(own, "__func__", own) is not getattr(nnUNetTrainer, _NETWORK_METHOD):
        raise UserError(
            f"{trainer} builds its own network, which {STOCK_TRAINER} would not build; leave out --portable and "
            "install the package that has this trainer where the model is used."
        )


def portable_checkpoint(path: Path) -> bytes:
    """The checkpoint with nnU-Net's own trainer recorded in place of its own; all else is as it was.

    Args:
        path: A checkpoint that nnU-Net wrote, or a calibrated copy of one.

    Raises:
        UserError: It cannot be read, or is no checkpoint of nnU-Net.
    """
    import torch

    checkpoint = read_checkpoint(path)
    checkpoint["trainer_name"] = STOCK_TRAINER
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    return stream.getvalue()
