"""A checkpoint is a pickle: what nnU-Net writes is read, what could run code is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_nacl.errors import UserError
from nnunet_nacl.nnunet.trust import TRUSTED, read_checkpoint
from tests.processes import run_warm
from tests.runs.crafted_numbers import CRAFTED

CONTENT = {
    "network_weights": {"layer.weight": torch.ones(300, 300)},
    "optimizer_state": {"state": {0: {"momentum_buffer": torch.ones(3)}}},
    "grad_scaler_state": None,
    "logging": {"ema_fg_dice": [np.float64(0.5), np.float32(0.25)], "epoch": [np.int64(3), 4.0]},
    "_best_ema": np.float64(0.5),
    "trainer_name": "nnUNetTrainer",
    "init_args": {"configuration": "2d", "fold": 0, "device": torch.device("cpu")},
    "inference_allowed_mirroring_axes": (0, 1),
}


class Harmful:
    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("mmap", [False, True])
def test_what_nnunet_writes_is_read(tmp_path, mmap):
    torch.save(CONTENT, tmp_path / "checkpoint.pth")
    found = read_checkpoint(tmp_path / "checkpoint.pth", mmap=mmap)
    assert found["logging"] == CONTENT["logging"] and found["init_args"] == CONTENT["init_args"]
    assert torch.equal(found["network_weights"]["layer.weight"], CONTENT["network_weights"]["layer.weight"])


@pytest.mark.parametrize("kind", ["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])
def test_every_number_keeps_its_type_and_bytes(tmp_path, kind):
    number = np.dtype(kind).type(np.frombuffer(b"\x01\x3c\x03\x40\x05\x06\x07\x40", kind)[0])
    torch.save(CONTENT | {"_best_ema": number}, tmp_path / "checkpoint.pth")
    found = read_checkpoint(tmp_path / "checkpoint.pth")["_best_ema"]
    assert type(found) is type(number) and found.tobytes() == number.tobytes()


def read_each(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        try:
            print(f"{path.stem}: {read_checkpoint(path)['_best_ema']}")
        except UserError as error:
            print(f"{path.stem}: refused, {error}")


def test_numbers_that_numpy_would_not_write_are_refused_and_no_memory_is_read(tmp_path):
    (tmp_path / "files").mkdir()
    for name, number in CRAFTED.items():
        torch.save(CONTENT | {"_best_ema": number}, tmp_path / "files" / f"{name}.pth")
    ended = run_warm(read_each, tmp_path / "files", folder=tmp_path)
    assert ended.returncode == 0
    for name, line in zip(sorted(CRAFTED), ended.stdout.splitlines(), strict=True):
        assert line.startswith(f"{name}: refused, {tmp_path / 'files' / name}.pth: cannot be read as ")


@pytest.mark.parametrize("mmap", [False, True])
def test_the_form_of_older_versions_of_pytorch_and_numpy_is_read(tmp_path, mmap):
    content = {key: value for key, value in CONTENT.items() if key != "inference_allowed_mirroring_axes"}
    torch.save(content, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    legacy = (tmp_path / "legacy.pth").read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "legacy.pth").write_bytes(legacy)
    found = read_checkpoint(tmp_path / "legacy.pth", mmap=mmap)
    assert found["logging"] == CONTENT["logging"]
    assert torch.equal(found["network_weights"]["layer.weight"], CONTENT["network_weights"]["layer.weight"])


def test_what_could_run_code_is_refused_unless_it_is_trusted(tmp_path):
    path, made = tmp_path / "checkpoint.pth", tmp_path / "made"
    torch.save(CONTENT | {"extra": Harmful(made)}, path)
    for mmap in (False, True):
        with pytest.raises(UserError, match="checkpoint.pth: .*it can run code.*--trust_checkpoint"):
            read_checkpoint(path, mmap=mmap)
    assert not made.exists()
    token = TRUSTED.set(True)
    try:
        assert read_checkpoint(path)["trainer_name"] == "nnUNetTrainer" and made.is_dir()
    finally:
        TRUSTED.reset(token)


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04nothing", b"\x80\x02}q\x00."])
def test_what_is_no_checkpoint_is_named(tmp_path, content):
    (tmp_path / "checkpoint.pth").write_bytes(content)
    with pytest.raises(UserError, match="checkpoint.pth: (cannot be read as|not) a checkpoint"):
        read_checkpoint(tmp_path / "checkpoint.pth")
    with pytest.raises(UserError, match="none.pth: No such file"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(UserError, match=f"{tmp_path}: Is a directory; correct the path."):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"init_args": {"configuration": 5}},
        {"trainer_name": None},
        {"network_weights": []},
        {"inference_allowed_mirroring_axes": "xy"},
    ],
    ids=str,
)
def test_what_nnunet_does_not_write_is_named_in_one_line(tmp_path, changes):
    torch.save(CONTENT | changes, tmp_path / "checkpoint.pth")
    with pytest.raises(
        UserError, match=f"checkpoint.pth: not a checkpoint of nnU-Net: .*{next(iter(changes))}"
    ) as caught:
        read_checkpoint(tmp_path / "checkpoint.pth", mmap=True)
    assert "\n" not in str(caught.value)
