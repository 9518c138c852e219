"""A method is added to a copy of the project by the two steps of CONTRIBUTING.md, and trained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.environments import build_wheel, copy_sources
from tests.integration import tiny_data as tiny
from tests.integration.workspace import epochs_in, training_log

pytestmark = pytest.mark.slow
TRAINER = "nnUNetTrainerDicePoly_alpha0p5_2epochs_2iters"

# 1. A row in nnunet_nacl/methods.py.
ROW = """
        Method(
            "Poly",
            "poly",
            "PolyLoss",
            "cross-entropy plus the probability that is missing",
            "-log p_y + alpha (1 - p_y)",
            {"epsilon": (1.0, "alpha")},
        ),"""
# 2. A file in nnunet_nacl/losses/ of the function's name.
LOSS = '''
"""Poly-1 loss (Leng et al. 2022)."""

from nnunet_nacl.losses.batch import read_batch
from nnunet_nacl.losses.cross_entropy import voxelwise_cross_entropy
from nnunet_nacl.methods import METHODS

DEFAULTS = METHODS["Poly"].defaults


def poly(logits, target, *, epsilon=DEFAULTS["epsilon"], ignore_label=None, regions=False, check_labels=True):
    """Cross-entropy plus epsilon (1 - p_y)."""
    batch = read_batch(logits, target, ignore_label, regions, check_labels)
    cross_entropy = voxelwise_cross_entropy(batch)
    return batch.mean(cross_entropy + epsilon * (1 - (-cross_entropy).exp()))
'''


def add_method(source: Path) -> Path:
    """The two steps, in a copy of the project in the new folder ``source``."""
    copy_sources(source)
    table = source / "nnunet_nacl" / "methods.py"
    before, start, after = table.read_text().partition("for method in (")
    table.write_text(before + start + ROW + after)
    (source / "nnunet_nacl" / "losses" / "poly.py").write_text(LOSS)
    return source


def test_a_method_needs_a_row_and_a_loss(workspace, clean_environ: dict[str, str], tmp_path: Path) -> None:
    source = add_method(tmp_path / "source")
    wheel, target = build_wheel(source, tmp_path / "wheel", clean_environ), tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True, env=clean_environ)
    assert "nnUNetTrainerDicePoly = " in next(target.glob("*.dist-info/entry_points.txt")).read_text()

    environ = {"PYTHONPATH": str(target), "nnUNet_extTrainer": str(target / "nnunet_nacl" / "training" / "_bridge")}
    use = "from nnunet_nacl import PolyLoss; from nnunet_nacl.losses import *; print(poly, PolyLoss(epsilon=0.5))"
    printed = subprocess.check_output([sys.executable, "-c", use], env=clean_environ | environ, cwd=tmp_path, text=True)
    assert "function poly" in printed and "PolyLoss(epsilon=0.5" in printed
    told = workspace.run("nnunet_nacl", "trainers", TRAINER, **environ)
    assert "-log p_y + alpha (1 - p_y) + Dice" in told and "alpha<x>       0.5" in told
    arguments = (tiny.TASK_ID, "2d", "0", "-tr", TRAINER, "-device", "cpu")
    workspace.run("nnUNetv2_train", *arguments, nnUNet_n_proc_DA="0", **environ)
    fold = workspace.model_folder(tiny.TASK_ID, TRAINER, "nnUNetPlans", "2d") / "fold_0"
    assert (fold / "checkpoint_final.pth").is_file() and epochs_in(training_log(fold)) == [0, 1]
    assert "PolyLoss(epsilon=0.5, " in tiny.read_json(fold / "debug.json")["loss"]
