"""Says in plain words what a comparison found; every word follows from its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_nacl.show.values import format_number, format_signed

_CALIBRATION = "ECE:predicted"  # what is known in use, too
_MAIN = (_CALIBRATION, "Dice")

# Of overlap, and of calibration where it can be compared with the literature, where it matters in use, and everywhere.
_QUESTIONS = (
    ("Dice", "Highest overlap with the ground truth (mean Dice)"),
    ("ECE:foreground", "Lowest calibration error on the structures (ECE foreground)"),
    ("ECE:predicted", "Lowest calibration error where a structure is predicted (ECE predicted)"),
    ("ECE:all", "Lowest calibration error on the whole image (ECE all)"),
    ("NLL:dilated", "Best probabilities in and around the structures (lowest NLL dilated)"),
)
_VERDICT_COLUMNS = (
    "Dice",
    "HD95_mm",
    "ECE:foreground",
    "CECE_mean:foreground",
    "ECE:dilated",
    "ECE:predicted",
    "ECE:all",
    "NLL:dilated",
    "NLL:all",
)
_VERDICTS = {
    "better": "better in",
    "worse": "worse in",
    "mixed": "a difference whose mean most cases contradict in",
    "none": "no clear difference in",
    "untested": "not tested:",
}


@dataclass(frozen=True)
class Finding:
    """One sentence: what was asked, the answer, and how sure it is."""

    question: str
    answer: str
    detail: str = ""


def headline(data: Mapping[str, Any], dataset: Mapping[str, Any]) -> list[str]:
    """The difference that matters on a data set, in at most three sentences.

    They name the method with the lowest ECE where a structure is predicted, by how much, and what happens to Dice; and
    they say where nothing differs, or nothing is tested.

    Args:
        data: Content of comparison.json.
        dataset: One of its data sets.
    """
    values = _ranked_means(data, dataset, _CALIBRATION)
    if not values:
        return ["There are too few values to name a leader."]
    labels, reference = {t["name"]: t["label"] for t in data["trainers"]}, data["trainers"][0]["name"]
    better = data["columns"][_CALIBRATION]["better"]
    leading = _leading(values, better)
    others = {name: entry for name, entry in values.items() if name != reference}
    other = _leading(others, better)[0]  # whose differences are named; the leader, unless that is the reference
    error, dice = (_statistic(data, dataset["name"], column, other) for column in (_CALIBRATION, "Dice"))
    verdicts_here = {
        row["verdict"] for row in data["statistics"] if row["dataset"] == dataset["name"] and row["column"] in _MAIN
    }
    have = f"the lowest calibration error where a structure is predicted: ECE {_shown(values[leading[0]])}"
    if len(leading) > 1:
        text = f"{_together(labels[name] for name in leading)} have {have}, equal to three decimals"
    elif leading[0] == reference:
        text = f"{labels[reference]}, the reference, has {have}; next is {labels[other]}, {_shown(values[other])}"
    else:
        text = f"{labels[other]} has {have}"
        text += f", against {_shown(values[reference])} of {labels[reference]}" if reference in values else ""
    level = f"{data['settings']['confidence'] * 100:g} % interval"
    found = [f"{text}{_difference(error, level)}."]
    if dice is not None and dice["difference"] is not None:
        means = f"{format_number(dice['mean'])}, against {format_number(dice['mean_reference'])} of {labels[reference]}"
        found.append(f"The Dice of {labels[other]} is {means}{_difference(dice, level)}.")
    if verdicts_here == {"untested"}:
        found.append("Nothing is tested: there are too few cases, and intervals over so few are too narrow to rely on.")
    elif verdicts_here == {"none"}:
        found.insert(0, f"The tests show no difference to {labels[reference]}, neither in this ECE nor in Dice.")
    return found


def gained(data: Mapping[str, Any], dataset: Mapping[str, Any]) -> list[str]:
    """What calibration and decision after training gained for the reference, and other methods, in three sentences.

    The first is missing where the reference is not among the methods as it is calibrated and decided.

    Args:
        data: Content of comparison.json.
        dataset: One of its data sets.
    """
    reference, found = data["trainers"][0], []
    after = f"{reference['name']}+calibrated+decided"
    rows = [row for column in _MAIN if (row := _statistic(data, dataset["name"], column, after))]
    if len(rows) == len(_MAIN) and all(row["difference"] is not None for row in rows):
        error, dice = (f"from {format_number(row['mean_reference'])} to {format_number(row['mean'])}" for row in rows)
        found.append(
            f"Without another training, calibration and the decision for Dice took {reference['label']} {error} in ECE "
            f"where a structure is predicted, and {dice} in Dice."
        )
    return [*found, *headline(data, dataset)[:2]]


def key_findings(data: Mapping[str, Any], dataset: Mapping[str, Any]) -> list[Finding]:
    """Which method leads in what on a data set, and by how much over the reference."""
    found, leaders = [], {}
    for column, question in _QUESTIONS:
        values = _ranked_means(data, dataset, column)
        if not values:
            continue
        leading = _leading(values, data["columns"][column]["better"])
        found.append(_finding(data, dataset, column, question, values, leading))
        if column.startswith("ECE"):
            leaders[column] = leading
    if len(leaders) > 1 and not set.intersection(*map(set, leaders.values())):
        text = "no method has the lowest calibration error on all of these masks"
        found.append(Finding("Which is best calibrated depends on where one looks", text))
    return found


def verdicts(data: Mapping[str, Any], dataset: Mapping[str, Any]) -> list[Finding]:
    """What was tested better, worse and neither, for each method against the reference that has a test at all."""
    reference = data["trainers"][0]["label"]
    result = []
    for trainer in data["trainers"][1:]:
        groups: dict[str, list[str]] = {}
        for column in _VERDICT_COLUMNS:
            row = _statistic(data, dataset["name"], column, trainer["name"])
            if row:
                groups.setdefault(row["verdict"], []).append(data["columns"][column]["title"])
        parts = [f"{word} {', '.join(groups[key])}" for key, word in _VERDICTS.items() if key in groups]
        if groups.keys() - {"untested"}:
            result.append(Finding(f"{trainer['label']} against {reference}", "; ".join(parts)))
    return result


def _ranked_means(data, dataset, column: str) -> dict[str, Mapping[str, Any]]:
    """Of the methods that are ranked; empty where there are no two to compare, or one lacks its mean."""
    means = dataset["means"].get(column, {})
    values = {
        t["name"]: means[t["name"]] for t in data["trainers"] if t["ranked"] and means.get(t["name"], {}).get("n")
    }
    return {} if len(values) < 2 or any(entry["mean"] is None for entry in values.values()) else values


def _shown(entry: Mapping[str, Any]) -> str:
    return format_number(entry["mean"])


def _together(labels: Iterable[str]) -> str:
    *first, last = labels
    return f"{', '.join(first)} and {last}"


def _difference(row: Mapping[str, Any] | None, level: str) -> str:
    """The difference of a row with its interval, in brackets; empty where there is none."""
    if row is None or row["difference"] is None:
        return ""
    text = f" (difference {format_signed(row['difference'])}"
    if None not in (row["low"], row["high"]):
        text += f", {level} {format_signed(row['low'])} to {format_signed(row['high'])}"
    return f"{text})"


def _leading(values: Mapping[str, Mapping[str, Any]], better: str) -> list[str]:
    """The best, and those whose mean looks the same."""
    best = (max if better == "higher" else min)(values, key=lambda name: values[name]["mean"])
    shown = format_number(values[best]["mean"])
    return [best, *(name for name in values if name != best and format_number(values[name]["mean"]) == shown)]


def _finding(
    data, dataset, column: str, question: str, values: Mapping[str, Mapping[str, Any]], leading: Sequence[str]
) -> Finding:
    best, labels = leading[0], {t["name"]: t["label"] for t in data["trainers"]}
    entry, shown = values[best], format_number(values[best]["mean"])
    level = f"{data['settings']['confidence'] * 100:g} %"
    interval = ""
    if None not in (entry["low"], entry["high"]):
        interval = f"{level} interval {format_number(entry['low'])} to {format_number(entry['high'])}, "
    detail = f"{shown} ({interval}{entry['n']} cases)."
    reference = data["trainers"][0]["name"]
    if len(leading) > 1:
        together = _together(labels[name] for name in leading)
        return Finding(question, together, f"{detail} Equal to three decimals.")
    others = {name: entry for name, entry in values.items() if name != best}
    second = _leading(others, data["columns"][column]["better"])[0]
    next_one = f"ext is {labels[second]} with {format_number(values[second]['mean'])}"
    if best == reference:
        tested = _outcome(_statistic(data, dataset["name"], column, second))
        detail += f" It is the reference; n{next_one}{tested}."
    else:
        detail += _against_reference(_statistic(data, dataset["name"], column, best), labels[reference], level)
        detail += "" if second == reference else f" N{next_one}."
    return Finding(question, labels[best], detail)


def _against_reference(row: Mapping[str, Any] | None, reference: str, level: str) -> str:
    """The difference of a method to the reference, as a sentence."""
    if row is None or row["difference"] is None:
        return ""
    size = f"{format_number(abs(row['difference']))} {'higher' if row['difference'] > 0 else 'lower'}"
    text = f" {size} than the reference {reference} in the same {row['n']} cases"
    if None not in (row["low"], row["high"]):
        text += f" ({level} interval of the difference {format_signed(row['low'])} to {format_signed(row['high'])})"
    return f"{text}{_outcome(row)}."


def _outcome(row: Mapping[str, Any] | None) -> str:
    """What the test of a row says, as a clause."""
    if row is None:
        return ""
    if row["verdict"] == "untested":
        return "; too few cases for a test"
    words = {"none": "no clear difference", "mixed": "a difference that points the other way in most cases"}
    text, p = f"; the test finds {words.get(row['verdict'], 'a difference')}", row["p_holm"]
    if p is not None:
        sign = f"p\N{NO-BREAK SPACE}{'<' if p < 0.001 else '='}\N{NO-BREAK SPACE}"
        text += f" ({sign}{max(p, 0.001):.3f} after Holm's correction)"
    return text


def _statistic(data: Mapping[str, Any], dataset: str, column: str, trainer: str) -> Mapping[str, Any] | None:
    wanted = (dataset, column, trainer)
    return next((row for row in data["statistics"] if (row["dataset"], row["column"], row["trainer"]) == wanted), None)
