"""checkpoint_tuned.pth: a network with biases added to its last segmentation layer, and tuned.json
beside it, which says what it was made from.

Mirrored copies, tiles, folds and linear resampling average logits, so a constant passes through
each of them, but for nnU-Net's half precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import TypedDict

import nnunet_nacl
from nnunet_nacl.nnunet.trust import read_checkpoint
from nnunet_nacl.settings import TUNED
from nnunet_nacl.utilities.command_lines import tune_command
from nnunet_nacl.utilities.errors import UserError, first_line
from nnunet_nacl.utilities.files import checksum, replacing, to_json_text, write_atomically
from nnunet_nacl.utilities.json_files import decode, read_dict
from nnunet_nacl.utilities.json_types import Number, doc

DESCRIPTION = "tuned.json"
SCHEMA_VERSION = 1
_LEFT_OUT = ("optimizer_state", "grad_scaler_state")
"""Of a checkpoint, what a training needs to go on: a tuned network must not be trained on."""


class TunedChange(TypedDict):
    """What the biases change of one value, on cases that they were not chosen on."""

    structure: Annotated[str, doc("nnU-Net's key; empty for all together.")]
    value: Annotated[str, doc("Such as Dice or missed.")]
    before: Annotated[Number, doc("Mean with the network's own labels.")]
    after: Annotated[Number, doc("Mean with the biases.")]
    difference: Annotated[Number, doc("After minus before.")]
    low: Annotated[Number, doc("Lower end of its 95 % interval.")]
    high: Annotated[Number, doc("Upper end.")]


class TunedNetwork(TypedDict):
    """tuned.json: what `nnunet_nacl tune` has added to a network."""

    schema_version: Annotated[int, doc("Version of this format.")]
    generated_by: Annotated[str, doc("Package and version.")]
    checkpoint: Annotated[str, doc("File that it was made from, in the same folder.")]
    checkpoint_sha256: Annotated[str, doc("SHA-256 of that file.")]
    tuned_sha256: Annotated[str, doc("SHA-256 of checkpoint_tuned.pth.")]
    replaced_sha256: Annotated[
        str, doc("That of the one that lay there before; empty without one.")
    ]
    map_sha256: Annotated[str, doc("SHA-256 of the final network's map; empty without one.")]
    layer: Annotated[str, doc("The layer whose bias was changed.")]
    biases: Annotated[dict[str, float], doc("By nnU-Net's key, what was added to the logit.")]
    thresholds: Annotated[
        dict[str, float],
        doc("By the same, the probability against the background at which that cuts."),
    ]
    metric: Annotated[str, doc("What was maximised: dice or present; empty for own thresholds.")]
    cases: Annotated[list[str], doc("That the biases were chosen on.")]
    changes: Annotated[list[TunedChange], doc("What they change, on cases that were left out.")]


class _Made(TypedDict):
    """What is read back of tuned.json."""

    checkpoint: str
    checkpoint_sha256: str
    tuned_sha256: str
    replaced_sha256: str


@dataclass(frozen=True)
class Decision:
    """What is added to a network, and what is known of it.

    Attributes:
        layer: Name of the layer that makes its class channels.
        biases: By nnU-Net's key of each structure, what is added to its logit.
        first_channel: Channel of the first structure: 1 beside a background, 0 for regions.
        about: All else that tuned.json says: ``map_sha256``, ``thresholds``, ``metric``, ``cases``
            and ``changes``.
    """

    layer: str
    biases: Mapping[str, float]
    first_channel: int
    about: Mapping[str, Any]


def write_tuned(fold_folder: Path, checkpoint: str, decision: Decision) -> Path:
    """Write checkpoint_tuned.pth and tuned.json into the folder of a fold.

    All but the bias and the optimiser's state is that of the checkpoint.

    Args:
        fold_folder: nnU-Net's ``fold_X``.
        checkpoint: File of the network there that is tuned.
        decision: What is added to it.

    Returns:
        The checkpoint that was written.

    Raises:
        UserError: The network has no such bias, or a file cannot be written.
    """
    import torch

    source = fold_folder / checkpoint
    path = fold_folder / TUNED
    content: dict[str, Any] = dict(read_checkpoint(source))
    for name in _LEFT_OUT:
        content.pop(name, None)
    weights = dict(content["network_weights"])
    bias = weights.get(f"{decision.layer}.bias")
    if bias is None:
        raise UserError(f"{source}: the layer {decision.layer} has no bias to add to.")
    new_bias = bias.clone()
    added = torch.tensor(list(decision.biases.values()), dtype=bias.dtype)
    new_bias[decision.first_channel :] += added
    weights[f"{decision.layer}.bias"] = new_bias
    content["network_weights"] = weights
    document = {
        "schema_version": SCHEMA_VERSION,
        "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
        "checkpoint": checkpoint,
        "checkpoint_sha256": checksum(source),
        "replaced_sha256": checksum(path) if path.is_file() else "",
        "layer": decision.layer,
        "biases": dict(decision.biases),
        **decision.about,
    }
    with replacing(path) as temporary:
        try:
            # an open file: by its name the same content would have another digest each time
            with open(temporary, "xb") as file:
                torch.save(content, file)
        except RuntimeError as error:  # PyTorch's words for a full disk
            raise UserError(
                f"{path}: cannot be written; is the disk full? ({first_line(error)})"
            ) from None
        # before the network gets its name: a run that is killed in between knows both as its own
        document["tuned_sha256"] = checksum(temporary)
        write_atomically(fold_folder / DESCRIPTION, to_json_text(document))
    return path


def check_replaceable(fold_folders: Sequence[Path]) -> None:
    """UserError, before any work, where a checkpoint_tuned.pth would be lost that `tune` did not
    write."""
    for folder in fold_folders:
        path = folder / TUNED
        made = _read_made(folder)
        ours = (made.get("tuned_sha256"), made.get("replaced_sha256"))
        if path.is_file() and checksum(path) not in ours:
            raise UserError(
                f"{path} was not written by `nnunet_nacl tune`, or was changed since, and would be"
                " lost; move it away."
            )


def check_tuned(model: Path, checkpoint: str, fold_folders: Sequence[Path]) -> None:
    """UserError where a fold's network was trained again after it was tuned, or folds are cut at
    different places: their mean would be cut at none of these.

    Of other checkpoints nothing is checked. Without tuned.json, or the network that was tuned, as
    in a model that was passed on, nothing is known.
    """
    if checkpoint != TUNED:
        return
    biases = {}
    for folder in fold_folders:
        if (folder / DESCRIPTION).is_file():
            biases[folder.name] = read_dict(folder / DESCRIPTION).get("biases")
    if any(of_fold != next(iter(biases.values())) for of_fold in biases.values()):
        listed = ", ".join(f"{fold} {of_fold}" for fold, of_fold in biases.items())
        raise UserError(
            f"{model}: the folds have different biases ({listed}); tune all of them together:"
            f" `{tune_command(model)}`, or choose [[folds]]."
        )
    for folder in fold_folders:
        made = _read_made(folder)
        source = folder / made.get("checkpoint", "")
        if source.is_file() and checksum(source) != made["checkpoint_sha256"]:
            raise UserError(
                f"{folder / TUNED} was made from an earlier {source.name}; tune again:"
                f" `{tune_command(model)}`"
            )


def _read_made(folder: Path) -> dict[str, str]:
    """What tuned.json of a folder says of the files; empty without it."""
    path = folder / DESCRIPTION
    if not path.is_file():
        return {}
    content = read_dict(path)
    made = decode(_Made, content, path, fix="tune again")
    return {name: str(made[name]) for name in _Made.__annotations__}  # type: ignore[literal-required]
