"""Says in plain words what a comparison found; every word follows from its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_nacl.show.text_table import number

_CALIBRATION = "ECE:predicted"  # what is known in use, too
_MAIN = (_CALIBRATION, "Dice")

# Of overlap, and of calibration where it can be compared with the literature, where it matters in use, and everywhere.
_QUESTIONS = (
    ("Dice", "Highest overlap with the ground truth (mean Dice)"),
    ("ECE:foreground", "Lowest calibration error on the structures (ECE foreground)"),
    ("ECE:predicted", "Lowest calibration error where a structure is predicted (ECE predicted)"),
    ("ECE:all", "Lowest calibration error on the whole image (ECE all)"),
    ("NLL:near", "Best probabilities where a structure is predicted, and around it (lowest NLL near)"),
)
_VERDICT_COLUMNS = ("Dice", "HD95_mm", "ECE:foreground", "CECE_mean:foreground") + (
    *("ECE:near", "ECE:predicted", "ECE:all", "NLL:near", "NLL:all"),
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


class _Numbers:
    """What comparison.json knows of one data set, as the sentences ask for it."""

    def __init__(self, data: Mapping[str, Any], dataset: Mapping[str, Any]) -> None:
        self.data, self.dataset = data, dataset
        self.labels = {trainer["name"]: trainer["label"] for trainer in data["trainers"]}
        self.reference = data["trainers"][0]["name"]
        self.level = f"{data['settings']['confidence'] * 100:g} %"
        self.rows = {
            (row["column"], row["trainer"]): row for row in data["statistics"] if row["dataset"] == dataset["name"]
        }

    def too_few(self, column: str) -> bool:
        """Whether the cases are too few to test any difference: then intervals are too narrow, and nobody leads."""
        outcomes = {row["verdict"] for (tested, _), row in self.rows.items() if tested == column}
        return outcomes == {"untested"}

    def ranked_means(self, column: str) -> dict[str, Mapping[str, Any]]:
        """Of the methods that are ranked; empty where cases are too few, no two are compared, or one lacks its mean."""
        if self.too_few(column):
            return {}
        means = self.dataset["means"].get(column, {})
        ranked = [trainer["name"] for trainer in self.data["trainers"] if trainer["ranked"]]
        values = {name: means[name] for name in ranked if means.get(name, {}).get("n")}
        return {} if len(values) < 2 or any(entry["mean"] is None for entry in values.values()) else values

    def leading(self, column: str, values: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """The best, and those whose mean looks the same."""
        choose = max if self.data["columns"][column]["better"] == "higher" else min
        best = choose(values, key=lambda name: values[name]["mean"])
        equal = [name for name in values if _number(values[name]["mean"]) == _number(values[best]["mean"])]
        return sorted(equal, key=lambda name: name != best)

    def together(self, names: Sequence[str]) -> str:
        """``A, B and C``."""
        *first, last = (self.labels[name] for name in names)
        return f"{', '.join(first)} and {last}" if first else last

    def interval(self, row: Mapping[str, Any], words: str, sign: str = "+") -> list[str]:
        """``90 % interval`` with its ends; nothing where there is none."""
        if None in (row["low"], row["high"]):
            return []
        return [f"{self.level} interval{words} {_number(row['low'], sign)} to {_number(row['high'], sign)}"]

    def difference(self, row: Mapping[str, Any] | None) -> str:
        """The difference of a row with its interval, in brackets; empty where there is none."""
        if row is None or row["difference"] is None:
            return ""
        return f" ({', '.join(['difference ' + _number(row['difference'], '+'), *self.interval(row, '')])})"


def headline(data: Mapping[str, Any], dataset: Mapping[str, Any]) -> list[str]:
    """The difference that matters on a data set, in at most three sentences.

    They name the method with the lowest ECE where a structure is predicted, by how much, and what happens to Dice; and
    they say where nothing differs. Where nothing is tested they name none.

    Args:
        data: Content of comparison.json.
        dataset: One of its data sets.
    """
    numbers = _Numbers(data, dataset)
    labels, reference, values = numbers.labels, numbers.reference, numbers.ranked_means(_CALIBRATION)
    if numbers.too_few(_CALIBRATION):
        few = "Nothing is tested, and no method is called best: there are too few cases, and intervals over so few are"
        return [f"{few} too narrow to rely on. The tables hold the means."]
    if not values:
        return ["There are too few values to name a leader."]
    leading = numbers.leading(_CALIBRATION, values)
    others = {name: entry for name, entry in values.items() if name != reference}
    other = numbers.leading(_CALIBRATION, others)[0]  # whose differences are named; the leader, if no reference
    error, dice = (numbers.rows.get((column, other)) for column in _MAIN)
    outcomes = {row["verdict"] for (column, _), row in numbers.rows.items() if column in _MAIN}
    shown = {name: _number(entry["mean"]) for name, entry in values.items()}
    have = f"the lowest calibration error where a structure is predicted: ECE {shown[leading[0]]}"
    text = f"{numbers.together(leading)} has {have}"
    if len(leading) > 1:
        text = f"{numbers.together(leading)} have {have}, equal to three decimals"
    elif leading[0] == reference:
        text = f"{labels[reference]}, the reference, has {have}; next is {labels[other]}, {shown[other]}"
    elif reference in values:
        text += f", against {shown[reference]} of {labels[reference]}"
    sentences = [f"{text}{numbers.difference(error)}."]
    if dice is not None and dice["difference"] is not None:
        means = f"{_number(dice['mean'])}, against {_number(dice['mean_reference'])} of {labels[reference]}"
        sentences.append(f"The Dice of {labels[other]} is {means}{numbers.difference(dice)}.")
    if outcomes == {"none"}:
        sentences.insert(0, f"The tests show no difference to {labels[reference]}, neither in this ECE nor in Dice.")
    return sentences


def gained(data: Mapping[str, Any], dataset: Mapping[str, Any]) -> list[str]:
    """What calibration and decision after training gained for the reference, and other methods, in three sentences.

    The first is missing where the reference is not among the methods as it is calibrated, and decided as well.

    Args:
        data: Content of comparison.json.
        dataset: One of its data sets.
    """
    numbers, sentences = _Numbers(data, dataset), []
    treated = zip(_MAIN, (f"{numbers.reference}+calibrated{more}" for more in ("", "+decided")))
    rows = [numbers.rows[key] for key in treated if key in numbers.rows]
    if len(rows) == len(_MAIN) and all(row["difference"] is not None for row in rows):
        error, dice = (f"from {_number(row['mean_reference'])} to {_number(row['mean'])}" for row in rows)
        sentences.append(
            f"Without another training, calibration took {numbers.labels[numbers.reference]} {error} in ECE where a "
            f"structure is predicted, labels unchanged; labels chosen for Dice took Dice {dice}."
        )
    return [*sentences, *headline(data, dataset)[:2]]


def key_findings(data: Mapping[str, Any], dataset: Mapping[str, Any]) -> list[Finding]:
    """Which method leads in what on a data set, and by how much over the reference."""
    numbers = _Numbers(data, dataset)
    findings, leaders = [], []
    for column, question in _QUESTIONS:
        if values := numbers.ranked_means(column):
            leading = numbers.leading(column, values)
            details = _details(numbers, column, values, leading)
            findings.append(Finding(question, numbers.together(leading), details))
            leaders += [set(leading)] if column.startswith("ECE") else []
    if len(leaders) > 1 and not set.intersection(*leaders):
        text = "no method has the lowest calibration error on all of these masks"
        findings.append(Finding("Which is best calibrated depends on where one looks", text))
    return findings


def verdicts(data: Mapping[str, Any], dataset: Mapping[str, Any]) -> list[Finding]:
    """What was tested better, worse and neither, for each method that is compared with the reference."""
    numbers, result = _Numbers(data, dataset), []
    for name, label in list(numbers.labels.items())[1:]:
        groups: dict[str, list[str]] = {}
        for column in _VERDICT_COLUMNS:
            if row := numbers.rows.get((column, name)):
                groups.setdefault(row["verdict"], []).append(data["columns"][column]["title"])
        parts = [f"{word} {', '.join(groups[key])}" for key, word in _VERDICTS.items() if key in groups]
        if parts:
            untested = groups.keys() == {"untested"}
            answer = "too few cases for a test" if untested else "; ".join(parts)
            result.append(Finding(f"{label} against {numbers.labels[numbers.reference]}", answer))
    return result


def _details(numbers: _Numbers, column: str, values: Mapping[str, Mapping[str, Any]], leading: Sequence[str]) -> str:
    """The leader's mean, its difference to the reference, and who comes next."""
    best, labels, reference = leading[0], numbers.labels, numbers.reference
    sizes = [*numbers.interval(values[best], "", ""), f"{values[best]['n']} cases"]
    detail = f"{_number(values[best]['mean'])} ({', '.join(sizes)})."
    if len(leading) > 1:
        return f"{detail} Equal to three decimals."
    second = numbers.leading(column, {name: entry for name, entry in values.items() if name != best})[0]
    following = f"ext is {labels[second]} with {_number(values[second]['mean'])}"
    if best == reference:
        return f"{detail} It is the reference; n{following}{_outcome(numbers.rows.get((column, second)))}."
    row = numbers.rows.get((column, best))
    if row is not None and row["difference"] is not None:
        size = f"{_number(abs(row['difference']))} {'higher' if row['difference'] > 0 else 'lower'}"
        interval = "".join(f" ({text})" for text in numbers.interval(row, " of the difference"))
        detail += f" {size} than the reference {labels[reference]} in the same {row['n']} cases"
        detail += f"{interval}{_outcome(row)}."
    return detail + ("" if second == reference else f" N{following}.")


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


def _number(value: float, sign: str = "") -> str:
    """Three decimals with a true minus sign; ``sign`` is ``+`` or empty."""
    return number(value, 3, sign).replace("-", "−")
