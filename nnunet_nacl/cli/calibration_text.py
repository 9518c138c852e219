"""The text that `nnunet_nacl calibrate` prints, one screen of it; the map's file has every number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nnunet_nacl.calibrator.calibration_map import CalibrationMap
from nnunet_nacl.calibrator.fit import PREDICTED_DICE_ERROR
from nnunet_nacl.calibrator.map_parts import MapQuality
from nnunet_nacl.cases.case import MASK_NOTES
from nnunet_nacl.errors import named_together
from nnunet_nacl.evaluation.tables import detected_text, presence_text
from nnunet_nacl.quality.flags import Flags, ScanScores, flag_costs, patients_needed
from nnunet_nacl.quality.learned_quality import SINGLE_NETWORKS
from nnunet_nacl.quality.recall import RECALLS, LearnedRecall
from nnunet_nacl.reports.tables import frames, number, ten_worst, text_of

_SHOWN = (
    *("NLL predicted", "Brier predicted", "pooled ECE predicted", "NLL near", "NLL all", "Brier all"),
    PREDICTED_DICE_ERROR,
)
_MASKS = ("all", "predicted", "near")


def calibration_text(record: CalibrationMap, flags: Flags | None = None) -> str:
    """The map, what it changes on cases that its fit has not seen, and what it promises."""
    names, quality = record.names, record.quality or MapQuality()
    masks = "; ".join(f"{mask}: {MASK_NOTES[mask].format(**vars(record.origin.settings))}" for mask in _MASKS)
    parts = [
        _form(record),
        "nnU-Net's own labels before and after the map, each case under one that has not seen it:\n"
        f"{_effect(record.fitted.effect)}\n{masks}",
        detected_text(record.fitted.detected, names),
        _promises(quality, names),
        _flag_costs(quality.learned.scores, names, flags) if quality.learned else "",
        _recall_costs(quality.recall, names) if quality.recall else "",
        presence_text(quality.presence, names) if quality.presence else "",
    ]
    return "\n\n".join(filter(None, parts))


def verdict(record: CalibrationMap) -> str:
    """What the map does to confidence where something is segmented, and to labels."""
    effect = record.fitted.effect
    accuracy, confidence, error, nll, brier = (
        [number(effect[f"{name} predicted"][when]["mean"]) for when in ("before", "after")]
        for name in ("accuracy", "confidence", "pooled ECE", "NLL", "Brier")
    )
    change = effect["NLL predicted"]["difference"]
    sure = "got worse" if change["low"] > 0 else "improved" if change["high"] < 0 else "did not clearly change"
    return (
        f"Where nnU-Net segments, {accuracy[0]} of the voxels are right; mean confidence {confidence[0]} -> "
        f"{confidence[1]}, pooled ECE {error[0]} -> {error[1]}. NLL {nll[0]} -> {nll[1]} ({sure}), "
        f"Brier {brier[0]} -> {brier[1]}. Each case was calibrated by a map that has not seen it; labels are unchanged."
    )


def _effect(effect: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each value that is shown, see `changes` in calibrate/effect.py."""
    rows = []
    for name, row in ((name, effect[name]) for name in _SHOWN if name in effect):
        change, low, high = (number(row["difference"][end], 4, "+") for end in ("mean", "low", "high"))
        shown = {"value": name} | {when: number(row[when]["mean"], 4) for when in ("before", "after")}
        interval = "-" if low == "-" else f"{low} to {high}"
        rows.append(shown | {"change": change, "95 % interval": interval, "cases": row["n"]})
    return text_of(rows)


def _form(record: CalibrationMap) -> str:
    ridge, best = record.maps[record.form].get("ridge") or math.inf, dict[str, float]()
    for tried in record.fitted.forms:
        best[tried.form] = min(tried.nll, best.get(tried.form, math.inf))
    scores = ", ".join(f"{form} {nll:.5f}" for form, nll in best.items())
    shrunk = "" if math.isinf(ridge) else f", ridge {ridge:g}"
    size = f"{len(record.fitted.part_of)} cases, {len(record.fitted.cross_fit)} parts"
    return f"form {record.form}{shrunk}, {size}; cross-validated NLL in nnU-Net's crop: {scores}"


