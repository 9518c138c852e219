"""Writes a map into checkpoints: into the layer that makes the class channels.

    W'_k = W_0 + a_k (W_k - W_0),  bias likewise plus b_k      (regions: W'_r = a_r W_r, bias a_r c_r + b_r)

Stock nnU-Net then predicts calibrated probabilities: `nnUNetv2_predict ... -chk checkpoint_calibrated.pth`. Only an
affine map can travel so: the same slopes and offsets for every label.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.documents.document import FILE_NAME
from nnunet_nacl.documents.results import LARGEST_LOGIT
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import remove_leftovers, replacing
from nnunet_nacl.io.checkpoint_files import read_checkpoint, write_checkpoint
from nnunet_nacl.io.class_layers import WITHOUT_CHECKPOINTS, class_layers
from nnunet_nacl.io.image_files import quiet
from nnunet_nacl.io.named_objects import check_model
from nnunet_nacl.json_files import first_line, read_dict, read_json

CALIBRATED = "checkpoint_calibrated.pth"
MARK = "nnunet_nacl_calibration"
"""Key of a checkpoint that says by which map it was calibrated."""

_TOLERANCE = 1e-4  # relative: float32 convolutions agree to about 1e-6
_GAUSSIAN = 10.0  # nnU-Net weighs tiles by up to this, and adds them up in half precision


def check_original(model: Path, folds: Iterable[str], checkpoint_name: str) -> None:
    """UserError unless each fold has this checkpoint, and no map is in it."""
    for fold in folds:
        _read_original(model / f"fold_{fold}" / checkpoint_name, mmap=True)


def check_age(model: Path, checkpoint_name: str, predicted_ns: Mapping[str, int]) -> None:
    """UserError where a fold's checkpoint is younger than its oldest prediction, whose time is given by fold."""
    for fold, oldest in predicted_ns.items():
        if oldest < (model / f"fold_{fold}" / checkpoint_name).stat().st_mtime_ns:
            raise UserError(
                f"predictions of fold {fold} are older than {checkpoint_name}: this network did not make them. Predict "
                "again with `nnUNetv2_train ... --val --npz`, or pass --any_age if a copy of the folder changed the "
                "times."
            )


