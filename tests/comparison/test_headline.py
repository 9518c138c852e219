"""What terminal and page say first of a comparison: leading differences, counts of all verdicts."""

from __future__ import annotations

from dataclasses import replace

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
    p=0.01,
    p_wilcoxon=0.001,
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
        ({"verdict": "equal", "low": 0.0, "high": 0.0}, "equal"),
    ],
)
def test_an_outcome_is_the_verdict_and_without_one_what_the_interval_shows(changes, outcome):
    test = {"verdict": "none", "low": 0.25, "high": 0.75}
    assert outcome_of({**test, **changes}) == outcome


def test_proper_scores_lead_with_the_numbers_of_the_tests():
    comparison = make_comparison(THREE, cases=40)
    headline = headline_of(comparison)
    assert [method.label for method in headline.methods] == ["CE", "NACL"]
    tests = comparison.statistics.set_index(["trainer", "column"])
    for trainer, method in zip(list(THREE)[1:], headline.methods):
        titles = [difference.title for difference in method.leading]
        assert titles == ["NLL predicted", "Brier predicted", "NLL all", "Dice", "HD95 (mm)"]
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
    expected = {
        "leading values": tests.family == "leading",
        "exploratory, segmentation": tests.family == "exploratory_structures",
        "exploratory, masks known in use": (tests.family == "exploratory_masks") & ~on_truth_mask,
        f"exploratory, masks by truth {BY_TRUTH}": on_truth_mask,
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
    """p is .01: of 17 tests Holm makes .17 of it, of the 5 that lead .05, of 2 only .02."""
    comparison = with_differences(WORSE_BY_HALF)
    [method] = headline_of(comparison).methods
    reasons = {difference.title: difference.remark for difference in method.leading}
    sentence = (
        "interval excludes 0; not significant after correction for the {} tests of its family"
    )
    assert set(reasons.values()) == {sentence.format(5)}
    assert {difference.verdict_text for difference in method.leading} == {"no difference shown"}
    of_truth = method.counts[-1]
    assert of_truth.by_verdict == {"better": 0, "worse": 2, "none": 11, "untested": 0}
    assert of_truth.no_difference_text == "11 (11)"
    # the table says the same, and of which masks
    table = {table.id: table for table in comparison_tables([comparison])}["statistics"]
    verdicts = dict(zip(table.texts["metric"], table.texts["verdict"]))
    assert verdicts["NLL predicted"] == sentence.format(5)
    assert verdicts["ECE predicted"] == f"{sentence.format(17)} (exploratory)"
    assert verdicts[f"ECE foreground {BY_TRUTH}"] == "worse (exploratory)"
    assert "ECE foreground" not in verdicts
    assert f"{BY_TRUTH}: masks that are chosen with the truth" in table.caption


def test_the_tests_of_a_family_are_those_that_were_made(with_differences):
    comparison = with_differences(WORSE_BY_HALF)
    untested = WORSE_BY_HALF | {"p": float("nan")}
    assert comparison.family_sizes == {
        "leading": 5,
        "exploratory_structures": 4,
        "exploratory_foreground": 2,
        "exploratory_masks": 17,
    }
    assert with_differences(untested).family_sizes == {}


def test_every_value_that_is_worse_is_named_the_leading_ones_first(with_differences):
    comparison = with_differences(WORSE_BY_HALF | {"p": 0.001})
    [method] = headline_of(comparison).methods
    tests = comparison.statistics
    titles = [comparison.columns[column].full_title for column in tests["column"]]
    leading = [title for title, family in zip(titles, tests.family) if family == "leading"]
    others = [title for title, family in zip(titles, tests.family) if family != "leading"]
    # more of the one value is worse, of the other better
    worse_of_more = [title for title in others if "Dice" not in title]
    leading.remove("Dice")
    assert method.worse == f"Worse: {', '.join(leading)}; exploratory: {', '.join(worse_of_more)}."
    assert method.worse in " ".join(headline_text(headline_of(comparison)).split())
    [method] = headline_of(with_differences(WORSE_BY_HALF | {"p": 0.5})).methods
    assert method.worse == ""


def test_without_a_test_it_is_said_why():
    few = make_comparison(cases=5)
    [remark] = headline_of(few).remarks
    assert remark == "No test was made: too few cases with values of both methods, it takes 6."
    reference, other = make_comparison().methods
    unranked = make_comparison(methods=[reference, replace(other, ranked=False)])
    [remark] = headline_of(unranked).remarks
    assert remark == "No test was made: no method but the reference is to be tested."
    same = make_comparison({"nnUNetTrainer": 1.0, "nnUNetTrainerNACL": 1.0})
    [remark] = headline_of(same).remarks
    assert remark == "No test was made: in every case all methods have the values of the reference."


def test_a_copy_is_named_and_counted_with_its_original():
    trainers = THREE | {"nnUNetTrainerCopy": 1.5}
    comparison = make_comparison(trainers, cases=12)
    methods = {method.label: method for method in headline_of(comparison).methods}
    remarks = [difference.remark for difference in methods["Copy"].leading]
    assert set(remarks) == {"the values of CE, not tested again"}
    verdicts = [difference.verdict_text for difference in methods["CE"].leading]
    assert [difference.verdict_text for difference in methods["Copy"].leading] == verdicts
    assert methods["Copy"].counts == []
    assert sum(counts.n_tests for counts in methods["CE"].counts) == 28


def test_families_with_too_many_tests_for_their_patients_are_named():
    """Of 8 patients p is .0078 at the least: 5 tests may pass, 17 not."""
    remarks = " ".join(headline_of(make_comparison(cases=8)).remarks)
    assert "Too many tests for so few cases" in remarks
    assert remarks.endswith("families of tests: calibration on other masks, and other scores.")
    assert make_comparison(cases=14).powerless == []


def test_the_terminal_says_it_in_80_characters_a_line(with_differences):
    text = headline_text(headline_of(with_differences(WORSE_BY_HALF)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    joined = " ".join(text.split())
    assert (
        "NLL predicted no difference shown (interval excludes 0; not significant after correction"
        " for the 5 tests of its family): 1.0000 -> 1.5000 (+0.5000 [+0.2500, +0.7500])" in joined
    )
    assert f"exploratory, masks by truth {BY_TRUTH} 13 0 2 11 (11)" in joined
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
