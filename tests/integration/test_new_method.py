"""A loss is added to a copy of the project by the steps of CONTRIBUTING.md, and trained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.environments import build_wheel, copy_sources
from tests.integration import tiny_data as tiny
from tests.integration.workspace import epochs_in, training_log

pytestmark = pytest.mark.slow
TRAINER = "nnUNetTrainerDiceSample_alpha0p5_2epochs_2iters"

LOSS = '''"""A loss for the test of the steps."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nnunet_nacl.losses.batch import Batch
from nnunet_nacl.losses.checks import check_not_negative
from nnunet_nacl.losses.cross_entropy import voxelwise_cross_entropy
from nnunet_nacl.losses.segmentation_loss import SegmentationLoss, call_loss


def sample(
    logits: Tensor,
    target: Tensor,
    *,
    epsilon: float = 1.0,
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Cross-entropy plus epsilon (1 - p_y)."""
    return call_loss(SampleLoss, locals())


@dataclass(eq=False, repr=False, kw_only=True)
class SampleLoss(SegmentationLoss):
    """Cross-entropy plus epsilon (1 - p_y)."""

    epsilon: float = 1.0

    def check_settings(self) -> None:
        check_not_negative("epsilon", self.epsilon)

    def compute(self, batch: Batch) -> Tensor:
        cross_entropy = voxelwise_cross_entropy(batch)
        return batch.mean(cross_entropy + self.epsilon * (1 - (-cross_entropy).exp()))
'''
"""Step 1: the file of the loss, nnunet_nacl/losses/sample.py."""

TRAINERS = '''"""A trainer for the test of the steps."""

from __future__ import annotations

from nnunet_nacl.losses import SampleLoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerSample(CalibrationTrainer):
    """Cross-entropy plus epsilon (1 - p_y)."""

    loss_class = SampleLoss


class nnUNetTrainerDiceSample(nnUNetTrainerSample):
    """The same with nnU-Net's Dice term."""

    with_dice = True
'''
"""Step 2: the file of the trainers, trainers/sample.py."""

ADDED_LINES = {
    "nnunet_nacl/losses/__init__.py": {
        "from nnunet_nacl.losses.nacl import": (
            "from nnunet_nacl.losses.sample import SampleLoss, sample\n"
        ),
        '    "SVLSLoss",': '    "SampleLoss",\n    "sample",\n',
    },
    "trainers/__init__.py": {
        "from nnunet_nacl_trainers.svls import": (
            "from nnunet_nacl_trainers.sample import nnUNetTrainerDiceSample, nnUNetTrainerSample\n"
        ),
        "    nnUNetTrainerACE,": "    nnUNetTrainerSample,\n    nnUNetTrainerDiceSample,\n",
    },
    "nnunet_nacl/__init__.py": {'    "SVLSLoss":': '    "SampleLoss": "nnunet_nacl.losses",\n'},
    "nnunet_nacl/methods.py": {
        '    Method(\n        name="CE",': (
            """    Method(
        name="Sample",
        function="sample",
        loss_class="SampleLoss",
        meaning="cross-entropy plus the probability that is missing",
        formula="-log p_y + epsilon (1 - p_y)",
        settings={"epsilon": Setting(1.0, token="alpha<x>")},
    ),
"""
        )
    },
}
"""Step 3: by file, what is added before a line, given by its beginning."""


USE = """
from nnunet_nacl import SampleLoss
from nnunet_nacl.losses import sample
print(SampleLoss(epsilon=0.5))
"""


def add_loss(source: Path) -> Path:
    """Take the three steps in a copy of the project, in the new folder ``source``."""
    copy_sources(source)
    (source / "nnunet_nacl" / "losses" / "sample.py").write_text(LOSS)
    (source / "trainers" / "sample.py").write_text(TRAINERS)
    for name, additions in ADDED_LINES.items():
        text = (source / name).read_text()
        for line, added in additions.items():
            assert text.count(f"\n{line}") >= 1, (name, line)
            text = text.replace(f"\n{line}", f"\n{added}{line}", 1)
        (source / name).write_text(text)
    return source


def test_a_loss_needs_two_files_and_their_names(
    workspace, clean_environ: dict[str, str], tmp_path: Path
) -> None:
    source = add_loss(tmp_path / "source")
    wheel = build_wheel(source, tmp_path / "wheel", clean_environ)
    target = tmp_path / "installed"
    options = ["--quiet", "--no-deps", "--no-index", "--target", target]
    install = [sys.executable, "-m", "pip", "install", *options, wheel]
    subprocess.run(install, check=True, env=clean_environ)
    (entry_points,) = target.glob("*.dist-info/entry_points.txt")
    assert "nnUNetTrainerDiceSample = " in entry_points.read_text()

    bridge = target / "nnunet_nacl" / "registration" / "_bridge"
    environ = {"PYTHONPATH": str(target), "nnUNet_extTrainer": str(bridge)}
    printed = subprocess.check_output(
        [sys.executable, "-c", USE], env=clean_environ | environ, cwd=tmp_path, text=True
    )
    assert printed.startswith("SampleLoss(")
    assert "epsilon=0.5" in printed

    explained = workspace.run(f"nnunet_nacl trainers {TRAINER}", **environ)
    assert "-log p_y + epsilon (1 - p_y) + Dice" in explained
    assert "alpha<x>       0.5" in explained

    train = f"nnUNetv2_train {tiny.TASK_ID} 2d 0 -tr {TRAINER} -device cpu"
    workspace.run(train, nnUNet_n_proc_DA="0", **environ)
    fold = workspace.model_folder(tiny.TASK_ID, TRAINER, "nnUNetPlans", "2d") / "fold_0"
    assert (fold / "checkpoint_final.pth").is_file()
    assert epochs_in(training_log(fold)) == [0, 1]
    assert "epsilon=0.5" in tiny.read_json(fold / "debug.json")["loss"]
