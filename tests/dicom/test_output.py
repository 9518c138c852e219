"""Segmentations, parametric maps and reports of DICOM series, read back by highdicom."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

hd = pytest.importorskip("highdicom", reason="needs highdicom: pip install 'nnunet_nacl[dicom]'")
import pydicom  # noqa: E402

from nnunet_nacl.calibration.map_parts import MapQuality  # noqa: E402
from nnunet_nacl.dicom.codes import SCHEME, read_codes  # noqa: E402
from nnunet_nacl.dicom.output import DicomMaker, Reported  # noqa: E402
from nnunet_nacl.dicom.series import most_common_orientation  # noqa: E402
from nnunet_nacl.utilities.errors import UserError  # noqa: E402
from tests.dicom.dicom_files import CODES, oblique, scan, write_codes, write_series  # noqa: E402
from tests.nnunet import untrained  # noqa: E402
from tests.nnunet.untrained import calibrate, make_model, make_scans  # noqa: E402
from tests.review_tables import read_list  # noqa: E402
from tests.runs.folders import REGIONS  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
RAS = ("-orientation", "RAS")
READERS = {
    "SimpleITKIO": ("-orientation", "LAS"),
    "SimpleITKIOWithReorient": RAS,
    "NibabelIO": ("-orientation", "SPR"),
    "NibabelIOWithReorient": RAS,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """One channel, calibrated."""
    folder = make_model(tmp_path_factory.mktemp("model"), channels=("CT",), seed=7)
    calibrate(folder)
    return folder


@pytest.fixture
def study(tmp_path) -> Path:
    write_series(tmp_path / "study", scan(), order=list(range(len(scan())))[::-1])
    return tmp_path / "study"


@pytest.fixture
def codes(tmp_path) -> Path:
    return write_codes(tmp_path / "codes.json")


def predict(model: Path, scans: Path, output: Path, codes: Path | None, *arguments: object) -> int:
    given: list[object] = []
    if codes is not None:
        given += ["-codes", codes]
        if "-orientation" not in arguments:
            given += RAS
    return untrained.predict(model, scans, output, *given, *arguments)


def written(output: Path) -> dict[str, Path]:
    """Objects by what they are, the name less that of the case, which ends with a hash."""
    return {
        re.sub(".*_[0-9a-f]{10}_", "", path.stem): path for path in (output / "dicom").glob("*.dcm")
    }


def points(values: np.ndarray, place_of) -> dict[tuple[float, ...], float]:
    """Value at each place of the patient, in DICOM's mm, where it is not 0."""
    return {
        tuple(np.round(place_of(i), 2) + 0.0): float(values[tuple(i)]) for i in np.argwhere(values)
    }


def points_of_nifti(path: Path) -> dict[tuple[float, ...], float]:
    image = sitk.ReadImage(str(path))
    return points(
        sitk.GetArrayFromImage(image),
        lambda i: image.TransformIndexToPhysicalPoint(i[::-1].tolist()),
    )


def points_of_segment(path: Path, number: int) -> dict[tuple[float, ...], float]:
    """The same of a segment, by highdicom's reader."""
    volume = hd.seg.segread(path).get_volume(segment_numbers=[number], rescale_fractional=True)
    return points(volume.array[..., 0], lambda i: (volume.affine @ (*i, 1))[:3])


def points_of_map(path: Path) -> dict[tuple[float, ...], float]:
    """The same of a parametric map, rounded to 1/255 as images are."""
    volume = hd.imread(path).get_volume(dtype=np.float32)
    steps = np.rint(volume.array * np.float32(255)) / np.float32(255)
    return points(steps, lambda i: (volume.affine @ (*i, 1))[:3])


def qualitative(report) -> list[tuple[str, str]]:
    """Codes, or text, of what a report says of the whole scan."""
    (whole,) = (
        item
        for item in report.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "C0034375"
    )
    return [
        (item.name.value, getattr(item.value, "meaning", item.value))
        for item in whole.ContentSequence
    ]


