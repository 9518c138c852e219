"""Every number that the README claims is a cell of a table that it links to."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

from tests.pages import ROOT, cell, made_table, tables

DEPLOYED = "docs/results/deployed.md"
EMIDEC, ACDC = (f"{name}, average of five" for name in ("EMIDEC", "ACDC"))
COSTS_OF_MAP = "docs/explanation/conditional-calibration.md"
PERFORMANCE = "docs/reference/performance.md"

# text of the README with {} where the number stands; page, heading, row and column of its cell
CLAIMS = [
    ("fell from {} to 0.076 on EMIDEC", DEPLOYED, EMIDEC, "as trained", "predicted"),
    ("fell from 0.124 to {} on EMIDEC", DEPLOYED, EMIDEC, "conditional", "predicted"),
    ("from {} to 0.048 on ACDC", DEPLOYED, ACDC, "as trained", "predicted"),
    ("from 0.064 to {} on ACDC", DEPLOYED, ACDC, "conditional", "predicted"),
    ("structures fell from {} to 0.638", COSTS_OF_MAP, "Where it costs", "NLL near", "as trained"),
    ("fell from 0.998 to {}, near", COSTS_OF_MAP, "Where it costs", "NLL near", "with the map"),
    ("it rose from {} to 0.645", COSTS_OF_MAP, "Where it costs", "NLL dilated", "as trained"),
    ("rose from 0.552 to {} (", COSTS_OF_MAP, "Where it costs", "NLL dilated", "with the map"),
    ("temperature reaches {},", DEPLOYED, EMIDEC, "temperature", "predicted"),
    ("CMSop {}.", DEPLOYED, EMIDEC, "CMSop", "predicted"),
    ("held for {} (EMIDEC)", DEPLOYED, "2. Promises", "EMIDEC, average, outer", "Dice inside (n)"),
    ("{} (ACDC) and", DEPLOYED, "2. Promises", "ACDC, average, outer", "Dice inside (n)"),
    ("and {} (hippocampus)", DEPLOYED, "2. Promises", "Hippocampus, average, outer", "Dice inside (n)"),
    ("took {} s of CPU time and", PERFORMANCE, "Calibration", "calibrate, 160 cases with npz files", "CPU s"),
    ("of CPU time and {} GB", PERFORMANCE, "Calibration", "calibrate, 160 cases with npz files", "peak memory (GB)"),
]


def number(text: str) -> str:
    """Of a cell such as '.030 (-.000)' or '**0.079**': its first number, with the 0 in front."""
    found = re.search(r"\d*\.?\d+", text)[0]
    return f"0{found}" if found.startswith(".") else found


def readme() -> str:
    """On one line, so that a claim may stand on two."""
    return re.sub(r"\s+", " ", (ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("text", "page", "heading", "row", "column"), CLAIMS)
def test_a_number_of_the_readme_is_a_cell(text: str, page: str, heading: str, row: str, column: str) -> None:
    assert text.format(number(cell(page, heading, row, column))) in readme()
    assert f"({page}" in readme()


def test_no_number_of_the_readme_goes_unchecked() -> None:
    """Decimal numbers in prose; tables that are part of others have a test of theirs (tests/test_documentation.py)."""
    text = re.sub(r"<!-- cells: [^\n]* -->\n\n(\|[^\n]*\n)+", "", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert "|" not in text
    text = re.sub(r"```.*?```|`[^`]*`|\([^)\s]*\)|https?://\S+|^#.*$", "", text, flags=re.MULTILINE | re.DOTALL)
    claimed = {number(cell(page, heading, row, column)) for _, page, heading, row, column in CLAIMS}
    known = {"3.10", "2.0", "2.8"}  # Python, licence, nnU-Net: badges, tests/test_documentation.py
    assert set(re.findall(r"\d+\.\d+", text)) <= claimed | known


BENCHMARKS = "benchmarks/results.md"
COSTS = [
    ("Prediction", "nnunet_nacl predict", "wall time x nnUNetv2_predict", "From scans to a review list",
     "nnunet_nacl predict", "wall x nnUNetv2_predict"),
    ("Prediction", "nnunet_nacl predict", "MiB written", "From scans to a review list", "nnunet_nacl predict",
     "MiB written"),
    ("Prediction", "nnunet_nacl predict -decide dice", "wall time x nnUNetv2_predict", "From scans to a review list",
     "nnunet_nacl predict -decide dice", "wall x nnUNetv2_predict"),
    ("Losses", "NACL", "(12, 4, 256, 256)", "Losses", "NACL", "x stock"),
    ("Losses", "MONAI NACLLoss", "(12, 4, 256, 256)", "Losses", "MONAI NACLLoss", "x stock"),
    ("Losses", "NACL", "peak memory", "Losses", "NACL", "peak memory / logits"),
    ("Calibration", "... measured on the way", "CPU x nnU-Net", "Validation of Dataset004_Hippocampus, 2d_small",
     "... measured on the way", "CPU x nnU-Net"),
]  # fmt: skip


@pytest.mark.parametrize(("heading", "row", "column", "there", "row_there", "column_there"), COSTS)
def test_the_page_of_costs_has_what_was_measured(heading, row, column, there, row_there, column_there) -> None:
    assert cell(PERFORMANCE, heading, row, column) == cell(BENCHMARKS, there, row_there, column_there)


SHIFT = "docs/results/shift.md"


def test_the_page_of_shift_has_the_means_of_its_values() -> None:
    import pandas as pd

    values = pd.read_csv(ROOT / "docs/results/study/shift/Dataset004_Hippocampus.csv")
    means = values.groupby(["loss", "severity", "calibrated"]).mean(numeric_only=True)
    found = {heading: rows for heading, rows in tables((ROOT / SHIFT).read_text("utf-8")) if rows[0][0] == "loss"}
    for loss, severity, *cells in found["Values"][1:]:
        raw, calibrated = (means.loc[(loss, int(severity), treated)] for treated in (False, True))
        expected = [raw.dice, raw.ece, calibrated.ece, raw.nll, calibrated.nll, calibrated.dice_error]
        assert cells == [*(f"{value:.3f}" for value in expected), f"{calibrated.coverage:.3f}"]
    for measure in ("nll", "ece"):
        both = values.pivot(index=["loss", "kind", "severity"], columns="calibrated", values=measure)
        assert (both[True] < both[False]).all()  # under every corruption and severity
    assert values.coverage.min() == 0.75


FORMS = {
    name: f"forms average {dataset}/deployed_DiceCE/outer/forms"
    for name, dataset in {
        "hippocampus": "Dataset004_Hippocampus",
        "ACDC": "Dataset027_ACDC",
        "EMIDEC": "Dataset028_EMIDEC",
    }.items()
}


def before_and_after(what: str, column: str) -> tuple[str, str]:
    """A value as trained and with the form that was chosen."""
    header, *made = made_table(what)
    of = {row[0]: dict(zip(header, row)) for row in made}
    folder = ROOT / "docs/results/study" / what.split()[-1].removesuffix("outer/forms")
    chosen = json.loads((folder / "calibration_map.json").read_text(encoding="utf-8"))["form"]
    return number(of["as trained"][column]), number(of[chosen][column])


def test_the_summary_of_results_has_the_numbers_of_the_tables() -> None:
    text = (ROOT / "docs/results/index.md").read_text(encoding="utf-8")
    for what in FORMS.values():
        for column in ("expected Dice off by", "NLL dilated"):
            assert "({} to {})".format(*before_and_after(what, column)) in text


def test_what_is_said_of_averages_is_what_was_measured() -> None:
    dice, volume = (
        cell(DEPLOYED, "2. Promises", "EMIDEC, average, outer", f"{what} inside (n)") for what in ("Dice", "volume")
    )
    text = (ROOT / "docs/how-to/predict.md").read_text(encoding="utf-8")
    for found, what in ((dice, "Dice"), (volume, "volumes")):
        share, n = found.rstrip(")").split(" (")
        assert f"{share} of {n} {what}" in re.sub(r"\s+", " ", text)


def test_what_every_user_is_told_of_single_networks_is_no_result_of_a_study() -> None:
    from nnunet_nacl.calibration.learned_quality import SINGLE_NETWORKS

    assert "networks" in SINGLE_NETWORKS and not re.search(r"\d|EMIDEC", SINGLE_NETWORKS)


def losses_of(kind: str, dataset: str, *losses: str) -> dict[tuple[str, str], list[str]]:
    """By set and first cell, the other cells of a table that compares losses with nnU-Net's."""
    names = ("deployed_DiceCE", *(f"deployed_{loss}" for loss in losses))
    found, title = {}, ""
    for first, *cells in made_table(f"{kind} deployed {' '.join(f'{dataset}/{name}' for name in names)}"):
        title = first.strip("*").rpartition(" (")[0] if first.startswith("**") else title
        found[title, first] = cells
    return found


