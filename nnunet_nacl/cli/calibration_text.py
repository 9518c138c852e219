"""The text that `nnunet_nacl calibrate` prints, one screen of it; the map's file has every
number."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nnunet_nacl.calibrator.calibration_map import CalibrationMap
from nnunet_nacl.calibrator.fit import PREDICTED_DICE_ERROR
from nnunet_nacl.calibrator.map_parts import MapQuality
from nnunet_nacl.cases.case import MASK_NOTES
from nnunet_nacl.errors import named_together
from nnunet_nacl.quality.flag_costs import flag_costs
from nnunet_nacl.quality.flags import Flags
from nnunet_nacl.quality.intervals import EstimateCheck
from nnunet_nacl.quality.learned_quality import SINGLE_NETWORKS
from nnunet_nacl.quality.recall import RECALLS, LearnedRecall
from nnunet_nacl.quality.risk_control import patients_needed
from nnunet_nacl.quality.scan_scores import ScanScores
from nnunet_nacl.reports.quality_texts import detected_text, presence_text
from nnunet_nacl.reports.tables import frames, number, ten_worst, text_of

_SHOWN = (
    "NLL predicted",
    "Brier predicted",
    "pooled ECE predicted",
    "NLL near",
    "NLL all",
    "Brier all",
    PREDICTED_DICE_ERROR,
)
_MASKS = ("all", "predicted", "near")


def calibration_text(calibration_map: CalibrationMap, flags: Flags | None = None) -> str:
    """The map, what it changes on cases that its fit has not seen, and what it promises."""
    names = calibration_map.names
    quality = calibration_map.quality or MapQuality()
    parts = [
        _form_text(calibration_map),
        _effect_text(calibration_map),
        detected_text(calibration_map.fitted.detected, names),
        _promises_text(quality, names),
    ]
    if quality.learned is not None:
        parts.append(_flag_costs_text(quality.learned.scores, names, flags))
    if quality.recall:
        parts.append(_recall_costs_text(quality.recall, names))
    if quality.presence is not None:
        parts.append(presence_text(quality.presence, names))
    return "\n\n".join(filter(None, parts))


def verdict(calibration_map: CalibrationMap) -> str:
    """What the map does to confidence where something is segmented, and to labels."""
    effect = calibration_map.fitted.effect

    def before_and_after(value: str) -> str:
        change = effect[f"{value} predicted"]
        return f"{number(change['before']['mean'])} -> {number(change['after']['mean'])}"

    accuracy = number(effect["accuracy predicted"]["before"]["mean"])  # which no map changes
    difference = effect["NLL predicted"]["difference"]
    clearly = "did not clearly change"
    if difference["low"] > 0:
        clearly = "got worse"
    elif difference["high"] < 0:
        clearly = "improved"
    return (
        f"Where nnU-Net segments, {accuracy} of the voxels are right; mean confidence"
        f" {before_and_after('confidence')}, pooled ECE {before_and_after('pooled ECE')}. NLL"
        f" {before_and_after('NLL')} ({clearly}), Brier {before_and_after('Brier')}. Each case was"
        " calibrated by a map that has not seen it; labels are unchanged."
    )


def _form_text(calibration_map: CalibrationMap) -> str:
    """The form that was chosen, and how each form did on left-out patients."""
    best_nll: dict[str, float] = {}
    for tried in calibration_map.fitted.forms:
        best_nll[tried.form] = min(tried.nll, best_nll.get(tried.form, math.inf))
    scores = ", ".join(f"{form} {nll:.5f}" for form, nll in best_nll.items())
    ridge = calibration_map.maps[calibration_map.form].get("ridge") or math.inf
    shrunk = ""
    if not math.isinf(ridge):
        shrunk = f", ridge {ridge:g}"
    fitted = calibration_map.fitted
    size = f"{len(fitted.part_of)} cases, {len(fitted.cross_fit)} parts"
    return (
        f"form {calibration_map.form}{shrunk}, {size}; cross-validated NLL in nnU-Net's crop:"
        f" {scores}"
    )


def _effect_text(calibration_map: CalibrationMap) -> str:
    """A line for each value that is shown, see :mod:`nnunet_nacl.calibrator.effect`, and what the
    masks are."""
    rows = []
    for name in _SHOWN:
        change = calibration_map.fitted.effect.get(name)
        if change is None:
            continue
        difference = change["difference"]
        interval = number(difference["low"], 4, "+")
        if interval != "-":
            interval += f" to {number(difference['high'], 4, '+')}"
        rows.append(
            {
                "value": name,
                "before": number(change["before"]["mean"], 4),
                "after": number(change["after"]["mean"], 4),
                "change": number(difference["mean"], 4, "+"),
                "95 % interval": interval,
                "cases": change["n"],
            }
        )
    settings = vars(calibration_map.origin.settings)
    masks = "; ".join(f"{mask}: {MASK_NOTES[mask].format(**settings)}" for mask in _MASKS)
    heading = (
        "nnU-Net's own labels before and after the map, each case under one that has not seen it:"
    )
    return f"{heading}\n{text_of(rows)}\n{masks}"


def _flag_costs_text(scores: ScanScores, names: Mapping[str, str], flags: Flags | None) -> str:
    """What it costs to find nine of ten scans below each limit, or some share of those that the
    user calls bad."""
    bad = None
    if flags is not None:
        bad = {key: flags.bad[name] for key, name in names.items() if name in flags.bad}
    rows = []
    unknown: dict[str, str] = {}
    for cost in flag_costs(scores, bad).itertuples():
        if flags is None:
            to_find = f"a Dice below {cost.bad:g}"
            row = {"to find 9 of 10 scans with": to_find, "which are": _percent(cost.share_bad)}
        else:
            to_find = f"{100 * cost.find:g} % of the bad scans"
            row = {"to find": to_find}
        if math.isnan(cost.flagged):
            have = "patients have"
            if cost.n_patients == 1:
                have = "patient has"
            needed = patients_needed(1 - cost.find)
            unknown[to_find] = f"{cost.n_patients} {have} such a scan, it takes {needed}"
            continue
        row["look at"] = _percent(cost.flagged)
        row["95 % interval"] = " to ".join(f"{100 * end:.0f} %" for end in cost.interval)
        row["by entropy"] = _percent(cost.by_entropy)
        row["at random"] = _percent(cost.at_random)
        rows.append(row)
    advice = (
        "-bad 0.7 shows what other shares cost; `nnunet_nacl predict -bad 0.7` flags such scans."
    )
    lines = []
    if flags is not None:
        advice = "`nnunet_nacl predict` with the same -bad flags them; -find names the share."
        lines.append(flags.aim)
    if rows:
        lines.append(text_of(rows))
    return "\n".join([*lines, *named_together(unknown), advice])


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.0f} %"


def _recall_costs_text(learned: Mapping[str, LearnedRecall], names: Mapping[str, str]) -> str:
    """What labels that miss less cost: a line for each structure, or for those that nnU-Net's
    labels miss most of."""
    rows = []
    for key, name in names.items():
        of_structure = learned.get(key, LearnedRecall())
        missed = math.nan
        if of_structure.missed:
            missed = of_structure.missed[-1]
        row: dict[str, str | float] = {"voxels found of": name, "by nnU-Net": 1 - missed}
        for recall in RECALLS:
            place = of_structure.place(recall)
            if place is None:
                row[f"-recall {recall:g}"] = "-"
            else:
                times_larger = number(of_structure.times_larger[place], 2)
                row[f"-recall {recall:g}"] = (
                    f"x {times_larger}, {of_structure.false_voxels[place]:.0f}"
                )
        row["patients"] = str(of_structure.n_patients)
        rows.append(row)
    shown, more = ten_worst(rows, "voxels found of", lambda row: row["by nnU-Net"])
    legend = (
        "x: times as large as nnU-Net's label; then false voxels added; medians over scans; -: not"
        " available."
    )
    return "\n".join(
        [text_of(shown, decimals=2), *more, f"{legend} `nnunet_nacl predict -recall` writes them."]
    )


def _promises_text(quality: MapQuality, names: Mapping[str, str]) -> str:
    """What is promised of new cases: a line for each structure, or for the worst."""
    learned = quality.learned
    if learned is None:
        return f"nothing was learned about Dice and volumes: {quality.why_not}"
    rows = []
    for key, name in names.items():
        dice = learned.checks["dice"][key]
        row = {"key": key, "predicted for new cases, off by": name}
        row |= _check_cells(dice, "Dice", "")
        # columns of another name
        row |= _check_cells(learned.checks["volume"][key], f"volume ({quality.unit})", " ")
        row["cases"] = str(dice.n)
        rows.append(row)
    shown, more = ten_worst(rows, "key", lambda row: -learned.checks["dice"][row["key"]].error)
    _, texts = frames(shown)
    lines = [text_of(texts.drop(columns="key")), *more]
    why_no_interval = {name: learned.dice[key].why_no_interval for key, name in names.items()}
    lines += named_together({name: why for name, why in why_no_interval.items() if why})
    if not learned.as_deployed:
        lines.append(f"Learned {SINGLE_NETWORKS}.")
    return "\n".join(lines)


def _check_cells(check: EstimateCheck, what: str, mark: str) -> dict[str, str]:
    """How far a promise held, by column; ``mark`` ends the names of columns that would otherwise be
    alike."""
    coverage = "-"
    if not math.isnan(check.coverage.share):
        coverage = f"{check.coverage.share:.2f}"
    return {
        what: _three_digits(check.error),
        f"a constant{mark}": _three_digits(check.error_of_constant),
        f"90 % interval covers{mark}": coverage,
        f"its width{mark}": _three_digits(check.width),
    }


def _three_digits(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"
