"""Sentences follow from the numbers."""

from __future__ import annotations

from nnunet_nacl.show.findings import gained, headline, key_findings, verdicts


def comparison(means: dict[str, list[float | None]], statistics=(), better=None) -> dict:
    """Methods A (the reference), B and C with these means."""
    names = ["a", "b", "c"]
    entry = {
        c: {
            n: {
                "mean": m,
                "low": None if m is None else m - 0.01,
                "high": None if m is None else m + 0.01,
                "n": 0 if m is None else 9,
            }
            for n, m in zip(names, row)
        }
        for c, row in means.items()
    }
    return {
        "settings": {"confidence": 0.9},
        "trainers": [{"name": n, "label": n.upper(), "ranked": True} for n in names],
        "columns": {c: {"title": c.replace(":", " "), "better": "higher" if c == "Dice" else "lower"} for c in means},
        "datasets": [{"name": "D", "means": entry}],
        "statistics": [
            dict(zip(("column", "trainer", "difference", "low", "high", "n", "verdict", "p_holm"), row), dataset="D")
            for row in statistics
        ],
    }


def sentences(data) -> list[str]:
    return [f"{f.question}: {f.answer}, {f.detail}" for f in key_findings(data, data["datasets"][0])]


def opening(means, statistics=()) -> list[str]:
    data = with_means(means, statistics)
    return headline(data, data["datasets"][0])


def with_means(means, statistics) -> dict:
    data = comparison(means, statistics)
    for row in data["statistics"]:
        values = means[row["column"]]
        row |= {"mean_reference": values[0], "mean": values["abc".index(row["trainer"])]}
    return data


MEANS = {"ECE:predicted": [0.10, 0.05, 0.07], "Dice": [0.80, 0.79, 0.85]}
BEST = [
    ("ECE:predicted", "b", -0.05, -0.0614, -0.04, 9, "better", 0.0004),
    ("Dice", "b", -0.01, -0.02, 0.004, 9, "none", 0.4),
]


def test_the_opening_names_the_lowest_calibration_error_and_what_happens_to_dice():
    assert opening(MEANS, BEST) == [
        "B has the lowest calibration error where a structure is predicted: ECE 0.050, against 0.100 of A"
        " (difference −0.050, 90 % interval −0.061 to −0.040).",
        "The Dice of B is 0.790, against 0.800 of A (difference −0.010, 90 % interval −0.020 to +0.004).",
    ]


UNTESTED = [(*row[:5], 3, "untested", None) for row in BEST]


def test_nobody_wins_where_nothing_is_tested():
    [text] = opening(MEANS, UNTESTED)
    assert text.startswith("Nothing is tested, and no method is called best") and "too few cases" in text
    assert not sentences(comparison(MEANS, UNTESTED))
    other_column = [*UNTESTED[:1], BEST[1]]
    [dice] = sentences(comparison(MEANS, other_column))
    assert dice.startswith("Highest overlap") and opening(MEANS, other_column) == [text]


def test_the_opening_says_where_nothing_differs():
    same = [(*row[:6], "none", 0.4) for row in BEST]
    first, *more = opening(MEANS, same)
    assert first == "The tests show no difference to A, neither in this ECE nor in Dice." and len(more) == 2


def test_the_opening_where_the_reference_leads_where_two_do_and_where_nobody_does():
    rows = [
        ("ECE:predicted", "c", 0.02, 0.01, 0.03, 9, "worse", 0.01),
        ("Dice", "c", 0.05, 0.0, 0.1, 9, "better", 0.01),
    ]
    first, dice = opening({**MEANS, "ECE:predicted": [0.05, 0.09, 0.07]}, rows)
    assert first.startswith("A, the reference, has the lowest") and first.endswith(
        "ECE 0.050; next is C, 0.070 (difference +0.020, 90 % interval +0.010 to +0.030)."
    )
    assert dice.startswith("The Dice of C is 0.850, against 0.800 of A")
    [text] = opening({"ECE:predicted": [0.05, 0.0501, 0.07]})
    assert text.startswith("A and B have the lowest") and text.endswith("ECE 0.050, equal to three decimals.")
    assert opening({"ECE:predicted": [0.05, None, None]}) == ["There are too few values to name a leader."]


def test_what_was_gained_after_training_comes_before_the_other_methods():
    data = with_means(MEANS, BEST)
    assert gained(data, data["datasets"][0]) == opening(MEANS, BEST), "nothing was calibrated"
    data["datasets"][0]["means"] = {}
    for row, treatment in zip(data["statistics"], ("+calibrated", "+calibrated+decided")):
        row["trainer"] = f"a{treatment}"
    first, second = gained(data, data["datasets"][0])
    assert first == (
        "Without another training, calibration took A from 0.100 to 0.050 in ECE where a structure is predicted, "
        "labels unchanged; labels chosen for Dice took Dice from 0.800 to 0.790."
    )
    assert second == "There are too few values to name a leader."


