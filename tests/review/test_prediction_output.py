"""Folders of predictions: one run at a time, or the parts of one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.review.prediction_output import open_output

DATA = SimpleNamespace(dataset_json={}, plans={}, file_ending=".nii.gz")


def opened(output, part):
    return open_output(output, [], DATA, ("args.json", {"generated_by": "tests"}), ["maps"], part=part)


@pytest.mark.parametrize(
    "first, second, refused",
    [
        (None, None, "another run is at work in .*out; wait"),
        (None, 0, "another run is at work"),
        (0, None, "another run is at work"),
        (0, 0, "another run of part 0 is at work in .*out; wait .*-part_id"),
        (0, 1, ""),
    ],
)
def test_runs_share_a_folder_only_as_different_parts(tmp_path, first, second, refused):
    output = tmp_path / "out"
    with opened(output, first):
        before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
        if refused:
            with pytest.raises(UserError, match=refused), opened(output, second):
                pass
            assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == before
        else:
            with opened(output, second):
                pass
        with pytest.raises(UserError, match="another run is at work"), opened(output, None):
            pass
    with opened(output, None):
        pass
    assert {path.name for path in output.iterdir()} == {"args.json", "dataset.json", "plans.json"}
