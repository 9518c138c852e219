"""A list of scans of another scanner: what is said of all, of single ones, and what still flags."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from nnunet_nacl.cli.list_text import delivered_text
from nnunet_nacl.estimators.unlike import CalibrationProfiles
from nnunet_nacl.worklist.deliver import DeliveredScans
from nnunet_nacl.worklist.pages import review_page
from nnunet_nacl.worklist.review_list import ReviewList
from tests.comparison.html_check import Page
from tests.worklist.records import calibrator, list_of, record

N_SCANS = 40
DOCUMENT = {
    "images": "scans",
    "training_range": None,
    "model": {
        "folder": "model",
        "dataset": "Dataset032_Breast",
        "trainer": "nnUNetTrainerNACL",
        "configuration": "2d",
        "checkpoint": "checkpoint_final.pth",
        "checkpoints_sha256": {},
    },
}


def listed_at(distance: float, patients_of_batch: int = N_SCANS) -> ReviewList:
    """Scans whose noise lies so far from that of the calibration scans; one is farther still, and
    each differs from the training images."""
    rng = np.random.default_rng(0)
    known = calibrator((0.4, 0.6), (1.0, 3.0))
    known.quality.profiles = CalibrationProfiles.learn(
        ["noise", "log size along y"], rng.uniform(-1, 1, (60, 2)), range(60)
    )
    profiles = rng.uniform(-1, 1, (N_SCANS, 2)) + [distance, 0]
    profiles[7, 1] += 40
    records = [
        record(f"scan {i}", profile=tuple(profile), differences=("size along y 9 mm",))
        for i, profile in enumerate(profiles)
    ]
    patients = {f"scan {i}": f"{i % patients_of_batch}" for i in range(N_SCANS)}
    return list_of(records, known, document=DOCUMENT, patients=patients)


@pytest.fixture(scope="module")
def elsewhere() -> ReviewList:
    return listed_at(6)


def test_a_batch_like_the_calibration_scans_is_left_as_it_is():
    listed = listed_at(0)
    assert listed.unlike_batch is None
    assert listed.elsewhere_text == ""
    assert len(listed.cases("is_flagged")) == N_SCANS  # each by its size
    assert "not hold" not in review_page(listed)


def test_single_scans_of_another_scanner_are_marked_and_not_flagged(elsewhere):
    assert (elsewhere.scans.unlike != "").all()
    assert elsewhere.cases("is_flagged") == ["scan 7"]
    assert elsewhere.reasons("scan 7") == ["unlike the other scans of this batch"]


def test_patients_are_what_is_counted():
    assert listed_at(6).unlike_batch is not None
    assert listed_at(6, patients_of_batch=1).unlike_batch is None


def test_page_and_terminal_begin_with_what_holds_and_with_the_remedy(elsewhere):
    remedy = "calibrate -i IMAGES -gt LABELS -d Dataset032_Breast -tr nnUNetTrainerNACL -c 2d"
    page = review_page(elsewhere)
    header = re.findall("<header>.*?</header>", page, re.S)[0]
    assert "differ from the calibration scans (noise; p = " in header
    assert remedy in Page(header).text
    assert header.index("differ from") < header.index("flagged")

    delivered = DeliveredScans(review_list=elsewhere, failed={}, lost_pages={})
    lines = delivered_text(delivered, "scan", with_slicer=False).splitlines()
    assert lines[0] == f"{elsewhere.elsewhere_text} {elsewhere.remedy_text}"
    assert remedy in lines[0]


def test_it_says_that_dicom_reports_do_not_say_it(elsewhere):
    said = "DICOM reports were written scan by scan and do not say this."
    with_dicom = replace(elsewhere, run=replace(elsewhere.run, dicom=object()))
    assert with_dicom.elsewhere_text == f"{elsewhere.elsewhere_text} {said}"


def test_no_interval_of_another_scanner_is_drawn_as_supported(elsewhere):
    page = review_page(elsewhere)
    assert page.count("interval not supported") == N_SCANS
    assert page.count('<rect class="unsupported"') == N_SCANS
