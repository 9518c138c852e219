"""What came of the flags as lines for a terminal, and as outcome.html, a file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nnunet_nacl.documents.outcome_json import DRAWN, FLAGGED, OTHER, Outcome
from nnunet_nacl.show.page import render_page
from nnunet_nacl.show.text_table import aligned, number


def outcome_lines(outcome: Outcome) -> list[str]:
    """For a terminal: what to check, the tables but that of single scans, and what they say together."""
    lines = [f"warning: {warning}" for warning in outcome.warnings]
    for caption, rows in _tables(outcome)[:-1]:
        lines += [f"{caption}:", *aligned(rows), ""]
    return [*lines, *_sentences(outcome)]


def outcome_page(outcome: Outcome) -> str:
    """The page: all of that, and every structure of every corrected scan."""
    made = outcome.created.partition("T")[0]
    return render_page(
        "outcome.html", notes=outcome.warnings, sentences=_sentences(outcome), tables=_tables(outcome), made=made
    )


def _tables(outcome: Outcome) -> list[tuple[str, Sequence[Sequence[str]]]]:
    """Captions and rows, the header first."""
    columns = {"n": "scans", "looked_at": "looked at", "changed": "changed", "bad": "bad", "judged": "of"}
    groups = [["", *columns.values()]]
    groups += [[name, *(str(group[column]) for column in columns)] for name, group in outcome.groups.items()]
    predicted = [["", "scans", "Dice", "predicted", "off by", "in its interval", "95 % interval of that", "width"]]
    for name, each in outcome.predicted.items():
        inside, numbers = each.coverage, (each.dice, each.predicted_dice, each.error)
        share = f"{inside.share:.2f} of {inside.n}" if inside.n else "-"
        known = f"{inside.low:.2f} to {inside.high:.2f}" if inside.n else "-"
        predicted.append([name, str(each.n), *map(number, numbers), share, known, number(each.width)])
    scans = [["scan", "group", "mark", "structure", "Dice", "predicted", "interval"]]
    for case in outcome.cases:
        for name, (dice, predicted_dice, low, high) in case.structures.items():
            interval = "-" if math.isnan(low) else f"{low:.2f} to {high:.2f}"
            values = number(dice, 2), number(predicted_dice, 2), interval
            scans.append([case.case, case.group, case.mark or "-", name, *values])
    tables = [("Scans that were looked at", groups)]
    if outcome.predicted:
        tables.append(("Dice of the delivered against the corrected labels, and as predicted", predicted))
    return [*tables, ("Corrected scans", scans)]


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
