"""The reasons to look at a scan, one structure after the other: what the list is held against."""

from __future__ import annotations

import math

import pandas as pd

from nnunet_nacl.worklist.reasons import dice_text


def reasons_of_scan(rows: pd.DataFrame, limit: float, unlike, differences, listed) -> list[str]:
    """Texts of the reasons of one scan by the rows of its structures, the strongest first."""
    structures = list(rows.itertuples(index=False))
    low = []
    missed = []
    absent = []
    disagreeing = []
    fragmented = []
    for row in structures:
        is_low = row.score <= limit
        is_improbable = row.present < 0.5
        if row.pieces == 0:
            if is_low or not is_improbable:
                missed.append(row)
        else:
            if is_low:
                low.append(row)
            if is_improbable:
                absent.append(row)
        if row.members_dice < 0.7:
            disagreeing.append(row)
        if row.largest_piece < 0.5 and row.name not in listed:
            fragmented.append(row)

    reasons = []
    if low:
        worst = min(low, key=lambda row: row.score)
        reasons.append(f"{prefix(worst, structures)}predicted Dice {dice_text(worst)}{more(low)}")
    is_empty = all(row.pieces == 0 for row in structures)
    if is_empty and any(math.isnan(row.present) for row in structures):
        largest = max(row.max_probability for row in structures)
        reasons.append(f"nothing segmented (largest probability {largest:.2f})")
    elif missed:
        worst = max(missed, key=lambda row: -1 if math.isnan(row.present) else row.present)
        reasons.append(f"{worst.name} not segmented{presence(worst.present)}{more(missed)}")
    if absent:
        worst = min(absent, key=lambda row: row.present)
        reasons.append(f"{worst.name} probably absent ({worst.present:.2f}){more(absent)}")
    if disagreeing:
        worst = min(disagreeing, key=lambda row: row.members_dice)
        text = f"folds disagree ({worst.members_dice:.2f})"
        reasons.append(f"{prefix(worst, structures)}{text}{more(disagreeing)}")
    if unlike:
        reasons.append(unlike)
    reasons.extend(differences)
    if fragmented:
        worst = min(fragmented, key=lambda row: row.largest_piece)
        share_percent = 100 * worst.largest_piece
        text = f"in {worst.pieces:.0f} pieces (largest {share_percent:.0f} %)"
        reasons.append(f"{worst.name} {text}{more(fragmented)}")
    return reasons


def prefix(row, structures) -> str:
    """The name of a structure before a reason, where a scan has several."""
    return f"{row.name}: " if len(structures) > 1 else ""


def more(rows) -> str:
    """How many structures there are beside the worst."""
    return f", and {len(rows) - 1} more" if len(rows) > 1 else ""


def presence(probability: float) -> str:
    """What is known of the presence of a structure that was not segmented."""
    if math.isnan(probability):
        return ""
    return f", {'probably' if probability >= 0.5 else 'perhaps'} present ({probability:.2f})"
