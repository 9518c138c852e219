"""What came of the flags of a list, as text for a terminal and as a page."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from nnunet_nacl.utilities.rendering import render_page
from nnunet_nacl.utilities.tables import frames, text_of
from nnunet_nacl.worklist.list_files import PAGE
from nnunet_nacl.worklist.outcome.document import FLAGGED, OTHER, RANDOM, Outcome

_GROUPS_CAPTION = "Scans that were looked at"
_PREDICTED_CAPTION = "Dice of nnU-Net's labels against the corrected ones, and as predicted"
_SCANS_CAPTION = "Corrected scans"


def outcome_lines(outcome: Outcome) -> list[str]:
    """For a terminal: what to check, the tables but that of single scans, and what they say."""
    lines = [f"warning: {warning}" for warning in outcome.warnings]
    tables = {
        _GROUPS_CAPTION: _group_table(outcome),
        _PREDICTED_CAPTION: _predicted_table(outcome),
    }
    for caption, table in tables.items():
        if len(table):
            lines.append(f"{caption}:\n{text_of(table)}\n")
    return lines + _sentences(outcome)


def outcome_page(outcome: Outcome) -> str:
    """The page: what a terminal shows, and every structure of every corrected scan."""
    tables = [
        (_GROUPS_CAPTION, _group_table(outcome)),
        (_PREDICTED_CAPTION, _predicted_table(outcome)),
        (_SCANS_CAPTION, _scan_table(outcome)),
    ]
    date, _, _ = outcome.created.partition("T")
    return render_page(
        "outcome.html",
        tables=tables,
        notes=outcome.warnings,
        sentences=_sentences(outcome),
        made=date,
        list_page=PAGE,
        has_predicted=bool(outcome.predicted),
    )


def _group_table(outcome: Outcome) -> pd.DataFrame:
    columns = {
        "n": "scans",
        "looked_at": "looked at",
        "changed": "changed",
        "judged": "judged",
        "bad": "bad",
    }
    counts = pd.DataFrame(outcome.groups).T[list(columns)]
    return counts.rename(columns=columns).reset_index(names="group").astype(str)


def _predicted_table(outcome: Outcome) -> pd.DataFrame:
    """How far predicted Dice of each structure agrees, as text."""
    rows = []
    for name, structure in outcome.predicted.items():
        coverage = structure.coverage
        coverage_text = f"{coverage.share:.2f} of {coverage.n}" if coverage.n else "-"
        rows.append(
            {
                "structure": name,
                "scans": structure.n,
                "Dice": structure.dice,
                "predicted": structure.predicted_dice,
                "off by": structure.error,
                "in its interval": coverage_text,
                "95 % interval of that": _range_text(coverage.low, coverage.high),
                "width": structure.width,
            }
        )
    _, texts = frames(rows)
    return texts


def _scan_table(outcome: Outcome) -> pd.DataFrame:
    """A row for each structure of each scan with corrected labels, as text."""
    structures = outcome.structures
    intervals = []
    for low, high in zip(structures.low, structures.high):
        intervals.append(_range_text(low, high))
    structures = structures.drop(columns=["low", "high"]).assign(interval=intervals)
    _, texts = frames(structures.to_dict("records"), 2)
    return texts


def _range_text(low: float, high: float) -> str:
    if math.isnan(low):
        return "-"
    return f"{low:.2f} to {high:.2f}"


def _sentences(outcome: Outcome) -> list[str]:
    """What the tables say together."""
    flagged = outcome.groups[FLAGGED]
    chosen = outcome.groups[RANDOM]
    other = outcome.groups[OTHER]
    not_flagged = {count: chosen[count] + other[count] for count in chosen}
    n_scans = flagged["n"] + not_flagged["n"]
    sentences = [
        f"{flagged['changed']} of {flagged['looked_at']} flagged scans that were looked at were"
        f" corrected or rejected, and {not_flagged['changed']} of {not_flagged['looked_at']}"
        " others.",
        f"{flagged['bad']} of {flagged['judged']} flagged scans that were judged are bad, and"
        f" {not_flagged['bad']} of {not_flagged['judged']} others.",
    ]
    if chosen["judged"]:
        sentences.append(_sentence_of_draw(outcome, chosen, not_flagged, n_scans))
        n_not_judged = chosen["n"] - chosen["judged"]
        if n_not_judged:
            sentences.append(
                f"{n_not_judged} of those chosen are not judged; the others are taken for a sample."
            )
    else:
        sentences += _sentences_without_draw(chosen, not_flagged, n_scans)
    if outcome.predicted:
        sentences.append(
            "Flagged scans are the hard ones: their intervals may contain the true Dice less often."
        )
    return sentences


def _sentences_without_draw(
    chosen: Mapping[str, int], not_flagged: Mapping[str, int], n_scans: int
) -> list[str]:
    """What is known of bad scans without a flag where none that was chosen by chance is judged."""
    choose_some = "choose some by chance (`predict -also`)"
    remedy = "judge those that were chosen by chance" if chosen["n"] else choose_some
    sentences = [f"How many bad scans are left unseen is not known: {remedy}."]
    n_bad = not_flagged["bad"]
    if n_bad:
        sentences.append(
            f"At least {100 * n_bad / n_scans:.1f} % of all scans are bad and not flagged: {n_bad}"
            f" of {n_scans}, which were looked at."
        )
    return sentences


def _sentence_of_draw(
    outcome: Outcome, chosen: Mapping[str, int], not_flagged: Mapping[str, int], n_scans: int
) -> str:
    """What scans that were chosen by chance, and other known ones, say of bad scans without a flag.

    ``chosen`` and ``not_flagged`` are the counts of these groups.
    """
    text = (
        f"{not_flagged['n']} of {n_scans} scans are not flagged. Of these {chosen['judged']} were"
        f" chosen by chance and judged, and {chosen['bad']} of them are bad. "
    )
    n_bad_by_draw = not_flagged["n"] * chosen["bad"] / chosen["judged"]
    at_least = ""
    if not_flagged["bad"] > n_bad_by_draw:
        at_least = "at least "
        text += (
            f"With those that were looked at for other reasons {not_flagged['bad']} are known to be"
            " bad. "
        )
    return (
        text + f"So {at_least}{100 * outcome.unseen:.1f} % of all scans are bad and not flagged, "
        f"and with 95 % confidence at most {100 * outcome.unseen_upper:.1f} %."
    )
