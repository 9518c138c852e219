"""The networks of a model folder: how old they are, and nnU-Net's predictor with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_nacl.errors import UserError
from nnunet_nacl.io.checkpoint_files import read_checkpoint
from nnunet_nacl.io.image_files import quiet
from nnunet_nacl.io.named_objects import check_model
from nnunet_nacl.json_files import first_line, read_dict


def check_age(model: Path, checkpoint_name: str, predicted_ns: Mapping[str, int]) -> None:
    """UserError where a fold's checkpoint is younger than its oldest prediction, whose time is given by fold."""
    for fold, oldest in predicted_ns.items():
        if oldest < (model / f"fold_{fold}" / checkpoint_name).stat().st_mtime_ns:
            raise UserError(
                f"predictions of fold {fold} are older than {checkpoint_name}: this network did not make them. Predict "
                "again with `nnUNetv2_train ... --val --npz`, or pass --any_age if a copy of the folder changed the "
                "times."
            )


def load_predictor(model: Path, folds: Sequence[str], checkpoint_name: str, **options: Any) -> Any:
    """nnU-Net's predictor with the networks of a model, once its files were judged: no other place builds networks.

    Args:
        model: The model folder.
        folds: Its folds.
        checkpoint_name: File in each.
        **options: Of nnUNetPredictor.

    Raises:
        UserError: A file is missing, damaged, or can run code and is not trusted, or nnU-Net cannot build the network.
    """
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    checkpoints = [read_checkpoint(model / f"fold_{fold}" / checkpoint_name, mmap=True) for fold in folds]
    plans, dataset_json = (read_dict(model / name) for name in ("plans.json", "dataset.json"))
    try:
        with quiet():
            check_model(plans, dataset_json, checkpoints[0], model)
            predictor = nnUNetPredictor(**options)
            predictor.initialize_from_trained_model_folder(str(model), tuple(folds), checkpoint_name)
    except UserError:
        raise
    except Exception as error:  # an unknown trainer, weights of another network, ...
        raise UserError(f"{model}: nnU-Net cannot build this network ({first_line(error)}).") from None
    return predictor