def same_places(found, expected) -> bool:
    """Whether two sets of places are the same, to 0.05 mm."""
    one, other = (np.array(sorted(points)) for points in (found, expected))
    if one.shape != other.shape:
        return False
    return all(np.linalg.norm(other - place, axis=1).min() < 0.05 for place in one)


@pytest.mark.parametrize("reader", READERS)
def test_segments_lie_where_the_nifti_segmentation_lies(tmp_path, study, codes, reader) -> None:
    folder = make_model(tmp_path, channels=("CT",), seed=7)
    plans = json.loads((folder / "plans.json").read_text()) | {"image_reader_writer": reader}
    (folder / "plans.json").write_text(json.dumps(plans))
    output = tmp_path / "out"
    options = ("-maps", "entropy", "fractional", *READERS[reader])
    assert predict(folder, study, output, codes, *options) == 0
    objects = written(output)
    assert objects.keys() == {"segmentation", "report", "entropy", "probabilities"}
    (nifti,) = output.glob("*.nii.gz")
    labels = points_of_nifti(nifti)
    for number in (1, 2):
        places = [place for place, label in labels.items() if label == number]
        assert places and same_places(points_of_segment(objects["segmentation"], number), places)
    stored = pydicom.dcmread(objects["probabilities"])
    assert stored.SegmentationFractionalType == "PROBABILITY"
    assert stored.MaximumFractionalValue == 255
    (probability_of_posterior,) = (output / "maps").glob("*/*_probability_2*")
    assert_same_values(
        points_of_segment(objects["probabilities"], 2), points_of_nifti(probability_of_posterior)
    )
    (entropy,) = (output / "maps").glob("*/*_entropy*")
    assert_same_values(points_of_map(objects["entropy"]), points_of_nifti(entropy))


def assert_same_values(found: dict, expected: dict) -> None:
    """Two sets of places are the same, to 0.05 mm, and have the same values."""
    assert same_places(found, expected)
    places = np.array(list(expected))
    values = np.array(list(expected.values()))
    for place, value in found.items():
        nearest = np.linalg.norm(places - place, axis=1).argmin()
        assert value == pytest.approx(values[nearest], abs=1e-6)


def test_the_axes_are_those_of_the_trainings_labels(
    tmp_path, model, study, codes, monkeypatch
) -> None:
    labels = tmp_path / "preprocessed" / "Dataset999_Synthetic" / "gt_segmentations"
    labels.mkdir(parents=True)
    for i, orientation in enumerate(("RAS", "RAS", "LPS")):
        sitk.WriteImage(
            sitk.DICOMOrient(sitk.Image(4, 5, 6, sitk.sitkUInt8), orientation),
            labels / f"{i}.nii.gz",
        )
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    assert predict(model, study, tmp_path / "found", None, "-codes", codes) == 0
    assert predict(model, study, tmp_path / "given", codes) == 0
    one, other = (next((tmp_path / name).glob("*.nii.gz")) for name in ("found", "given"))
    assert most_common_orientation([one]) == "RAS" and one.read_bytes() == other.read_bytes()


@dataclass(frozen=True)
class Run:
    """What a run has written of a study.

    Attributes:
        images: The study's files as pydicom reads them.
        objects: Files by what they are.
        row: Of the list.
    """

    images: list[pydicom.Dataset]
    objects: dict[str, Path]
    row: dict[str, str]

    @property
    def segmentation(self) -> hd.seg.Segmentation:
        return hd.seg.segread(self.objects["segmentation"])


@pytest.fixture(scope="module")
def run_of_a_flagged_scan(tmp_path_factory, model) -> Run:
    folder = tmp_path_factory.mktemp("flagged")
    study = folder / "study"
    write_series(study, scan())
    codes = write_codes(folder / "codes.json")
    unlike = (0.01, "unlike the 20 calibration scans: spacing")
    options = ("-maps", "entropy", "probabilities")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MapQuality, "unlike", lambda *_: unlike)
        assert predict(model, study, folder / "out", codes, *options) == 0
    (row,) = read_list(folder / "out")
    images = [pydicom.dcmread(path) for path in sorted(study.iterdir())]
    return Run(images, written(folder / "out"), row)