def _read_original(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    checkpoint = read_checkpoint(path, mmap=mmap)
    if MARK in checkpoint:
        raise UserError(f"{path} is calibrated already; calibrate from the original, checkpoint_final.pth.")
    return checkpoint


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


def bake(weights: dict[str, Tensor], layer: str, axis: int, calibration: LogOddsMap) -> dict[str, Tensor]:
    """The network's weights with the map in them; the given ones stay as they are.

    Args:
        weights: State dict.
        layer: Name of the layer, see :func:`~nnunet_nacl.io.class_layers.class_layers`.
        axis: Axis of its weight that the classes are on.
        calibration: The map.

    Raises:
        UserError: The layer has no such weights, no bias, or another number of channels.
    """
    try:
        weight, bias = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
    except KeyError as error:
        raise UserError(f"the checkpoint has no {error}: it is not of the network that the plans describe.") from None
    if weight.shape[axis] != calibration.num_channels or len(bias) != calibration.num_channels:
        raise UserError(
            f"{layer} makes {weight.shape[axis]} channels, the map is for {calibration.num_channels}; calibrate again."
        )
    matrix, vector = (torch.from_numpy(part) for part in calibration.matrix())
    mixed = torch.tensordot(matrix, weight.double().movedim(axis, 0), dims=1).movedim(0, axis)
    result = dict(weights)
    result[f"{layer}.weight"] = mixed.to(weight.dtype).contiguous()
    result[f"{layer}.bias"] = (matrix @ bias.double() + vector).to(bias.dtype)
    return result


def check_baked(
    network: nn.Module,
    original: dict[str, Tensor],
    calibrated: dict[str, Tensor],
    calibration: LogOddsMap,
    patch_shape: Sequence[int],
    largest_logit: float = 0,
) -> float:
    """Run both networks on one random patch in float32 and compare.

    Args:
        network: Takes either weights.
        original: Its weights.
        calibrated: Those with the map in them.
        calibration: The map.
        patch_shape: (channels, *spatial) of the patch.
        largest_logit: Largest absolute value of the network's logits on real cases, beside those of the patch; 0 if it
            was not measured.

    Returns:
        Largest difference of a calibrated logit from the map of the original ones.

    Raises:
        UserError: They differ by more than rounding, or calibrated logits may be too large for half precision.
    """
    patch = torch.from_numpy(np.random.default_rng(0).standard_normal((1, *patch_shape)).astype(np.float32))
    before, after = (_logits(network, weights, patch) for weights in (original, calibrated))
    expected = calibration.on_logits(before)
    difference = float((after.double() - expected).abs().max())
    if not difference <= _TOLERANCE * (1 + float(expected.abs().max())):
        raise UserError(
            f"the calibrated network differs from the map by {difference:.2g}: this network does something after the "
            f"layer that makes its class channels. {WITHOUT_CHECKPOINTS}."
        )
    most = torch.finfo(torch.half).max / (_GAUSSIAN * 2 ** (before.ndim - 1))
    matrix, offsets = calibration.matrix()
    possible = np.abs(matrix).sum(1) * largest_logit + np.abs(offsets)  # where the signs are the worst
    largest = max(float(after.abs().max()), float(possible.max()))
    if largest > most and largest > max(float(before.abs().max()), largest_logit):
        raise UserError(
            f"calibrated logits may reach {largest:.0f}, and nnU-Net adds tiles up in half precision, which overflows "
            f"from {most:.0f} on (slopes {calibration.slopes.round(3).tolist()}). {WITHOUT_CHECKPOINTS}."
        )
    return difference


@torch.no_grad()
def _logits(network: nn.Module, weights: dict[str, Tensor], patch: Tensor) -> Tensor:
    network.load_state_dict(weights)
    network.eval()
    try:
        output = network.float()(patch)
    except Exception as error:  # PyTorch raises several kinds where layers do not fit each other
        problem = f"cannot predict a patch of {tuple(patch.shape[2:])} voxels ({first_line(error)})"
        raise UserError(f"the network of these plans {problem}; restore plans.json.") from None
    return (output[0] if isinstance(output, (list, tuple)) else output)[0]


def write_calibrated(
    model: Path,
    folds: Sequence[str],
    checkpoint_name: str,
    calibration: LogOddsMap,
    description: dict[str, Any],
    *,
    output: Path | None = None,
    progress: bool = False,
) -> None:
    """Write ``checkpoint_calibrated.pth`` into each fold: all of them, or none if one cannot be made.

    Args:
        model: The model folder.
        folds: Its folds.
        checkpoint_name: The checkpoint that is calibrated; it stays as it is.
        calibration: An affine map, the same for all folds.
        description: What the checkpoint shall say about it, plain values.
        output: Folder that gets the folds' folders instead of the model's.
        progress: Show a progress bar on stderr.

    Raises:
        UserError: The network's last layer is not known, see :func:`bake` and :func:`check_baked`, or a file cannot be
            written.
    """
    from tqdm import tqdm

    with contextlib.ExitStack() as stack:  # at its end all get their names, or none if something went wrong
        for fold in tqdm(folds, desc="checkpoints", unit="fold", leave=False, disable=not progress):
            folder, place = model / f"fold_{fold}", (output or model) / f"fold_{fold}"
            place.mkdir(exist_ok=True)
            remove_leftovers(place)
            checkpoint = _read_original(folder / checkpoint_name)
            network, patch_shape = _network(model, fold, checkpoint_name)
            original, ((*_, layer), axis) = checkpoint["network_weights"], class_layers(network)
            weights = bake(original, layer, axis, calibration)
            check_baked(network, original, weights, calibration, patch_shape, _largest_logit(folder))
            temporary = stack.enter_context(replacing(place / CALIBRATED, fix="free space there"))
            write_checkpoint(checkpoint | {"network_weights": weights, MARK: description}, temporary)


def _largest_logit(fold: Path) -> float:
    """On the validation cases, where they were measured when they were predicted; else 0."""
    with contextlib.suppress(UserError, KeyError, TypeError, AttributeError):
        cases = read_json(fold / "validation" / FILE_NAME)["metric_per_case"]
        return max(value for case in cases if isinstance(value := case.get(LARGEST_LOGIT, 0), (int, float)))
    return 0


def _network(model: Path, fold: str, checkpoint_name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """The network as nnU-Net builds it for a prediction, and the shape of a patch with its channels."""
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    options: dict[str, Any] = {"device": torch.device("cpu"), "perform_everything_on_device": False}
    predictor = load_predictor(model, (fold,), checkpoint_name, **options)
    configuration = predictor.configuration_manager
    channels = determine_num_input_channels(predictor.plans_manager, configuration, predictor.dataset_json)
    network = getattr(predictor.network, "_orig_mod", predictor.network)  # not the compiled one: it runs twice only
    return network, (channels, *configuration.patch_size)
