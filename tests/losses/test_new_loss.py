"""What follows from a row of the table of methods and a file of its name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.integration.test_new_method import add_method

USE = """
import torch
from nnunet_nacl import PolyLoss
from nnunet_nacl.losses import *
logits, target = torch.zeros(1, 2, 3), torch.zeros(1, 1, 3)
assert abs(float(poly(logits, target, epsilon=0.5)) - (0.6931472 + 0.25)) < 1e-6
assert "epsilon=0.5" in repr(PolyLoss(epsilon=0.5))
"""


def test_a_new_loss_is_exported_without_further_lines(clean_environ: dict[str, str], tmp_path: Path) -> None:
    source = add_method(tmp_path / "source")
    subprocess.run([sys.executable, "-c", USE], check=True, env={**clean_environ, "PYTHONPATH": str(source)})