def test_a_run_writes_each_object_once(run_of_a_flagged_scan) -> None:
    assert run_of_a_flagged_scan.objects.keys() == {
        "segmentation",
        "report",
        "entropy",
        "probability_0_background",
        "probability_1_anterior",
        "probability_2_posterior",
    }


@pytest.mark.skipif(
    not shutil.which("dciodvfy"), reason="needs Debian's dicom3tools: apt-get install dicom3tools"
)
def test_objects_are_what_the_standard_wants(run_of_a_flagged_scan) -> None:
    for path in run_of_a_flagged_scan.objects.values():
        checked = subprocess.run(
            ["dciodvfy", str(path)], capture_output=True, text=True, errors="replace"
        )
        assert "Error" not in checked.stderr + checked.stdout


def test_a_segmentation_is_of_the_patient_and_has_the_codes_of_its_structures(
    run_of_a_flagged_scan,
) -> None:
    segmentation = run_of_a_flagged_scan.segmentation
    first_image = run_of_a_flagged_scan.images[0]
    for name in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert segmentation[name].value == first_image[name].value
    anterior = segmentation.get_segment_description(1)
    posterior = segmentation.get_segment_description(2)
    assert anterior.segment_label == "anterior"
    assert anterior.segmented_property_type.value == "4421005"
    assert anterior.segmented_property_type.scheme_designator == "SCT"
    assert posterior.segment_label == "posterior"
    assert posterior.segmented_property_type.scheme_designator == "99TEST"
    assert posterior.segmented_property_category.meaning == "Tissue"


def test_voxels_quote_the_images_that_they_are_of(run_of_a_flagged_scan) -> None:
    images = {image.SOPInstanceUID for image in run_of_a_flagged_scan.images}
    objects = run_of_a_flagged_scan.objects
    for made in (
        run_of_a_flagged_scan.segmentation,
        hd.imread(objects["entropy"]),
        hd.imread(objects["probability_1_anterior"]),
    ):
        assert {uid for _, _, uid in made.get_source_image_uids()} == images


@pytest.mark.parametrize(
    "name, quantity", [("entropy", "ENTROPY"), ("probability_1_anterior", "PROBABILITY")]
)
def test_a_parametric_map_says_what_its_values_are(run_of_a_flagged_scan, name, quantity) -> None:
    parametric_map = hd.imread(run_of_a_flagged_scan.objects[name])
    assert parametric_map.SOPClassUID.name == "Parametric Map Storage"
    assert parametric_map.ContentQualification == "RESEARCH"
    groups = parametric_map.SharedFunctionalGroupsSequence[0]
    (mapping,) = groups.RealWorldValueMappingSequence
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"  # UCUM's for no unit
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == quantity


def test_a_report_says_whether_the_scan_is_flagged_and_why(run_of_a_flagged_scan) -> None:
    report = hd.sr.srread(run_of_a_flagged_scan.objects["report"])
    assert report.SOPClassUID.name == "Comprehensive 3D SR Storage"
    assert report.VerificationFlag == "UNVERIFIED"
    row = run_of_a_flagged_scan.row
    assert row["flag"] == "yes" and "unlike the 20" in row["reasons"]
    expected_reasons = [("REASON", text) for text in row["reasons"].split("; ")]
    assert qualitative(report) == [("FLAG", "Yes"), *expected_reasons]


