"""The layer of a network whose bias carries a decision, found and tried."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from nnunet_nacl.nnunet.class_layers import class_layers
from nnunet_nacl.nnunet.predicted import Network
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.settings import NetworkSettings
from nnunet_nacl.utilities.errors import UserError

_TOLERANCE = 1e-5
"""Of a shift of the logits, as a share of the largest logit where that is above 1."""


def find_decision_layer(model: TrainedModel, settings: NetworkSettings) -> str:
    """Name of the layer whose output is a network's logits.

    One patch of noise is predicted twice, as the network is and with other numbers added to each
    channel of the layer's bias: the logits have to differ by just these.

    Args:
        model: Its first fold is tried.
        settings: How it predicts, on a device that is here.

    Raises:
        UserError: No such layer is known, it has no bias, or the logits differ by something else.
    """
    network = Network(model.of_fold(model.folds[0]), settings).module
    name = type(network).__name__
    layers = class_layers(network)
    if not layers:
        raise UserError(
            f"{model.folder}: the segmentation layer of {name} is not known, so no bias can be"
            " added to it; it has to be nnU-Net's U-Net or Primus, or name its `class_layer`."
        )
    layer = network.get_submodule(layers[-1])
    bias = getattr(layer, "bias", None)
    if not isinstance(bias, nn.Parameter):
        raise UserError(f"{model.folder}: the layer {layers[-1]} of {name} has no bias to add to.")
    error = _try_shift(network, bias, _noise(model))
    if not error <= _TOLERANCE:  # not even where it is no number
        raise UserError(
            f"{model.folder}: a number added to the bias of {layers[-1]} of {name} does not shift"
            f" the logits by as much (off by {error:.2g}), so no decision can be put there."
        )
    return layers[-1]


def _noise(model: TrainedModel) -> torch.Tensor:
    """(1, channels, *patch) noise, as the network's input is normalised."""
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    num_channels = determine_num_input_channels(
        model.plans_manager, model.configuration_manager, model.dataset.dataset_json
    )
    shape = (1, num_channels, *model.configuration_manager.patch_size)
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(noise)


@torch.inference_mode()
def _try_shift(network: nn.Module, bias: nn.Parameter, patch: torch.Tensor) -> float:
    """How far the logits of a patch differ from shifted ones, relative to the largest."""
    patch = patch.to(bias.device)
    before = network(patch)
    added = torch.arange(1.0, len(bias) + 1, device=bias.device, dtype=bias.dtype)
    bias.add_(added)
    after = network(patch)
    bias.sub_(added)
    expected = before + added.reshape(1, -1, *[1] * (before.ndim - 2))
    return float((after - expected).abs().max() / expected.abs().max().clamp_min(1))