def _flag_costs(scores: ScanScores, names: Mapping[str, str], flags: Flags | None) -> str:
    """What it costs to find nine of ten scans below each limit, or some share of those that the user calls bad."""
    rows, unknown = [], dict[str, str]()
    bad = {key: flags.bad[name] for key, name in names.items() if name in flags.bad} if flags else None
    for cost in flag_costs(scores, bad).itertuples():
        what = f"{100 * cost.find:g} % of the bad scans" if flags else f"a Dice below {cost.bad:g}"
        if math.isnan(cost.flagged):
            n, needed = cost.n_patients, patients_needed(1 - cost.find)
            unknown[what] = f"{n} patient{'s have' if n != 1 else ' has'} such a scan, it takes {needed}"
            continue
        shares = (f"{100 * share:.0f} %" for share in (cost.share_bad, cost.flagged, cost.by_entropy, cost.at_random))
        are, look, entropy, random = (text.replace("nan %", "-") for text in shares)
        interval = "{:.0%} to {:.0%}".format(*cost.interval).replace("%", " %")
        row = {"to find": what} if flags else {"to find 9 of 10 scans with": what, "which are": are}
        rows.append(row | {"look at": look, "95 % interval": interval, "by entropy": entropy, "at random": random})
    more = "-bad 0.7 shows what other shares cost; `nnunet_nacl predict -bad 0.7` flags such scans."
    if flags:
        more = "`nnunet_nacl predict` with the same -bad flags them; -find names the share."
    lines = [flags.aim if flags else "", text_of(rows) if rows else "", *named_together(unknown), more]
    return "\n".join(filter(None, lines))


def _recall_costs(learned: Mapping[str, LearnedRecall], names: Mapping[str, str]) -> str:
    """What labels that miss less cost: a line for each structure, or for those that nnU-Net's labels miss most of."""
    rows = []
    for key, name in names.items():
        its = learned.get(key, LearnedRecall())
        row: dict[str, Any] = {"voxels found of": name, "by nnU-Net": 1 - (its.missed or [math.nan])[-1]}
        for recall in RECALLS:
            place = its.place(recall)
            size = "-" if place is None else f"x {number(its.times_larger[place], 2)}, {its.false_voxels[place]:.0f}"
            row[f"-recall {recall:g}"] = size
        rows.append(row | {"patients": str(its.n_patients)})
    shown, more = ten_worst(rows, "voxels found of", lambda row: row["by nnU-Net"])
    how = "x: times as large as nnU-Net's label; then false voxels added; medians over scans; -: not available."
    return "\n".join([text_of(shown, decimals=2), *more, f"{how} `nnunet_nacl predict -recall` writes them."])


def _promises(quality: MapQuality, names: Mapping[str, str]) -> str:
    """What is promised of new cases: a line for each structure, or for the worst."""
    if (learned := quality.learned) is None:
        return f"nothing was learned about Dice and volumes: {quality.why_not}"
    rows = []
    for key, name in names.items():
        row = {"key": key, "predicted for new cases, off by": name}
        for kind, what, mark in (("dice", "Dice", ""), ("volume", f"volume ({quality.unit})", " ")):
            check = learned.checks[kind][key]
            error, constant, width = (
                f"{value:.3g}".replace("nan", "-") for value in (check.error, check.error_of_constant, check.width)
            )
            covers = f"{check.coverage.share:.2f}".replace("nan", "-")
            row |= {what: error, f"a constant{mark}": constant, f"90 % interval covers{mark}": covers}
            row[f"its width{mark}"] = width
        rows.append(row | {"cases": str(learned.checks["dice"][key].n)})
    shown, more = ten_worst(rows, "key", lambda row: -learned.checks["dice"][row["key"]].error)
    why = {name: unknown for key, name in names.items() if (unknown := learned.dice[key].why_no_interval)}
    lines = [text_of(frames(shown)[1].drop(columns="key")), *more, *named_together(why)]
    if not learned.as_deployed:
        lines.append(f"Learned {SINGLE_NETWORKS}.")
    return "\n".join(lines)