def test_a_report_has_the_measurements_of_each_segment(run_of_a_flagged_scan) -> None:
    segmentation = run_of_a_flagged_scan.segmentation
    report = hd.sr.srread(run_of_a_flagged_scan.objects["report"])
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 2
    columns = {
        "118565006": "volume_ml",
        "DICE": "predicted_dice",
        "DICE_LOW": "predicted_dice_low",
        "DICE_HIGH": "predicted_dice_high",
    }
    for number, (name, group) in enumerate(zip(("anterior", "posterior"), groups), 1):
        segment = segmentation.get_segment_description(number)
        assert group.tracking_identifier == name == segment.tracking_id
        assert group.tracking_uid == segment.tracking_uid
        assert group.finding_type.value == CODES[name]["code"]
        reference = group.referenced_segment[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        assert reference.ReferencedSegmentNumber == number
        (support,) = group.get_qualitative_evaluations()
        assert (support.name.value, support.value.value) == ("SUPPORT", "NOT_SUPPORTED")
        measurements = {item.name.value: item for item in group.get_measurements()}
        assert measurements.keys() == columns.keys()  # presence was not learned
        for code, column in columns.items():
            listed = float(run_of_a_flagged_scan.row[f"{name} {column}"])
            assert measurements[code].value == pytest.approx(listed, rel=1e-5)
        assert measurements["118565006"].unit.value == "ml"
        assert measurements["DICE"].name.scheme_designator == SCHEME


def test_overlapping_regions_are_segments_that_overlap(tmp_path, study) -> None:
    folder = make_model(tmp_path, labels=REGIONS, channels=("CT",), seed=3)
    codes = write_codes(
        tmp_path / "codes.json", {"whole": CODES["anterior"], "core": CODES["posterior"]}
    )
    assert predict(folder, study, tmp_path / "out", codes, "-maps", "fractional") == 0
    (nifti,) = (tmp_path / "out").glob("*.nii.gz")
    labels = points_of_nifti(nifti)
    objects = written(tmp_path / "out")
    assert same_places(points_of_segment(objects["segmentation"], 1), labels)
    assert same_places(
        points_of_segment(objects["segmentation"], 2),
        [at for at, label in labels.items() if label == 2],
    )
    report = hd.sr.srread(objects["report"])  # of a model that is not calibrated
    assert [
        len(group.get_measurements())
        for group in report.content.get_volumetric_roi_measurement_groups()
    ] == [1, 1]
    assert len(points_of_segment(objects["probabilities"], 1)) >= len(
        points_of_segment(objects["segmentation"], 1)
    )


def test_compressed_images_without_a_patient_and_names_of_any_script(tmp_path) -> None:
    folder = make_model(
        tmp_path, labels={"background": 0, "Größe": 1, "部": 2}, channels=("CT",), seed=7
    )
    codes = write_codes(tmp_path / "codes.json", dict(zip(("Größe", "部"), CODES.values())))
    removed = (
        "PatientID PatientBirthDate PatientSex StudyID StudyDate StudyTime AccessionNumber Modality"
    )
    changes = {"PatientName": "Müller^Jörg", "SpecificCharacterSet": "ISO_IR 100"}
    for path in write_series(tmp_path / "study", scan(), syntax="RLELossless", **changes):
        image = pydicom.dcmread(path)
        for name in (
            *removed.split(),
            "ReferringPhysicianName",
            "SeriesNumber",
            "SeriesDescription",
            "SliceThickness",
        ):
            delattr(image, name)
        image.save_as(path)
    assert predict(folder, tmp_path / "study", tmp_path / "out", codes) == 0
    objects = written(tmp_path / "out")
    assert objects["segmentation"].name.startswith("series_")
    seg = hd.seg.segread(objects["segmentation"])
    assert seg.PatientName == "Müller^Jörg" and [
        one.SegmentLabel for one in seg.SegmentSequence
    ] == ["Größe", "部"]
    assert seg.PatientID == ""
    assert seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 2.5
    groups = hd.sr.srread(objects["report"]).content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["Größe", "部"]


def test_headers_that_objects_cannot_quote_are_cleaned(tmp_path, model, codes) -> None:
    turned = oblique()[:, :2].T.ravel()
    turned[0] += 1e-4
    changes = {
        "ImageOrientationPatient": {4: [f"{cosine:.9f}" for cosine in turned]},
        "PixelSpacing": {3: ["0.7004", "0.9"]},
        "PatientBirthDate": "19991399",
        "PatientSex": "X",
        "StudyDate": "garbage",
        "StudyTime": "256199",
    }
    with pydicom.config.disable_value_validation():
        write_series(tmp_path / "study", scan(), **changes)
    assert (
        predict(
            model, tmp_path / "study", tmp_path / "out", codes, "-maps", "entropy", "fractional"
        )
        == 0
    )
    objects = written(tmp_path / "out")
    assert len(objects) == 4
    for path in objects.values():
        made = pydicom.dcmread(path)
        assert made.PatientID == "patient-7"
        assert [
            made[name].value
            for name in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime")
        ] == [""] * 4
    first = pydicom.dcmread(tmp_path / "study" / "IM0000")
    groups = hd.seg.segread(objects["segmentation"]).SharedFunctionalGroupsSequence[0]
    plane = groups.PlaneOrientationSequence[0].ImageOrientationPatient
    assert list(plane) == pytest.approx(list(first.ImageOrientationPatient), abs=1e-6)


def test_presence_is_reported_and_an_empty_structure_stays(
    tmp_path, model, study, codes, monkeypatch
) -> None:
    write = DicomMaker.write

    def without_posterior(maker, case, reported, *others):
        labels = np.where(case.segmentation == 2, 0, case.segmentation)
        said = [
            {"volume_ml": 1.5, "present_probability": 0.75},
            {"volume_ml": 0.0, "present_probability": 0.25},
        ]
        return write(maker, replace(case, segmentation=labels), Reported(said), *others)

    monkeypatch.setattr(DicomMaker, "write", without_posterior)
    assert predict(model, study, tmp_path / "out", codes) == 0
    objects = written(tmp_path / "out")
    assert len(hd.seg.segread(objects["segmentation"]).SegmentSequence) == 2
    report = hd.sr.srread(objects["report"])
    assert qualitative(report) == [("FLAG", "No")]
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert not any(group.get_qualitative_evaluations() for group in groups)  # nobody knows
    values = [{one.name.value: one.value for one in group.get_measurements()} for group in groups]
    assert values == [{"118565006": 1.5, "PRESENCE": 0.75}, {"118565006": 0.0, "PRESENCE": 0.25}]


def test_series_of_a_study_are_scans_of_one_list_and_a_bad_one_costs_only_itself(
    tmp_path, model, codes
) -> None:
    study = tmp_path / "study"
    write_series(study, scan(), number=1)
    for path in write_series(tmp_path / "more", scan(1), number=2):
        shutil.move(path, study / f"second_{path.name}")
    (broken,) = (
        path for i, path in enumerate(write_series(tmp_path / "third", scan(2), number=4)) if i == 4
    )
    broken.write_bytes(broken.read_bytes()[:-50])
    shutil.move(tmp_path / "third", study / "third")
    assert predict(model, study, tmp_path / "out", codes) == 1
    rows = read_list(tmp_path / "out")
    assert {row["case"][:2] for row in rows[:2]} == {"1_", "2_"} and rows[2]["case"].startswith(
        "4_"
    )
    assert f"third/{broken.name}: its voxels cannot be read" in rows[2]["problem"]
    assert len(list((tmp_path / "out" / "dicom").iterdir())) == 4
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "dicom").iterdir()}
    assert predict(model, study, tmp_path / "out", codes, "--continue_prediction") == 1
    assert before == {
        path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "dicom").iterdir()
    }
    for changed in ("-unlike", "codes"):  # reports say both
        if changed == "codes":
            write_codes(codes, CODES | {"anterior": CODES["anterior"] | {"code": "1"}})
        assert predict(model, study, tmp_path / "out", codes, "-unlike", "0.2") == 1
        assert all(path.stat().st_mtime_ns > time for path, time in before.items())
        before = {path: path.stat().st_mtime_ns for path in before}


