"""What came of the flags as lines for a terminal, and as outcome.html, a file that needs nothing else."""

from __future__ import annotations

import math

from nnunet_nacl.review.outcome import DRAWN, FLAGGED, OTHER, Outcome
from nnunet_nacl.show.rendering import render_page
from nnunet_nacl.show.tables import Rows, frames, number, text_of


def outcome_lines(outcome: Outcome) -> list[str]:
    """For a terminal: what to check, the tables but that of single scans, and what they say together."""
    lines = [f"warning: {warning}" for warning in outcome.warnings]
    for caption, rows in _tables(outcome)[:-1]:
        lines += [f"{caption}:", text_of(rows), ""]
    return [*lines, *_sentences(outcome)]


def outcome_page(outcome: Outcome) -> str:
    """The page: all of that, and every structure of every corrected scan."""
    made, tables = outcome.created.partition("T")[0], [(caption, frames(rows)[1]) for caption, rows in _tables(outcome)]
    return render_page("outcome.html", notes=outcome.warnings, sentences=_sentences(outcome), tables=tables, made=made)


def _tables(outcome: Outcome) -> list[tuple[str, Rows]]:
    """Captions and rows."""
    groups = [
        {"group": name, "scans": group["n"], "looked at": group["looked_at"], "changed": group["changed"]}
        | {"bad": group["bad"], "of": group["judged"]}
        for name, group in outcome.groups.items()
    ]
    predicted = [
        {"structure": name, "scans": each.n, "Dice": each.dice, "predicted": each.predicted_dice, "off by": each.error}
        | {"in its interval": f"{each.coverage.share:.2f} of {each.coverage.n}" if each.coverage.n else "-"}
        | {"95 % interval of that": _range(each.coverage.low, each.coverage.high), "width": each.width}
        for name, each in outcome.predicted.items()
    ]
    scans = [
        {"scan": case.case, "group": case.group, "mark": case.mark or "-", "structure": name, "Dice": number(dice, 2)}
        | {"predicted": number(predicted_dice, 2), "interval": _range(low, high)}
        for case in outcome.cases
        for name, (dice, predicted_dice, low, high) in case.structures.items()
    ]
    tables: list[tuple[str, Rows]] = [("Scans that were looked at", groups)]
    if predicted:
        tables.append(("Dice of the delivered against the corrected labels, and as predicted", predicted))
    return [*tables, ("Corrected scans", scans)]


def _range(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{low:.2f} to {high:.2f}"


def _sentences(outcome: Outcome) -> list[str]:
    flagged, drawn, other = (outcome.groups[name] for name in (FLAGGED, DRAWN, OTHER))
    n, looked_at, changed = (drawn[key] + other[key] for key in ("n", "looked_at", "changed"))
    judged, upper = drawn["judged"], 100 * outcome.unseen_upper
    lines = [
        f"{flagged['changed']} of {flagged['looked_at']} flagged scans that were looked at were changed, and {changed} "
        f"of {looked_at} others."
    ]
    if judged:
        lines.append(
            f"Bad and not flagged: {100 * outcome.unseen:.1f} % of all scans (not flagged: {n} of {flagged['n'] + n}; "
            f"bad: {drawn['bad']} of {judged} drawn by chance), with 95 % confidence at most {upper:.1f} % (exact for "
            f"a draw from {n})."
        )
        if judged < drawn["n"]:
            lines.append(f"{drawn['n'] - judged} drawn scans are not judged; the others are taken for a sample.")
    else:
        lines.append("How many bad scans are left unseen is not known: it takes scans drawn by chance (predict -also).")
    if outcome.predicted:
        lines.append("Flagged scans are no sample of all: intervals may hold less often in them.")
    return lines