def test_what_is_said_of_losses_is_what_was_measured() -> None:
    deployed, choose, index = (
        re.sub(r"\s+", " ", (ROOT / page).read_text(encoding="utf-8"))
        for page in (DEPLOYED, "docs/how-to/choose-a-loss.md", "docs/results/index.md")
    )
    annealed = losses_of("structures", "Dataset028_EMIDEC", "DiceCE_anneal")
    folds, outer = (
        annealed[f"EMIDEC, {name}", "infarct, Dice + CE, annealed"][2] for name in ("folds", "average, outer")
    )
    assert f"misses infarcts ({folds}; test cases {outer})" in index and f"missed {folds} infarcts" in choose
    change = losses_of("losses", "Dataset004_Hippocampus", "DiceCE_anneal")
    less = change["Hippocampus, average, outer", "Dice + CE, annealed"][1]  # -0.011 [-0.014, -0.009]
    value, low, high = re.findall(r"-0(\.\d+)", less)
    assert f"{value} [{high}, {low}] less Dice" in deployed and f"costs 0{value} Dice on the hippocampus" in index
    again = losses_of("structures", "Dataset028_EMIDEC", "DiceCE_seed2")
    moved = {row: cells[1] for (title, row), cells in again.items() if "outer" in title and row.endswith("seed2")}
    infarct = float(moved.pop("infarct, Dice + CE, seed2").split()[0])
    assert f"Dice of infarcts differs by {infarct:.2f}".replace("0.", ".") in deployed
    most = max(abs(float(cells.split()[0])) for cells in moved.values())
    assert f"of the other structures by {most:.3f} at most".replace("0.", ".") in deployed