def test_a_report_has_the_intervals_of_the_list_beside_it_whatever_the_map_had_learned_before(
    tmp_path, model, study, codes
) -> None:
    folder = untrained.copy_model(model, tmp_path)
    lowest = []
    for ratio in (0.9, 0.6):  # the map itself stays the same
        calibrate(folder, ratio=ratio)
        assert predict(folder, study, tmp_path / "out", codes) == 0
        report = hd.sr.srread(written(tmp_path / "out")["report"])
        first, *_ = report.content.get_volumetric_roi_measurement_groups()
        reported = {one.name.value: one.value for one in first.get_measurements()}
        [row] = read_list(tmp_path / "out")
        lowest.append(float(row["anterior predicted_dice_low"]))
        assert reported["DICE_LOW"] == pytest.approx(lowest[-1], rel=1e-5)
    assert lowest[0] > lowest[1] + 0.1


def test_settings_that_do_not_fit_are_refused_before_the_work(
    tmp_path, model, study, codes, capsys
) -> None:
    def refused(scans, *arguments):
        assert predict(model, scans, tmp_path / "out", None, *arguments) == 2
        return capsys.readouterr().err

    assert "-codes FILE, with a code for anterior, posterior" in refused(
        study, "-orientation", "RAS"
    )
    assert "-orientation" in refused(study)
    assert "three letters" in refused(study, "-codes", codes, "-orientation", "RAL")
    scans = make_scans(tmp_path / "scans")
    for path in scans.glob("*_0001.nii.gz"):
        path.unlink()
    assert "-codes and -orientation go with DICOM" in refused(scans, "-codes", codes)
    assert "-maps fractional goes with DICOM" in refused(scans, "-maps", "fractional")
    assert not (tmp_path / "out").exists()


