"""The text that `nnunet_nacl calibrate` prints, for a terminal of 80 columns; the map's file has
every number."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.fit import PREDICTED_DICE_ERROR
from nnunet_nacl.calibration.map_parts import MapQuality
from nnunet_nacl.calibration.quality_texts import detected_text, presence_text
from nnunet_nacl.cases.case import MASK_NOTES
from nnunet_nacl.estimators.flags import Flags, flag_costs, order_areas
from nnunet_nacl.estimators.intervals import EstimateCheck
from nnunet_nacl.estimators.learned_quality import SINGLE_NETWORKS
from nnunet_nacl.estimators.recall import RECALLS, LearnedRecall
from nnunet_nacl.estimators.risk_control import patients_needed
from nnunet_nacl.estimators.scan_scores import ScanScores
from nnunet_nacl.metrics.statistics import VERDICT_TEXTS
from nnunet_nacl.utilities.errors import named_together, some
from nnunet_nacl.utilities.tables import number, ten_worst, text_of, wrap_text

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
_ORDERS = (
    "by entropy, by chance: scans to look at if the mean entropy, or nothing, orders them in place"
    " of the score."
)
_AREAS = "AURC (1 - Dice): {score} by score, {entropy} by entropy, {chance} by chance, {best} best"
_TOO_FEW_BAD = (
    "Too few scans are bad to say how many must be looked at. `nnunet_nacl predict` takes a higher"
    " -bad, or, from 19 patients on, -miss 0.05: at most 5 % of all scans are bad and not flagged."
)
_ESTIMATE = ""  # the rows say which
_CHECK_COLUMNS = ("error", "error of a constant", "in 90 % interval", "width", "cases")
_ESTIMATES = (
    "error: mean absolute difference to the true value; a constant: the mean of the other patients;"
    " in 90 % interval: share of the true values that lie in theirs, of this mean width."
)


def calibration_text(calibration_map: CalibrationMap, flags: Flags | None = None) -> str:
    """The map, what it changes on cases that its fit has not seen, and what it says of new ones."""
    names = calibration_map.names
    quality = calibration_map.quality or MapQuality()
    parts = [
        _form_text(calibration_map),
        _effect_text(calibration_map),
        detected_text(calibration_map.fitted.detected, names),
        _estimates_text(quality, names),
    ]
    if quality.learned is not None:
        parts.append(_flag_costs_text(quality.learned.scores, names, flags))
    if quality.recall:
        parts.append(recall_costs_text(quality.recall, names))
    if quality.presence is not None:
        parts.append(presence_text(quality.presence, names))
    return "\n\n".join(filter(None, parts))


def verdict(calibration_map: CalibrationMap) -> str:
    """What the map does to confidence where something is segmented, and to labels."""
    effect = calibration_map.fitted.effect

    def before_and_after(value: str) -> str:
        change = effect[f"{value} predicted"]
        return f"{number(change.before.mean)} -> {number(change.after.mean)}"

    accuracy = number(effect["accuracy predicted"].before.mean)  # which no map changes
    verdict_of_nll = VERDICT_TEXTS[effect["NLL predicted"].verdict]
    return (
        f"Where nnU-Net segments, {accuracy} of the voxels are right; mean confidence"
        f" {before_and_after('confidence')}, pooled ECE {before_and_after('pooled ECE')}. NLL"
        f" {before_and_after('NLL')} ({verdict_of_nll}), Brier {before_and_after('Brier')}. Each"
        " case was calibrated by a map that has not seen it; labels are unchanged."
    )


def _form_text(calibration_map: CalibrationMap) -> str:
    """The form that was chosen, and how each form did on left-out patients."""
    best_nll: dict[str, float] = {}
    for tried in calibration_map.fitted.forms:
        best_nll[tried.form] = min(tried.nll, best_nll.get(tried.form, math.inf))
    scores = ", ".join(f"{form} {nll:.5f}" for form, nll in best_nll.items())
    ridge = calibration_map.maps[calibration_map.form].get("ridge") or math.inf
    shrunk = f", ridge {ridge:g}" if not math.isinf(ridge) else ""
    fitted = calibration_map.fitted
    size = f"{len(fitted.part_of)} cases, cross-fitted in {len(fitted.cross_fit)} parts"
    return wrap_text(
        f"form {calibration_map.form}{shrunk}, {size}; NLL of left-out cases in nnU-Net's crop:"
        f" {scores}"
    )


def _effect_text(calibration_map: CalibrationMap) -> str:
    """A line for each value that is shown, see :mod:`nnunet_nacl.calibration.effect`, and what the
    masks are."""
    rows = []
    for name in _SHOWN:
        change = calibration_map.fitted.effect.get(name)
        if change is None:
            continue
        difference = change.difference
        interval = number(difference.low, 4, "+")
        if interval != "-":
            interval += f" to {number(difference.high, 4, '+')}"
        rows.append(
            {
                "value": name,
                "before": number(change.before.mean, 4),
                "after": number(change.after.mean, 4),
                "change": number(difference.mean, 4, "+"),
                "95 % interval": interval,
                "cases": change.n,
            }
        )
    settings = vars(calibration_map.origin.settings)
    masks = "; ".join(f"{mask}: {MASK_NOTES[mask].format(**settings)}" for mask in _MASKS)
    heading = "before and after the map, each case under a map that has not seen it:"
    return f"{heading}\n{text_of(rows)}\n{wrap_text(masks)}"


def _flag_costs_text(scores: ScanScores, names: Mapping[str, str], flags: Flags | None) -> str:
    """What it costs to find nine of ten scans below each limit, or some share of those that the
    user calls bad; and how well scans are ordered."""
    bad = None
    if flags is not None:
        bad = {key: flags.bad[name] for key, name in names.items() if name in flags.bad}
    rows = []
    unknown: dict[str, str] = {}
    for cost in flag_costs(scores, bad).itertuples():
        if flags is None:
            request = f"-bad {cost.bad:g}"
            row = {"-bad": f"{cost.bad:g}", "bad scans": _percent(cost.share_bad)}
        else:
            request = f"-find {cost.find:g}"
            row = {"-find": f"{cost.find:g}"}
        if math.isnan(cost.flagged):
            have = "patient has" if cost.n_patients == 1 else "patients have"
            needed = patients_needed(1 - cost.find)
            unknown[request] = f"{cost.n_patients} {have} such a scan, it takes {needed}"
            continue
        row["scans to look at"] = _percent(cost.flagged)
        row["95 % interval"] = " to ".join(f"{100 * end:.0f} %" for end in cost.interval)
        row["by entropy"] = _percent(cost.by_entropy)
        row["by chance"] = _percent(cost.at_random)
        rows.append(row)
    advice = (
        "-bad 0.7 shows what other shares cost; `nnunet_nacl predict -bad 0.7` flags such scans."
    )
    heading = "To find nine of ten bad scans (-find 0.9), bad below this Dice of a structure:"
    lines = []
    if flags is not None:
        advice = "`nnunet_nacl predict` with the same -bad flags them; -find names the share."
        heading = "To find this share of the bad scans:"
        lines.append(wrap_text(flags.aim))
    if rows:
        lines += [heading, text_of(rows), wrap_text(_ORDERS)]
    else:
        advice = _TOO_FEW_BAD
    areas = {order: number(area, 3) for order, area in order_areas(scores, bad).items()}
    lines.append(_AREAS.format_map(areas))
    return "\n".join([*lines, *named_together(unknown), wrap_text(advice)])


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.0f} %"


def recall_costs_text(learned: Mapping[str, LearnedRecall], names: Mapping[str, str]) -> str:
    """What sensitive labels cost: a line for each structure, or for those that nnU-Net's
    labels miss most of."""
    rows = []
    whys = []
    for key, name in names.items():
        of_structure = learned.get(key, LearnedRecall())
        missed = of_structure.missed[-1] if of_structure.missed else math.nan
        row: dict[str, str | float] = {"structure": name, "found now": 1 - missed}
        for recall in RECALLS:
            row[f"-recall {recall:g}"] = _recall_cell(of_structure, recall)
        row["patients"] = str(of_structure.n_patients)
        refused = [of_structure.why_not(recall) for recall in RECALLS]
        if any(refused):
            whys.append(f"{name}: {next(filter(None, refused))}")
        rows.append(row)
    shown, more = ten_worst(rows, "structure", lambda row: row["found now"])
    heading = "Sensitive labels, which find at least this share of a structure's voxels:"
    legend = (
        "found now: share of the voxels that nnU-Net's labels find. x 1.5, 200: labels that find"
        " the asked share are 1.5 times as large, and have 200 false voxels more (medians over"
        " scans). `nnunet_nacl predict -recall 0.9` writes such labels."
    )
    if whys:
        legend += f" -: not available ({some(whys, separator='; ')})."
    return "\n".join([heading, text_of(shown, decimals=2), *more, wrap_text(legend)])


def _recall_cell(learned: LearnedRecall, recall: float) -> str:
    """How much larger a structure's labels are that find this share of its voxels, and the false
    voxels that this adds."""
    index = learned.threshold_index(recall)
    if index is None:
        return "-"
    times_larger = number(learned.times_larger[index], 2)
    return f"x {times_larger}, {learned.false_voxels[index]:.0f}"


def _estimates_text(quality: MapQuality, names: Mapping[str, str]) -> str:
    """What is predicted of new cases: first of Dice, then of volumes, a line for each structure, or
    for those whose Dice is predicted worst."""
    learned = quality.learned
    if learned is None:
        return wrap_text(f"nothing was learned about Dice and volumes: {quality.why_not}")
    dice_checks = learned.checks["dice"]
    structures = [{"key": key} for key in names]
    shown, more = ten_worst(structures, "key", lambda row: -dice_checks[row["key"]].error)
    keys = [row["key"] for row in shown]
    lines = ["Predicted for new cases, checked on cases of other patients:"]
    rows = []
    for estimate, checks in (
        ("Dice", dice_checks),
        (f"volume ({quality.unit})", learned.checks["volume"]),
    ):
        rows.append({_ESTIMATE: estimate} | dict.fromkeys(_CHECK_COLUMNS, ""))
        rows += [{_ESTIMATE: f"  {names[key]}"} | _check_cells(checks[key]) for key in keys]
    lines += [text_of(rows), *more]
    lines.append(wrap_text(_ESTIMATES))
    why_no_interval = {name: learned.dice[key].why_no_interval for key, name in names.items()}
    reasons = named_together({name: why for name, why in why_no_interval.items() if why})
    lines += [wrap_text(reason) for reason in reasons]
    if not learned.as_deployed:
        lines.append(f"Learned {SINGLE_NETWORKS}.")
    return "\n".join(lines)


def _check_cells(check: EstimateCheck) -> dict[str, str]:
    """How far an estimate held, by column."""
    coverage = f"{check.coverage.share:.2f}" if not math.isnan(check.coverage.share) else "-"
    texts = (
        _three_digits(check.error),
        _three_digits(check.error_of_constant),
        coverage,
        _three_digits(check.width),
        str(check.n),
    )
    return dict(zip(_CHECK_COLUMNS, texts))


def _three_digits(value: float) -> str:
    """A value with three digits that count, or all before the point; ``-`` where it is unknown."""
    if math.isnan(value):
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
