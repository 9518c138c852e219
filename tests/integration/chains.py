"""Which network is trained on what: every pair of label space, configuration and plans, and every method.

A cascade needs its own trainer's low-resolution network first, on all cases (fold ``all``): the two are one chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.integration import tiny_data as tiny
from tests.integration.workspace import Workspace

SCHEDULE = "_1epochs_2iters"
ON_THE_CPU = "-device cpu -npp 0 -nps 0 --disable_tta"


@dataclass(frozen=True)
class Chain:
    """One trainer on one data set.

    Attributes:
        label_space: Of ``tiny_data.LABEL_SPACES``, or ``thick_slices``: class labels in slices five times as thick.
        configurations: Trained in this order.
        plans: Of ``tiny_data.PLANS``.
        method: The trainer's name without prefix and schedule.
        loss: What debug.json must say of the loss.
        npz: Whether the last validation keeps the probabilities.
    """

    label_space: str
    configurations: tuple[str, ...]
    plans: str
    method: str
    loss: str
    npz: bool = False

    @property
    def dataset_id(self) -> int:
        return tiny.THICK_SLICES_ID if self.label_space == "thick_slices" else tiny.DATASET_IDS[self.label_space]

    @property
    def plans_name(self) -> str:
        return tiny.PLANS[self.plans]

    @property
    def trainer(self) -> str:
        base, *tokens = self.method.split("_")
        before = [token for token in tokens if token != "adam"]
        after = [token for token in tokens if token == "adam"]
        return "_".join(["nnUNetTrainer" + base, *before]) + SCHEDULE + "".join(f"_{token}" for token in after)

    def __str__(self) -> str:
        return f"{self.label_space}-{self.configurations[-1]}-{self.plans}-{self.method}"


CASCADE = ("3d_lowres", "3d_cascade_fullres")
CHAINS = (
    Chain("classes", ("2d",), "default", "NACL", "kernel_size=(3, 3)", npz=True),
    Chain("classes", ("3d_fullres",), "resenc", "DiceNACL_anneal", "kernel_size=(3, 3, 3)", npz=True),
    Chain("classes", CASCADE, "anisotropic", "SVLS", "kernel_size=(1, 3, 3)"),
    Chain("ignore", ("2d",), "resenc", "MbLS", "margin=5.0"),
    Chain("ignore", ("3d_fullres",), "anisotropic", "NACL_gaussian_l2", "kernel_size=(1, 3, 3)", npz=True),
    Chain("ignore", CASCADE, "default", "DiceFocal", "gamma=3.0"),
    Chain("regions", ("2d",), "anisotropic", "LS", "smoothing=0.1"),
    Chain("regions", ("3d_fullres",), "default", "ECP_sum", "reduction='sum'", npz=True),
    Chain("regions", CASCADE, "resenc", "NACL_adam", "kernel_size=(3, 3, 3)"),
    Chain("regions_ignore", ("2d",), "default", "CE", "CELoss"),
    Chain("regions_ignore", ("3d_fullres",), "resenc", "DiceSVLS", "kernel_size=(3, 3, 3)", npz=True),
    Chain("regions_ignore", CASCADE, "anisotropic", "DiceNACL", "kernel_size=(1, 3, 3)"),
    Chain("thick_slices", ("3d_fullres",), "default", "DiceCE_anneal", "DC_and_CE_loss"),
)
NACL_2D = CHAINS[0]


def train(space: Workspace, chain: Chain) -> None:
    """Train and validate a chain's networks, and predict the unlabelled case with each."""
    for configuration in chain.configurations:
        fold = "all" if configuration == "3d_lowres" else "0"
        last = configuration == chain.configurations[-1]
        which = f"-tr {chain.trainer} -p {chain.plans_name}"
        npz = "--npz" if chain.npz and last else ""
        # No background workers: they would prepare more batches than these trainings take.
        command = f"nnUNetv2_train {chain.dataset_id} {configuration} {fold} {which} -device cpu {npz}"
        space.run_warm(command, nnUNet_n_proc_DA="0")
        if configuration == "3d_cascade_fullres":
            which += f" -prev_stage_predictions {predictions(space, chain, '3d_lowres')}"
        scans, output = images(space, chain), predictions(space, chain, configuration)
        model = f"-d {chain.dataset_id} -c {configuration} -f {fold} {which}"
        space.run_warm(f"nnUNetv2_predict -i {scans} -o {output} {model} {ON_THE_CPU}")


def images(space: Workspace, chain: Chain) -> Path:
    """The unlabelled case."""
    return space.dataset_folder(space.raw, chain.dataset_id) / "imagesTs"


def predictions(space: Workspace, chain: Chain, configuration: str) -> Path:
    """Where :func:`train` predicts to."""
    return space.folder / "predictions" / f"{chain.dataset_id}_{chain.trainer}_{chain.plans}_{configuration}"
