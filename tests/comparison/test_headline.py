"""What terminal and page say first of a comparison: leading differences, counts of all verdicts."""

from __future__ import annotations

import pytest

from nnunet_nacl.cli.comparison_text import headline_text
from nnunet_nacl.comparison.comparison import BY_TRUTH, Comparison
from nnunet_nacl.comparison.headline import Headline, make_headlines, outcome_of
from nnunet_nacl.comparison.tables import comparison_tables
from nnunet_nacl.metrics.statistics import PairedDifference
from tests.comparison.synthetic import THREE, make_comparison

WORSE_BY_HALF = PairedDifference(
    n=20,
    n_patients=20,
    mean_reference=1.0,
    mean=1.5,
    difference=0.5,
    low=0.25,
    high=0.75,
    rank_biserial=0.8,
    p=0.01,
    n_better=4,
    n_worse=16,
    n_equal=0,
)
"""Of any value of which lower is better; by itself significant."""


def headline_of(comparison: Comparison) -> Headline:
    [headline] = make_headlines([comparison])
    return headline


@pytest.fixture
def with_differences(monkeypatch):
    """A function that makes a comparison of two methods whose every difference is this one."""

    def make(paired: PairedDifference) -> Comparison:
        def paired_difference(*_, higher_is_better, **__):
            if not higher_is_better:
                return paired
            return paired | {"n_better": paired["n_worse"], "n_worse": paired["n_better"]}

        monkeypatch.setattr(
            "nnunet_nacl.comparison.comparison.paired_difference", paired_difference
        )
        return make_comparison()

    return make


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"verdict": "worse"}, "worse"),
        ({"verdict": "untested"}, "untested"),
        ({}, "unconfirmed"),
        ({"low": -0.75, "high": -0.25}, "unconfirmed"),
        ({"low": 0.0}, "none"),
        ({"low": -0.25}, "none"),
        ({"low": float("nan"), "high": float("nan")}, "none"),
        ({"n_better": 0, "n_worse": 0, "low": 0.0, "high": 0.0}, "equal"),
    ],
)
def test_an_outcome_is_the_verdict_and_without_one_what_the_interval_shows(changes, outcome):
    test = {"verdict": "none", "low": 0.25, "high": 0.75, "n_better": 4, "n_worse": 16}
    assert outcome_of({**test, **changes}) == outcome


def test_proper_scores_lead_with_the_numbers_of_the_tests():
    comparison = make_comparison(THREE, cases=40)
    headline = headline_of(comparison)
    assert [method.label for method in headline.methods] == ["CE", "NACL"]
    tests = comparison.statistics.set_index(["trainer", "column"])
    for trainer, method in zip(list(THREE)[1:], headline.methods):
        titles = [difference.title for difference in method.leading]
        assert titles == ["NLL predicted", "Brier predicted", "NLL all", "DSC", "HD95 (mm)"]
        test = tests.loc[(trainer, "NLL:predicted")]
        first = method.leading[0]
        assert first.mean_reference == f"{test['mean_reference']:.4f}"
        assert first.mean == f"{test['mean']:.4f}"
        expected = f"{test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}]"
        assert first.difference == expected
        assert first.outcome == test.verdict == "better"


def test_every_test_is_counted_once_and_masks_that_are_chosen_with_the_truth_apart():
    comparison = make_comparison(THREE, cases=8)
    tests = comparison.statistics
    truth_masks = ("foreground", "union", "dilated", "boundary")
    on_truth_mask = tests["column"].str.endswith(tuple(f":{mask}" for mask in truth_masks))
    on_known_mask = tests.family.str.startswith("calibration") & ~on_truth_mask
    expected = {
        "all": tests.family.notna(),
        "segmentation": tests.family == "discrimination",
        "calibration, masks known in use": on_known_mask,
        f"calibration, masks by truth {BY_TRUTH}": on_truth_mask,
    }
    for trainer, method in zip(list(THREE)[1:], headline_of(comparison).methods):
        assert [counts.kind for counts in method.counts] == list(expected)
        for counts, belongs in zip(method.counts, expected.values()):
            verdicts = tests.verdict[(tests.trainer == trainer) & belongs].value_counts()
            counted = {name: n for name, n in counts.by_verdict.items() if n}
            assert counted == verdicts.to_dict()
            assert counts.n_tests == verdicts.sum()


def test_an_interval_without_0_that_is_not_significant_after_correction_is_no_difference(
    with_differences,
):
    """p is .01: of 20 tests Holm makes .2 of it, of the 6 of overlap .06, of 2 only .02."""
    comparison = with_differences(WORSE_BY_HALF)
    [method] = headline_of(comparison).methods
    reasons = {difference.title: difference.why_unconfirmed for difference in method.leading}
    sentence = (
        "interval excludes 0; not significant after correction for the {} tests of its family"
    )
    assert reasons["NLL predicted"] == sentence.format(20)
    assert reasons["DSC"] == sentence.format(6)
    assert {difference.outcome_text for difference in method.leading} == {"no difference shown"}
    total = method.counts[0]
    assert total.by_verdict == {"better": 0, "worse": 2, "mixed": 0, "none": 26, "untested": 0}
    assert total.no_difference_text == "26 (26)"
    # the table says the same, and of which masks
    table = {table.id: table for table in comparison_tables([comparison])}["statistics"]
    verdicts = dict(zip(table.texts["metric"], table.texts["verdict"]))
    assert verdicts["NLL predicted"] == sentence.format(20)
    assert verdicts[f"ECE foreground {BY_TRUTH}"] == "worse"
    assert "ECE foreground" not in verdicts
    assert f"{BY_TRUTH}: masks that are chosen with the truth" in table.caption


def test_the_tests_of_a_family_are_those_that_were_made(with_differences):
    comparison = with_differences(WORSE_BY_HALF)
    untested = WORSE_BY_HALF | {"p": float("nan")}
    assert comparison.family_sizes == {
        "discrimination": 6,
        "calibration": 2,
        "calibration_masks": 20,
    }
    comparison = with_differences(untested)
    assert comparison.family_sizes == {}
    assert headline_of(comparison).remarks == [
        "No test was made: too few cases, or no method that is to be tested."
    ]


def test_the_terminal_says_it_in_80_characters_a_line(with_differences):
    text = headline_text(headline_of(with_differences(WORSE_BY_HALF)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    joined = " ".join(text.split())
    assert (
        "NLL predicted no difference shown (interval excludes 0; not significant after correction"
        " for the 20 tests of its family): 1.0000 -> 1.5000 (+0.5000 [+0.2500, +0.7500])" in joined
    )
    assert f"calibration, masks by truth {BY_TRUTH} 13 0 2 0 11 (11)" in joined
    assert "Every test: tables/statistics.csv" in joined


def test_the_tables_of_masks_tell_which_are_chosen_with_the_truth():
    comparisons = [make_comparison(name=f"Dataset00{i}_Made", seed=i) for i in (1, 2)]
    tables = {table.id: table for table in comparison_tables(comparisons)}
    calibration = tables["calibration_Dataset001_Made"]
    marked = [mask for mask in calibration.texts["mask"].unique() if BY_TRUTH in mask]
    assert marked == [
        f"{mask} {BY_TRUTH}" for mask in ("foreground", "union", "dilated", "boundary")
    ]
    overview = tables["overview"]
    assert f"ECE foreground {BY_TRUTH} Dataset001_Made" in overview.texts
    assert "NLL predicted Dataset002_Made" in overview.texts
    for table in (calibration, overview):  # scripts read names without it
        assert BY_TRUTH not in table.to_csv()
