"""The table of methods: name, function, formula and settings of every loss.

From this table come the defaults of the losses, the grammar of the names (the tokens stand in
:mod:`nnunet_nacl.registration.grammar`), `nnunet_nacl trainers`, the settings that the trainers hand to their losses,
the entry points, and the cases of the tests. setup.py executes this file before anything is installed, so it imports
the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PREFIX = "nnUNetTrainer"


@dataclass(frozen=True)
class Method:
    """One row of the table: a loss and what a trainer's name may say of it.

    Attributes:
        name: In the names of trainers.
        function: The loss in :mod:`nnunet_nacl.losses`, and the file there that holds it.
        module: Its class there.
        meaning: What it is, in words.
        formula: Loss of a voxel: l logits, p softmax, y label, tau class shares among its neighbours.
        settings: For each setting of the loss its default, and the attribute of
            :class:`~nnunet_nacl.registration.grammar.Variant` whose token sets it, or None.
    """

    name: str
    function: str
    module: str
    meaning: str
    formula: str
    settings: Mapping[str, tuple[Any, str | None]] = field(default_factory=dict)

    @property
    def defaults(self) -> dict[str, Any]:
        """Default of each setting."""
        return {name: default for name, (default, _) in self.settings.items()}

    @property
    def tokens(self) -> dict[str, str]:
        """Attribute of a variant -> the setting that its token sets."""
        return {token: name for name, (_, token) in self.settings.items() if token is not None}


METHODS = {
    method.name: method
    for method in (
        Method(
            "NACL",
            "nacl",
            "NACLLoss",
            "cross-entropy plus a penalty that ties logits to the class shares of the neighbourhood",
            "-log p_y + lambda mean_k |m tau_k - l_k|",
            {
                "penalty_weight": (0.1, "penalty_weight"),
                "kernel_size": (3, "kernel_size"),
                "prior": ("mean", "prior"),
                "sigma": (1.0, "sigma"),
                "penalty": ("l1", "l2"),
                "space": ("logits", "softmax"),
                "class_reduction": ("mean", "sum"),
                "padding": ("valid", None),
                "prior_scale": (1.0, "scale"),
            },
        ),
        Method(
            "SVLS",
            "svls",
            "SVLSLoss",
            "cross-entropy against labels smoothed over the neighbourhood",
            "-sum_k tau_k log p_k",
            {"sigma": (2.0, "sigma"), "kernel_size": (3, "kernel_size"), "padding": ("replicate", None)},
        ),
        Method(
            "MbLS",
            "mbls",
            "MbLSLoss",
            "cross-entropy plus a penalty on logit differences beyond a margin",
            "-log p_y + lambda mean_k relu(max_j l_j - l_k - m)",
            {"penalty_weight": (0.1, "penalty_weight"), "margin": (5.0, "scale"), "class_reduction": ("mean", "sum")},
        ),
        Method(
            "LS",
            "label_smoothing",
            "LabelSmoothingLoss",
            "cross-entropy with label smoothing",
            "-sum_k q_k log p_k, q = (1 - alpha) onehot(y) + alpha / K",
            {"smoothing": (0.1, "alpha")},
        ),
        Method("Focal", "focal", "FocalLoss", "focal loss", "-(1 - p_y)^gamma log p_y", {"gamma": (3.0, "gamma")}),
        Method(
            "ECP",
            "ecp",
            "ECPLoss",
            "cross-entropy less a multiple of the prediction's entropy",
            "-log p_y - alpha mean_k(-p_k log p_k)",
            {"penalty_weight": (0.1, "alpha"), "class_reduction": ("mean", "sum")},
        ),
        Method(
            "ACE",
            "ace",
            "ACELoss",
            "cross-entropy plus the average calibration error of each class's probability (mL1-ACE)",
            "-log p_y + lambda mean_k mean_b |mean p_k - share of k|, b the bins of p_k",
            {"penalty_weight": (1.0, "penalty_weight"), "n_bins": (20, None)},
        ),
        Method("CE", "cross_entropy", "CELoss", "plain cross-entropy", "-log p_y"),
    )
}

STOCK_NAME = f"{PREFIX}DiceCE"
"""nnU-Net's own loss, as a trainer of ours would be called: without tokens that is nnU-Net's trainer."""

NAMED_TRAINERS = tuple(
    name for method in METHODS for name in (PREFIX + method, f"{PREFIX}Dice{method}") if name != STOCK_NAME
)
"""The trainers without tokens: they are entry points."""