def test_the_best_is_named_with_its_interval_and_the_difference_to_the_reference():
    row = ("ECE:foreground", "b", -0.05, -0.0614, -0.04, 9, "better", 0.0004)
    [text] = sentences(comparison({"ECE:foreground": [0.10, 0.05, 0.07]}, [row]))
    assert text == (
        "Lowest calibration error on the structures (ECE foreground): B, 0.050 (90 % interval 0.040 to 0.060, 9 cases)."
        " 0.050 lower than the reference A in the same 9 cases (90 % interval of the difference −0.061 to −0.040);"
        " the test finds a difference (p\N{NO-BREAK SPACE}<\N{NO-BREAK SPACE}0.001 after Holm's correction)."
        " Next is C with 0.070."
    )


def test_the_next_best_is_named_unless_it_is_the_reference():
    [text] = sentences(comparison({"ECE:foreground": [0.10, 0.05, 0.07]}))
    assert text.endswith("9 cases). Next is C with 0.070.")
    [text] = sentences(comparison({"ECE:foreground": [0.06, 0.05, 0.07]}))
    assert text.endswith("9 cases).")


def test_higher_is_better_for_dice_and_the_reference_may_win():
    [text] = sentences(comparison({"Dice": [0.9, 0.8, 0.85]}))
    assert "(mean Dice): A, 0.900" in text and text.endswith("It is the reference; next is C with 0.850.")
    rows = [("Dice", name, -0.05, -0.1, 0.0, 9, "none", 0.2) for name in "bc"]
    [text] = sentences(comparison({"Dice": [0.9, 0.8, 0.85]}, rows))
    assert "next is C with 0.850; the test finds no clear difference (p" in text


def test_an_unclear_difference_is_called_so():
    row = ("Dice", "b", 0.01, -0.02, 0.04, 9, "none", 0.31)
    [text] = sentences(comparison({"Dice": [0.80, 0.81, 0.7]}, [row]))
    assert "0.010 higher than the reference" in text and "no clear difference" in text and "0.310" in text
    of_other = ("Dice", "c", -0.1, -0.2, 0.0, 9, "none", 0.3)
    [text] = sentences(comparison({"Dice": [0.80, 0.81, 0.7]}, [(*row[:6], "untested", None), of_other]))
    assert "too few cases for a test" in text
    [text] = sentences(comparison({"Dice": [0.80, 0.81, 0.7]}, [(*row[:6], "mixed", 0.01)]))
    assert "points the other way in most cases" in text and "0.010 after" in text


def test_what_looks_equal_shares_the_place():
    [text] = sentences(comparison({"Dice": [0.8001, 0.8002, 0.7]}))
    assert "B and A, 0.800" in text and "Equal to three decimals." in text


def test_masks_that_disagree_are_pointed_out():
    agree = {"ECE:foreground": [0.2, 0.1, 0.3], "ECE:all": [0.1, 0.1, 0.3]}
    assert len(sentences(comparison(agree))) == 2
    disagree = {"ECE:foreground": [0.2, 0.1, 0.3], "ECE:all": [0.1, 0.2, 0.3]}
    assert "depends on where one looks" in sentences(comparison(disagree))[-1]


def test_without_values_nothing_is_claimed():
    assert sentences(comparison({"Dice": [None, None, None]})) == []
    assert sentences(comparison({"Dice": [0.5, None, None]})) == []


def test_verdicts_are_sorted_by_outcome():
    rows = [
        ("Dice", "b", -0.01, 0, 0, 9, "worse", 0.01),
        ("ECE:foreground", "b", -0.05, 0, 0, 9, "better", 0.01),
        ("ECE:all", "b", 0.0, 0, 0, 9, "none", 1.0),
        ("Dice", "c", 0.0, 0, 0, 9, "untested", None),
        ("ECE:foreground", "c", 0.01, 0, 0, 9, "mixed", 0.01),
    ]
    data = comparison({"Dice": [0.9, 0.8, 0.7], "ECE:foreground": [0.1] * 3, "ECE:all": [0.1] * 3}, rows)
    b, c = verdicts(data, data["datasets"][0])
    assert b.question == "B against A"
    assert b.answer == "better in ECE foreground; worse in Dice; no clear difference in ECE all"
    assert c.answer == "a difference whose mean most cases contradict in ECE foreground; not tested: Dice"
