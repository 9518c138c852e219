"""The table of methods: what the names of trainers can say of each loss, without importing PyTorch.

From this table come the grammar of the names (its tokens stand in
:mod:`nnunet_nacl.registration.tokens`), what `nnunet_nacl trainers` prints, and the cases of the
tests, which hold it equal to the signatures of the losses in :mod:`nnunet_nacl.losses` and to the
classes of the trainers. It imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PREFIX = "nnUNetTrainer"


@dataclass(frozen=True)
class Setting:
    """A setting of a loss: its default, and the form of the token that sets it in a trainer's name,
    if one does."""

    default: float | int | str
    token: str | None = None


@dataclass(frozen=True)
class Method:
    """One row of the table: a loss and what a trainer's name may say of it.

    Attributes:
        name: In the names of trainers.
        function: The loss in :mod:`nnunet_nacl.losses`, and the file's name there and in
            ``nnunet_nacl_trainers``.
        loss_class: Name of its class there.
        meaning: What it is, in words.
        formula: Loss of a voxel: l logits, p softmax, y label, tau class shares among its
            neighbours.
        settings: The settings of the loss by their names.

    """

    name: str
    function: str
    loss_class: str
    meaning: str
    formula: str
    settings: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def defaults(self) -> dict[str, float | int | str]:
        """Default of each setting."""
        return {name: setting.default for name, setting in self.settings.items()}

    @property
    def settings_by_token(self) -> dict[str, str]:
        """Form of a token -> name of the setting that it sets."""
        return {
            setting.token: name
            for name, setting in self.settings.items()
            if setting.token is not None
        }


_ALL_METHODS = (
    Method(
        name="NACL",
        function="nacl",
        loss_class="NACLLoss",
        meaning=(
            "cross-entropy plus a penalty that ties logits to the class shares of the neighbourhood"
        ),
        formula="-log p_y + lambda mean_k |m tau_k - l_k|",
        settings={
            "penalty_weight": Setting(0.1, token="lambda<x>"),
            "kernel_size": Setting(3, token="k<n>"),
            "prior": Setting("mean", token="gaussian|svls"),
            "sigma": Setting(1.0, token="sigma<x>"),
            "penalty": Setting("l1", token="l2"),
            "space": Setting("logits", token="softmax"),
            "class_reduction": Setting("mean", token="sum"),
            "padding": Setting("valid"),
            "prior_scale": Setting(1.0, token="m<x>"),
        },
    ),
    Method(
        name="SVLS",
        function="svls",
        loss_class="SVLSLoss",
        meaning="cross-entropy against labels smoothed over the neighbourhood",
        formula="-sum_k tau_k log p_k",
        settings={
            "sigma": Setting(2.0, token="sigma<x>"),
            "kernel_size": Setting(3, token="k<n>"),
            "padding": Setting("replicate"),
        },
    ),
    Method(
        name="MbLS",
        function="mbls",
        loss_class="MbLSLoss",
        meaning="cross-entropy plus a penalty on logit differences beyond a margin",
        formula="-log p_y + lambda mean_k relu(max_j l_j - l_k - m)",
        settings={
            "penalty_weight": Setting(0.1, token="lambda<x>"),
            "margin": Setting(5.0, token="m<x>"),
            "class_reduction": Setting("mean", token="sum"),
        },
    ),
    Method(
        name="LS",
        function="label_smoothing",
        loss_class="LabelSmoothingLoss",
        meaning="cross-entropy with label smoothing",
        formula="-sum_k q_k log p_k, q = (1 - alpha) onehot(y) + alpha / K",
        settings={"smoothing": Setting(0.1, token="alpha<x>")},
    ),
    Method(
        name="Focal",
        function="focal",
        loss_class="FocalLoss",
        meaning="focal loss",
        formula="-(1 - p_y)^gamma log p_y",
        settings={"gamma": Setting(3.0, token="gamma<x>")},
    ),
    Method(
        name="ECP",
        function="ecp",
        loss_class="ECPLoss",
        meaning="cross-entropy minus a multiple of the prediction's entropy",
        formula="-log p_y - alpha mean_k(-p_k log p_k)",
        settings={
            "penalty_weight": Setting(0.1, token="alpha<x>"),
            "class_reduction": Setting("mean", token="sum"),
        },
    ),
    Method(
        name="ACE",
        function="ace",
        loss_class="ACELoss",
        meaning=(
            "cross-entropy plus the average calibration error of each class's probability (mL1-ACE)"
        ),
        formula="-log p_y + lambda mean_k mean_b |mean p_k - share of k|, b the bins of p_k",
        settings={
            "penalty_weight": Setting(1.0, token="lambda<x>"),
            "n_bins": Setting(20),
        },
    ),
    Method(
        name="CE",
        function="cross_entropy",
        loss_class="CELoss",
        meaning="plain cross-entropy",
        formula="-log p_y",
    ),
)

METHODS = {method.name: method for method in _ALL_METHODS}
"""The rows by the method's name."""

STOCK_METHOD = "CE"
"""The method that is nnU-Net's own loss together with nnU-Net's Dice term."""

STOCK_NAME = f"{PREFIX}Dice{STOCK_METHOD}"
"""nnU-Net's own loss, as a trainer of ours would be called: without tokens that is nnU-Net's
trainer."""


def _named_trainers() -> tuple[str, ...]:
    names = []
    for method in METHODS:
        names += [f"{PREFIX}{method}", f"{PREFIX}Dice{method}"]
    names.remove(STOCK_NAME)
    return tuple(names)


NAMED_TRAINERS = _named_trainers()
"""The trainers without tokens: they are entry points."""
