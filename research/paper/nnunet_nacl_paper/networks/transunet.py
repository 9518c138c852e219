"""TransUNet, 2D: a ResNet-50 of three stages, a vision transformer, a cascade of upsampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from nnunet_nacl_paper.files import InputError
from nnunet_nacl_paper.networks.planned import Planned, check_patch_size

_VIT = "vit_base_r50_s16_224"
_PATCH = 16  # pixels along each side of what is one token
_RGB = 3
_SKIPS = (512, 256, 64, 0)  # channels of the ResNet's stages at 1/8, 1/4, 1/2 and 1/1
_DROPOUT = 0.1
_DECODER = (256, 128, 64, 16)
_BRIDGE = 512


class TransUNet(nn.Module):
    """TransUNet (Chen et al., arXiv 2102.04306), R50-ViT-B/16, on timm's hybrid vision transformer.

    Stages of 3, 4 and 9 bottlenecks with group normalisation and standardised weights; 12
    transformer blocks of 768 channels on their output, a token a pixel, with learnt positions for
    the plans' patch size; from there up in four steps with the ResNet's features; dropout of 0.1 on
    the tokens and in the transformer's MLPs. Where the paper's code and Google's, whose weights it
    loads, differ in the ResNet (padding, groups of a shortcut's normalisation), timm and this
    network follow Google's. One image channel is given three times, as in the paper; two or more
    than three have a first convolution of their own. Features are the paper's, not the plans'.

    Args:
        planned: Patch size.
        num_inputs: Channels.
        num_outputs: Classes, or regions.

    Raises:
        InputError: The configuration is not 2D, or the patch size is no multiple of 16.
    """

    class_layer = "classes"

    def __init__(self, planned: Planned, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        if planned.num_axes != 2:
            raise InputError(
                "transunet is a network for slices: train it with the configuration 2d."
            )
        check_patch_size("transunet", planned.patch_size, (_PATCH, _PATCH))
        self._grid = tuple(size // _PATCH for size in planned.patch_size)
        channels = _RGB if num_inputs == 1 else num_inputs
        settings: Any = {
            "num_classes": 0,
            "class_token": False,
            "global_pool": "",
            "img_size": planned.patch_size,
        }
        transformer: Any = timm.create_model(
            _VIT, in_chans=channels, pos_drop_rate=_DROPOUT, proj_drop_rate=_DROPOUT, **settings
        )
        for block in transformer.blocks:
            block.attn.proj_drop = nn.Identity()
        self.transformer = transformer
        self.bridge = _convolution(transformer.embed_dim, _BRIDGE)
        self.upsample = nn.UpsamplingBilinear2d(scale_factor=2)
        self.blocks = nn.ModuleList()
        for before, skip, after in zip((_BRIDGE, *_DECODER), _SKIPS, _DECODER):
            first = _convolution(before + skip, after)
            self.blocks.append(nn.Sequential(first, _convolution(after, after)))
        self.classes = nn.Conv2d(_DECODER[-1], num_outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, num_inputs, rows, columns) -> logits (B, num_outputs, rows, columns)."""
        if x.shape[1] == 1:
            x = x.repeat(1, _RGB, 1, 1)
        transformer: Any = self.transformer
        resnet = transformer.patch_embed.backbone
        x = resnet.stem.norm(resnet.stem.conv(x))
        skips = [x]
        x = resnet.stem.pool(x)
        for stage in resnet.stages:
            x = stage(x)
            skips.append(x)
        skips.pop()  # the last stage goes through the transformer
        tokens = transformer.patch_embed.proj(x).flatten(2).transpose(1, 2)
        tokens = transformer.pos_drop(tokens + transformer.pos_embed)
        tokens = transformer.norm(transformer.blocks(tokens))
        x = self.bridge(tokens.transpose(1, 2).unflatten(2, self._grid))
        for block in self.blocks:
            x = self.upsample(x)
            if skips:
                x = torch.cat([x, skips.pop()], 1)
            x = block(x)
        return self.classes(x)


def _convolution(inputs: int, features: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, features, 3, padding=1, bias=False),
        nn.BatchNorm2d(features),
        nn.ReLU(inplace=True),
    )


def load_imagenet_weights(network: TransUNet, path: Path) -> None:
    """Give the encoder the weights of a ViT that was trained on ImageNet.

    Its positions are resampled to the network's grid.

    Args:
        network: Its decoder keeps its random weights.
        path: Google's R50+ViT-B_16.npz, as the paper uses it.

    Raises:
        InputError: The file is missing, or is not that of this network.
    """
    transformer: Any = network.transformer
    source: Any = timm.create_model(_VIT, num_classes=0, in_chans=transformer.patch_embed.in_chans)
    try:
        source.load_pretrained(str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give Google's R50+ViT-B_16.npz.") from None
    except Exception as error:
        # numpy's, zipfile's, and whatever weights of another network lead to
        raise InputError(
            f"{path}: holds no weights of R50+ViT-B_16 ({type(error).__name__}); give Google's"
            " R50+ViT-B_16.npz."
        ) from None
    weights = source.state_dict()
    del weights["cls_token"]
    positions = resample_abs_pos_embed(
        weights["pos_embed"], list(network._grid), num_prefix_tokens=1
    )
    weights["pos_embed"] = positions[:, 1:]  # the first is that of the class token
    transformer.load_state_dict(weights)