def test_codes_that_are_missing_or_damaged_are_named(tmp_path, codes) -> None:
    def refused(content):
        with pytest.raises(UserError) as error:
            read_codes(write_codes(tmp_path / "other.json", content), ["anterior", "posterior"])
        return str(error.value)

    assert read_codes(codes, list(CODES)) == CODES
    short = write_codes(
        tmp_path / "short.json", {"anterior": {"code": "4421005", "meaning": "Cell structure"}}
    )
    assert read_codes(short, ["anterior"]) == {"anterior": CODES["anterior"]}
    assert "no code for posterior; add" in refused({"anterior": CODES["anterior"]})
    assert "anterior.meaning: Field required" in refused(
        CODES | {"anterior": {"code": "1", "category": "Tissue"}}
    )
    assert "category 'Organ'; there are AnatomicalStructure" in refused(
        CODES | {"anterior": CODES["anterior"] | {"category": "Organ"}}
    )
    # several values, or what cannot be shown
    for field, value in (("code", "a\\b"), ("scheme", "a\nb")):
        said = refused(CODES | {"anterior": CODES["anterior"] | {field: value}})
        assert "should match pattern" in said and repr(value) in said and "\n" not in said
    assert "at most 16 characters" in refused(
        CODES | {"anterior": CODES["anterior"] | {"code": "1" * 17}}
    )


def test_a_header_that_no_object_can_be_made_with_is_named(
    tmp_path, model, codes, capsys, monkeypatch
) -> None:
    def refuse(*arguments, **options):
        raise ValueError("a value that highdicom does not take")

    monkeypatch.setattr(hd.seg, "Segmentation", refuse)
    paths = write_series(tmp_path / "study", scan())
    assert predict(model, tmp_path / "study", tmp_path / "out", codes) == 2
    assert (
        f"{paths[0]}: no DICOM object can be made with its header (a value that"
        in capsys.readouterr().err
    )
    assert not list((tmp_path / "out").rglob("*.dcm"))
