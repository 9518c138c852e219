"""The watched export against the files that nnU-Net's own export writes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_nacl.runs.logits_export import export_logits, watch_plans
from tests.runs.exports import DATASETS, make_export
from tests.runs.folders import read

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.mark.parametrize("kind", DATASETS)
def test_it_gives_what_nnunet_writes(tmp_path, kind):
    from nnunetv2.inference.export_prediction import export_prediction_from_logits

    export = make_export(kind)
    export_prediction_from_logits(*export, str(tmp_path / "case"), True, torch.get_num_threads())
    (tmp_path / "case.nii.gz").unlink()  # without probabilities nnU-Net makes the label map of the logits
    export_prediction_from_logits(*export, str(tmp_path / "case"), False)
    manager = export.plans_manager.get_label_manager(export.dataset_json)

    case = export_logits(*export[:4], manager)

    written = np.load(tmp_path / "case.npz")["probabilities"]
    np.testing.assert_array_equal(case.segmentation, read(tmp_path / "case.nii.gz"))
    assert case.segmentation.any()
    probs = case.whole()
    assert probs.dtype == written.dtype
    np.testing.assert_allclose(probs, written, rtol=1e-6, atol=1e-38)
    together = np.full_like(written, np.nan)
    for where, block in case.blocks(max_bytes=5000):
        assert block.nbytes <= 5000
        assert np.isnan(together[(slice(None), *where)]).all()
        together[(slice(None), *where)] = block
    np.testing.assert_allclose(together, written, rtol=1e-6, atol=1e-38)
    assert case.logits.dtype == np.float16


def test_a_watched_export_writes_the_same_and_shows_the_logits_once(tmp_path):
    from nnunetv2.inference.export_prediction import export_prediction_from_logits

    export, shown = make_export("regions"), []
    export_prediction_from_logits(*export, str(tmp_path / "plain"), False)
    watching = export._replace(plans_manager=watch_plans(export.plans_manager, shown.append))
    export_prediction_from_logits(*watching, str(tmp_path / "watched"), False)
    assert (tmp_path / "plain.nii.gz").read_bytes() == (tmp_path / "watched.nii.gz").read_bytes()
    assert [logits.shape for logits in shown] == [(2, 9, 11, 5)]
