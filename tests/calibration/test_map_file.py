"""calibration_map.json: what its reader takes, and what it says of a file that it cannot take."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.map_file import check_networks, check_structures
from nnunet_nacl.cases.case import Labels
from nnunet_nacl.estimators.log_odds_map import LogOddsMap, map_from_tables
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.json_files import read_dict
from tests.metrics.models import map_to_json
from tests.nnunet.untrained import calibrate, make_model

STRUCTURES = {"1": "anterior", "2": "posterior"}
NO_OFFSETS = np.zeros((3, 2))
SAME_FOR_ALL_LABELS = [[2, -0.5, 0.1], [0.25, 1, 0]]
OF_STRUCTURES = [[1, 0.5, 1e-9], [-0.5, 3, 0.25]]
OF_BACKGROUND = [[1, 0.5, 1e-9], [0, 2, 0]]  # differs in one structure
MAPS = {
    "temperature": map_from_tables([0.5, 0.5], [0, 0]),
    "conditional": map_from_tables(np.arange(1, 7).reshape(3, 2), NO_OFFSETS),
    "mixed": map_from_tables(
        [OF_BACKGROUND, OF_STRUCTURES, OF_STRUCTURES], [[0, 0], [0, 1], [0, 0]]
    ),
    "matrix": map_from_tables(np.array([SAME_FOR_ALL_LABELS] * 3), NO_OFFSETS),
}


def same_map(one: LogOddsMap, other: LogOddsMap) -> bool:
    return np.array_equal(one.coefficients, other.coefficients)


@pytest.fixture
def write(tmp_path):
    """Function that writes a map, with changes; its path."""

    def run(**changes):
        path = tmp_path / "calibration_map.json"
        path.write_text(json.dumps(map_to_json(MAPS, "conditional", STRUCTURES) | changes))
        return path

    return run


def test_a_map_comes_back_by_its_form(write):
    for form in (None, *MAPS):
        assert same_map(CalibrationMap.load(write()).calibration(form), MAPS[form or "conditional"])
    assert not same_map(MAPS["conditional"], MAPS["temperature"])
    regions = map_from_tables([[1, 2], [3, 4]], np.zeros((2, 2)), regions=True)
    path = write(**map_to_json({"conditional": regions}, "conditional", STRUCTURES))
    assert CalibrationMap.load(path).calibration().regions


def test_a_shift_that_an_earlier_version_stored_is_applied(write):
    shift = {"slopes": [[0.5, 0.5]], "offsets": [[0.1, -0.2]], "ridge": 1e-6}
    calibration = CalibrationMap.load(write(maps={"shift": shift}, form="shift"))
    probs = np.array([[0.2], [0.3], [0.5]])
    expected = np.exp([0, 0.1 + 0.5 * np.log(1.5), -0.2 + 0.5 * np.log(2.5)])
    calibrated = calibration.transform(probs)[:, 0]
    np.testing.assert_allclose(calibrated, expected / expected.sum(), rtol=1e-9)


def tables(slopes) -> dict:
    return {"conditional": {"slopes": slopes, "offsets": np.zeros(np.shape(slopes)).tolist()}}


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"schema_version": 5},
            "schema version 5, .* reads 6; run `nnunet_nacl calibrate` again.$",
        ),
        (
            {"schema_version": None},  # as a file of others, such as dataset.json
            "is no calibration map; give the calibration_map.json of this model, which",
        ),
        (
            {"form": "shift"},
            (
                "no map of the form shift, but temperature, conditional, mixed, matrix; calibrate"
                " again"
            ),
        ),
        (
            {"maps": tables([[1, 1]] * 2)},
            "2 structures take 1 or 3 rows of slopes, one a label, got 2",
        ),
        ({"maps": tables([["a", "b"]] * 3)}, "alibrate again"),
        ({"maps": tables([[1, 1], [1, 1], [1, -1]])}, "slopes must be above 0"),
        (
            {"maps": {"conditional": {"slopes": [[1, 1], [1]], "offsets": [[0, 0], [0]]}}},
            "alibrate again",
        ),
        (
            {"fitted": {"groups": "six"}},
            "not a map of .*: fitted.groups: .*valid dictionary.*'six'; calibrate",
        ),
        (
            {"fitted": {"cross_fit": {"a": {"cases": ["b"]}}}},
            r"cross_fit\.a\.map: Field required; calibrate again",
        ),
    ],
)
def test_what_cannot_be_taken_is_one_line_with_the_remedy(write, changes, message):
    path = write(**changes)
    with pytest.raises(UserError, match=message) as caught:
        CalibrationMap.load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_structures_and_their_kind_must_be_those_of_the_map(write):
    labels = Labels(("background", *STRUCTURES.values()), (0, 1, 2), False, None, (0, 1, 2))
    record = CalibrationMap.load(path := write())
    check_structures(path, record, labels)
    wrong = "is for the classes 1 anterior, 2 posterior, the predictions have the regions"
    with pytest.raises(UserError, match=wrong):
        check_structures(
            path,
            record,
            replace(labels, names=tuple(STRUCTURES.values()), values=(1, 2), regions=True),
        )


def large_map(path, num: int, **changes):
    """A small file of a conditional map of many structures: one row differs from what is common to
    all labels."""
    row = {"label": 1, "structure": 1, "slope": 1.5, "total": 0.0, "offset": 0.0}
    stored = {"slopes": [[1.0] * num], "offsets": [[0.0] * num], "rows": [row]}
    parts = {str(i): {"cases": [str(i)], "map": stored} for i in range(3)}
    content = map_to_json(MAPS, "conditional", STRUCTURES)
    content["structures"] = [{"key": str(i), "name": f"s{i}"} for i in range(1, num + 1)]
    content |= {"maps": {"conditional": stored}, "fitted": {"cross_fit": parts}} | changes
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("num", [600, 5000])
def test_structures_are_compared_before_a_table_is_made_of_many(tmp_path, num):
    path = large_map(tmp_path / "map.json", num)
    labels = Labels(("background", *STRUCTURES.values()), (0, 1, 2), False, None, (0, 1, 2))
    tracemalloc.start()
    record = CalibrationMap.load(path)
    with pytest.raises(
        UserError,
        match=f"classes 1 s1, .* and {num - 8} more, the predictions have the classes 1 ante",
    ):
        check_structures(path, record, labels)
    with pytest.raises(
        ValueError, match=f"this map is for {num + 1} channels, got probabilities of shape"
    ):
        record.transform(np.full((2, 4), 0.5))
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    too_large = rf"a map of {num} structures \(times 3\) takes .* GiB .* the form temperature"
    with pytest.raises(UserError, match=too_large):
        _ = record.part_maps


def test_of_many_structures_the_first_that_differs_is_named(tmp_path):
    record = CalibrationMap.load(large_map(tmp_path / "map.json", 20))
    names = tuple(f"s{i}" if i != 15 else "other" for i in range(1, 21))
    labels = Labels(("background", *names), tuple(range(21)), False, None, tuple(range(21)))
    with pytest.raises(UserError, match="the first that differs is 15 s15, here 15 other"):
        check_structures(tmp_path / "map.json", record, labels)
    with pytest.raises(UserError, match="two of its 2 structures have the same key"):
        CalibrationMap.load(
            large_map(tmp_path / "map.json", 2, structures=[{"key": "1", "name": "a"}] * 2)
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"others": {"-1": 0.5}}, r"rows\.0\.others\.-1.*greater than or equal to 0"),
        ({"others": {"2": 0.5}}, r"no label 1, or no structure \[1, 2\]"),
        ({"label": 3}, "no label 3"),
        ({"slope": 0.0}, "slopes must be above 0, of label 1 and structure 1 it is 0"),
    ],
)
def test_rows_of_a_map_that_do_not_fit_are_named(tmp_path, change, message):
    path = large_map(tmp_path / "map.json", 2)
    content = json.loads(path.read_text())
    content["maps"]["conditional"]["rows"][0] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        CalibrationMap.load(path)


def test_rows_of_regions_depend_on_themselves_alone(tmp_path):
    path = large_map(tmp_path / "map.json", 2, regions=True)
    assert CalibrationMap.load(path).calibration().coefficients[1, 1].tolist() == [1.5, 0, 0]
    for change, message in (
        ({"others": {"0": 0.5}}, "depend on no other region"),
        ({"total": -1.5}, "structure 1 it is 1.5 and 0 with `total`"),
    ):
        content = json.loads(large_map(path, 2, regions=True).read_text())
        content["maps"]["conditional"]["rows"][0] |= change
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=message):
            CalibrationMap.load(path)


PATIENT = list(range(20))
PRESENT = {"intercept": 0.0, "slopes": [1, 1], "centre": [0, 0], "spread": [1, 1], "n_patients": 9}
ESTIMATE = {"difference": [0.0] * 9, "patient": list(range(9))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    """A map of 20 patients with all that it can have learned."""
    path = calibrate(make_model(tmp_path_factory.mktemp("model")))
    content = read_dict(path)
    profiles = {"names": ["median"], "values": [[0.5]] * 20, "patient": PATIENT}
    presence = {"voxel": 0.1, "present": {"2": PRESENT}, "listed": ["2"]}
    recall = {
        "n_patients": 20,
        "missed": [0.5] * 186,
        "times_larger": [1.0] * 186,
        "false_voxels": [0.0] * 186,
    }
    content["quality"] |= {"profiles": profiles, "presence": presence, "recall": {"1": recall}}
    content["fitted"]["cross_fit"] = {"a": {"cases": ["b"], "map": content["maps"]["conditional"]}}
    path.write_text(json.dumps(content))
    CalibrationMap.load(path)
    return path.read_text()


@pytest.mark.parametrize(
    "place, value, named",
    [
        (
            "quality.learned.scores.patient.19",
            10**9,
            "quality.learned.scores.patient: .* 0 to 19, the largest is 1000",
        ),
        ("quality.profiles.patient", [*PATIENT[:-1], -1], "quality.profiles.patient: "),
        (
            "quality.learned.scores.score",
            {"1": [0.5] * 20},
            "quality.learned.scores: .* same structures",
        ),
        (
            "quality.learned.scores.score.1.3",
            None,
            "quality.learned: scores.score.1: 19 scans have a score, 20 were",
        ),
        ("quality.learned.dice.1.difference", [0.0] * 19, "quality.learned.dice.1: its lists"),
        ("quality.learned.dice.1.voxel", 0.1, "quality.learned: dice: volumes, and they alone"),
        (
            "quality.learned.dice.3",
            ESTIMATE,
            "quality.learned.dice: it is of the structures 1, 2, 3, the map",
        ),
        ("quality.learned.checks.dice.1.n", -1, "quality.learned.checks.dice.1.n: .*, not -1"),
        (
            "quality.presence.present.3",
            PRESENT,
            "quality.presence.present: it is of the structures 2, 3, the map",
        ),
        ("quality.presence.present.2", PRESENT | {"slopes": [1]}, "quality.presence.present.2: "),
        ("quality.presence.present.2.spread", [0, 1], "quality.presence.present.2"),
        (
            "quality.recall.1.missed.0",
            0.99,
            "quality.recall.1: a higher threshold cannot miss less",
        ),
        ("quality.recall.1.missed", [0.5], "quality.recall.1: its lists must have 186 values"),
        ("quality.recall.1.missed.7", None, "quality.recall.1.missed.7: "),
        (
            "maps.conditional.slopes",
            [[2e6, 1]],
            "maps.conditional.slopes.0.0: .*1000000, not 2000000",
        ),
        ("fitted.cross_fit.a.map.slopes", [[-1, 1]], "cross_fit.a.map: slopes must be above 0"),
    ],
)
def test_a_map_that_was_edited_is_refused_and_its_field_named(whole, tmp_path, place, value, named):
    content = json.loads(whole)
    *parents, last = place.split(".")
    at = content
    for key in parents:
        at = at[key]
    at[int(last) if isinstance(at, list) else last] = value
    (tmp_path / "map.json").write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=f"map.json: not a map .*{named}.*; calibrate again, or give its cal"
    ) as caught:
        CalibrationMap.load(tmp_path / "map.json")
    assert "\n" not in str(caught.value)


def test_networks_are_compared_where_the_map_knows_them(write):
    path = write(origin={"checkpoint_sha256": {"0": "abc", "1": "def"}})
    record = CalibrationMap.load(path)
    check_networks(path, record, {"0": "abc", "2": "new"})
    with pytest.raises(UserError, match="other networks than those of fold 1 .*calibrate again"):
        check_networks(path, record, {"0": "abc", "1": "abc"})
    check_networks(path, CalibrationMap.load(write()), {"0": "anything"})