def test_what_is_said_of_the_start_is_what_was_measured() -> None:
    start, choose, index = (
        re.sub(r"\s+", " ", (ROOT / page).read_text(encoding="utf-8"))
        for page in ("docs/results/start.md", "docs/how-to/choose-a-loss.md", "docs/results/index.md")
    )
    folder = ROOT / "docs/results/study/Dataset028_EMIDEC/start"
    of = {loss: pd.read_csv(folder / f"{loss}_100epochs_50iters/decided.csv") for loss in ("DiceCE", "CE", "NACL")}
    infarct = {loss: rows[rows["structure"] == "infarct"] for loss, rows in of.items()}
    dice = {loss: rows["argmax Dice"][rows["true"] > 0].mean() for loss, rows in infarct.items()}
    said = f"Dice {dice['CE']:.3f}; nnU-Net's loss {dice['DiceCE']:.3f}"
    assert said in choose and said.replace(";", ",") in index and dice["NACL"] == 0
    there, absent = (infarct["CE"][infarct["CE"]["true"] > 0], infarct["CE"][infarct["CE"]["true"] == 0])
    counts = [(rows[f"{kind} voxels"] > 0).sum() for rows in (absent, there) for kind in ("argmax", "decided")]
    missed = [len(there) - n for n in counts[2:]]
    assert f"inventions fell from {counts[0]} to {counts[1]} of {len(absent)} healthy hearts" in choose
    assert f"missed infarcts rose from {missed[0]} to {missed[1]} of {len(there)}" in choose
    changes = []
    for fold in (0, 1):
        both = [pd.read_csv(folder / f"{loss}_100epochs_50iters/cases_{fold}.csv") for loss in ("NACL", "DiceCE")]
        for name in ("LV cavity", "normal myocardium"):
            nacl, stock = (rows[f"Dice {name}"].mean() for rows in both)
            changes.append(f"{nacl - stock:+.3f}".replace("0.", "."))
    assert f"{changes[0]} and {changes[1]}; {changes[2]} and **{changes[3]}**" in start
    lowest, largest = min(changes, key=float), max(changes, key=float)
    assert f"({lowest} to {largest};".replace("-.", "-0.").replace("+.", "+0.") in index
    elsewhere = []
    for place, names in (("Dataset004_Hippocampus", ["Anterior", "Posterior"]), ("Dataset030_DRIVE", ["vessel"])):
        both = (
            folder.parents[1] / f"{place}/start/{loss}_100epochs_50iters/cases_0.csv" for loss in ("NACL", "DiceCE")
        )
        nacl, stock = (pd.read_csv(path)[[f"Dice {name}" for name in names]].mean() for path in both)
        elsewhere += [f"{change:+.3f}" for change in nacl - stock]
    assert "hippocampus {} and {}, DRIVE {})".format(*elsewhere) in index
    assert "hippocampus **{}** and {}; DRIVE **{}**".format(*(each.replace("0.", ".") for each in elsewhere)) in start
    long, plain = (
        pd.read_csv(folder / f"{name}/cases_0.csv") for name in ("NACL_250epochs_50iters", "DiceCE_100epochs_50iters")
    )
    found = long["Dice infarct"][long["true infarct"] > 0].mean()
    assert f"after 12,500 their Dice is {found:.3f}".replace("0.", ".") in start
    assert long["ECE predicted"].mean() < plain["ECE predicted"].mean() / 2
    for loss in ("DiceCE", "CE"):
        rows = pd.read_csv(folder / f"{loss}_100epochs_50iters/outer.csv")
        rows = rows[rows["structure"] == "infarct"]
        assert not (rows["decided voxels"][rows["true"] == 0] > 0).any()
        assert (rows["decided voxels"][rows["true"] > 0] == 0).sum() == 1 and (rows["true"] > 0).sum() == 10


def test_what_a_decision_removes_and_misses_is_what_was_measured() -> None:
    start = re.sub(r"\s+", " ", (ROOT / "docs/results/start.md").read_text(encoding="utf-8"))
    finding, invented, missed, there = 0, [0, 0], [0, 0], 0
    for path in (ROOT / "docs/results/study/Dataset028_EMIDEC/start").glob("*/decided.csv"):
        rows = pd.read_csv(path).query("structure == 'infarct'")
        if not (rows["argmax voxels"] > 0).any():
            continue
        true, finding, there = rows["true"] > 0, finding + 1, there + (rows["true"] > 0).sum()
        for i, kind in enumerate(("argmax", "decided")):
            labelled = rows[f"{kind} voxels"] > 0
            invented[i] += (labelled & ~true).sum()
            missed[i] += (true & ~labelled).sum()
    said = f"removes {invented[0] - invented[1]} of {invented[0]} inventions and misses {missed[1] - missed[0]} more"
    assert finding == 5 and f"{said} of {there}." in start
