"""A postprocessing.pkl is a pickle: nnU-Net's is read, any other is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation

from nnunet_nacl.cli.postprocessing import read_postprocessing
from nnunet_nacl.errors import UserError
from tests.processes import run_warm
from tests.runs.crafted_numbers import CRAFTED

STEP = remove_all_but_largest_component_from_segmentation


@pytest.mark.parametrize("numpy", [b"numpy._core.multiarray", b"numpy.core.multiarray"], ids=["NumPy 2", "NumPy 1"])
def test_what_nnunet_writes_is_read(tmp_path, numpy):
    content = [STEP, STEP], [{"labels_or_regions": (1, np.int64(2))}, {"background_label": np.uint8(0)}]
    written = pickle.dumps(content, protocol=3)  # whose lengths do not count the names
    (tmp_path / "postprocessing.pkl").write_bytes(written.replace(b"numpy._core.multiarray", numpy))
    assert read_postprocessing(tmp_path / "postprocessing.pkl") == content


def read_each(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        try:
            print(f"{path.stem}: {read_postprocessing(path)}")
        except UserError as error:
            print(f"{path.stem}: refused, {error}")


def test_numbers_that_numpy_would_not_write_are_refused_and_no_memory_is_read(tmp_path):
    (tmp_path / "files").mkdir()
    for name, number in CRAFTED.items():
        (tmp_path / "files" / f"{name}.pkl").write_bytes(pickle.dumps(([STEP], [{"background_label": number}])))
    (tmp_path / "files" / "zzz_no_step.pkl").write_bytes(pickle.dumps(([np.dtype], [{}])))
    ended = run_warm(read_each, tmp_path / "files", folder=tmp_path)
    assert ended.returncode == 0
    for name, line in zip([*sorted(CRAFTED), "zzz_no_step"], ended.stdout.splitlines(), strict=True):
        assert line.startswith(f"{name}: refused, {tmp_path / 'files' / name}.pkl is no postprocessing.pkl of nnU-Net:")
