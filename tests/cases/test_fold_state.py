"""What stands in the way of nnU-Net is put aside; nothing of a training is lost."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import pytest

from nnunet_nacl.cases.fold_state import fold_state
from nnunet_nacl.errors import UserError

_NOBODY = 65534


@pytest.fixture
def fold():
    """A folder that everybody may change, as pytest's own are not; root becomes a user without rights."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    for name in ("checkpoint_best.pth", "checkpoint_latest.pth"):
        with zipfile.ZipFile(folder / name, "w") as file:
            file.writestr("data.pkl", "weights")
    if os.geteuid() == 0:
        os.seteuid(_NOBODY)
    yield folder
    if os.getuid() == 0:
        os.seteuid(0)
    shutil.rmtree(folder)


def test_a_checkpoint_that_was_cut_off_is_put_aside(fold):
    (fold / "checkpoint_final.pth").write_bytes(b"PK half")
    assert fold_state(fold) == "continue"
    assert {path.name for path in fold.glob("checkpoint_[fl]*")} == {
        "checkpoint_final.pth.broken",
        "checkpoint_latest.pth",
    }


def test_a_checkpoint_that_cannot_be_read_stays_and_is_named(fold):
    path = fold / "checkpoint_final.pth"
    shutil.copy(fold / "checkpoint_best.pth", path)
    path.chmod(0)
    with pytest.raises(UserError, match="checkpoint_final.pth: cannot be read .Permission denied"):
        fold_state(fold)
    assert path.is_file()
