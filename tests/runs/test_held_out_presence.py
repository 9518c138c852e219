"""What held-out cases teach about what is there: which structures are listed, what is learned, how it is checked."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from nnunet_nacl.case.results import CaseQuality, CaseResult, StructureQuality
from nnunet_nacl.files import to_json_text
from nnunet_nacl.json_files import decode, encode
from nnunet_nacl.numbers.presence import LearnedPresence
from nnunet_nacl.runs.held_out_presence import learn_presence, present_by_others
from nnunet_nacl.show.case_tables import presence_text

NAMES = {"1": "organ", "2": "lesion", "3": "bones"}
CASES = 40


def case(i: int, rng) -> CaseResult:
    """The organ is always there in one piece, the bones always in three, the lesion in two cases of three."""
    sick = i % 3 > 0
    volume = float(rng.uniform(2, 5)) if sick else 0.0
    largest = float(rng.uniform(0.5, 1) if sick else rng.uniform(0.2, 0.7))

    def scan(expected, true, p, pieces):
        return StructureQuality(0.9, expected, expected, true, max_probability=p, largest_dice=p, true_pieces=pieces)

    expected = volume * 0.8 + float(rng.uniform(0.1, 0.6))
    structures = {"1": scan(50.0, 50.0, 1.0, 1), "2": scan(expected, volume, largest, int(sick))}
    structures["3"] = scan(9.0, 9.0, 1.0, 3)
    quality = CaseQuality("ml", 0.001, 0.2, 0.9, structures)
    return CaseResult(f"case_{i}", "", "", "", 2, 0, {}, {}, quality)


def with_structure(case: CaseResult, key: str, **values) -> CaseResult:
    """The case with other values of a structure."""
    structures = case.quality.structures | {key: replace(case.quality.structures[key], **values)}
    return replace(case, quality=replace(case.quality, structures=structures))


@pytest.fixture(scope="module")
def cases():
    rng = np.random.default_rng(0)
    return [case(i, rng) for i in range(CASES)]


def test_structures_that_can_be_absent_or_are_in_pieces_are_listed(cases):
    found = learn_presence(cases, NAMES, [one.case for one in cases])
    assert found.listed == ["2", "3"] and found.voxel == 0.001
    assert list(found.present) == list(found.checks) == ["2"] and not found.why_not
    one = found.present["2"]
    assert (one.n, one.n_yes, one.n_patients) == (40, 26, 40)


def test_it_beats_what_the_network_says_and_is_checked_on_other_patients(cases):
    found = learn_presence(cases, NAMES, [one.case for one in cases])
    learned, largest, any_voxel = (
        found.checks["2"][kind] for kind in ("learned", "largest probability", "any voxel predicted")
    )
    assert learned.brier < largest.brier < any_voxel.brier == pytest.approx(14 / 40)
    assert learned.auroc > 0.95 and any_voxel.auroc == 0.5 and learned.n == 40
    shown = [line.split() for line in presence_text(found, NAMES).splitlines()]
    assert len(shown) == 2 and (shown[0][-1], shown[1][-1]) == ("n", "40")


def test_of_anatomy_that_falls_apart_in_some_scans_nothing_is_learned(cases):
    # cut in two in every third scan
    changed = [with_structure(one, "1", true_pieces=1 + (i % 3 == 0)) for i, one in enumerate(cases)]
    found = learn_presence(changed, NAMES, [one.case for one in cases])
    assert found.listed == ["2", "3"] and "1" not in found.why_not
    assert "organ" not in presence_text(found, NAMES)


def test_what_was_learned_comes_back_and_answers(cases):
    found = learn_presence(cases, NAMES, [one.case for one in cases])
    again = decode(LearnedPresence, json.loads(to_json_text(encode(found))), "map.json")
    sure, doubtful = again.present_probability("2", 4.0, 0.99), again.present_probability("2", 0.2, 0.3)
    assert sure > 0.9 > 0.2 > doubtful and sure == found.present_probability("2", 4.0, 0.99)
    assert math.isnan(again.present_probability("1", 4.0, 0.9))


def test_presence_of_a_case_follows_from_the_other_parts(cases):
    names = [one.case for one in cases]
    parts = [str(i % 5) for i in range(len(cases))]
    found = present_by_others(cases, list(NAMES), names, parts, False)
    others = [one for one, part in zip(cases, parts) if part != "0"]
    taught = learn_presence(others, NAMES, [one.case for one in others])
    said = cases[5].quality.structures["2"]
    expected = taught.present_probability("2", said.expected_volume, said.largest_dice)
    assert found[5].tolist() == pytest.approx([math.nan, expected, math.nan], nan_ok=True)
    assert np.isnan(present_by_others(cases, list(NAMES), names, parts, True)).all()  # with an ignore label


def test_what_says_no_more_than_a_constant_is_not_delivered(cases):
    # numbers that have nothing to do with the truth, every third without
    changed = [with_structure(one, "2", expected_volume=1.0 + i % 2, largest_dice=0.5) for i, one in enumerate(cases)]
    found = learn_presence(changed, NAMES, [one.case for one in cases])
    checks = found.checks["2"]
    assert checks["learned"].brier >= checks["share of the other patients"].brier
    assert "2" not in found.present
    assert found.why_not["2"] == "no better than the share of the other patients"
    assert "nothing is said of lesion: no better" in presence_text(found, NAMES)
