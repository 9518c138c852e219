"""Flags scans by their score, so that a chosen share of the bad ones is found.

A scan is flagged where its score (:mod:`nnunet_nacl.quality.scan_scores`) is at most a threshold,
which conformal risk control over patients finds (:mod:`nnunet_nacl.quality.risk_control`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from nnunet_nacl.errors import UserError, some
from nnunet_nacl.json_types import doc
from nnunet_nacl.quality.risk_control import patients_needed, smallest_thresholds
from nnunet_nacl.quality.scan_scores import ScanScores

DEFAULT_FIND = 0.9
"""Share of the bad scans to be flagged, where none is named."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """By which score scans are flagged, what that aims at, and what it does to the calibration
    scans."""

    bad: Annotated[
        dict[str, float],
        doc("By name of each structure that counts, the Dice below which it is bad."),
    ]
    find: Annotated[
        float | None, doc("Share of the bad scans to be flagged; null with `-miss` alone.")
    ]
    miss: Annotated[
        float | None,
        doc("Share of all scans that may be bad and not flagged; null without `-miss`."),
    ]
    threshold: Annotated[
        float | None, doc("A scan is flagged if its score is at most this; null if none is.")
    ]
    n_scans: Annotated[int, doc("Calibration scans.")]
    n_bad_patients: Annotated[int, doc("Patients with a bad one.")]
    share_bad: Annotated[float, doc("Share of the calibration scans that are bad.")]
    share_found: Annotated[float, doc("Share of these that are flagged; NaN where none is bad.")]
    share_flagged: Annotated[float, doc("Share of the calibration scans that are flagged.")]
    why_not: Annotated[str, doc("Why no threshold could be learned; else empty.")] = ""
    counted: Annotated[str, doc("The structures that count, in words; empty where all do.")] = ""

    @classmethod
    def of(
        cls,
        scores: ScanScores,
        bad: Mapping[str, float],
        names: Mapping[str, str],
        find: float | None = None,
        miss: float | None = None,
    ) -> Flags:
        """The flags of a site's choice, by the scores of the calibration scans.

        ``bad`` is, by nnU-Net's key of each structure that counts, the Dice below which it is bad,
        ``names`` the name of each structure. ``find`` is ``DEFAULT_FIND`` where neither is given.
        UserError where there are too few patients for a share.
        """
        score = scores.of_scans(bad)
        are_bad = scores.are_bad(bad)
        n_bad_patients = len(set(scores.patient[are_bad]))
        is_default = find is None and miss is None
        if is_default:
            find = DEFAULT_FIND
        thresholds = [-math.inf]
        why_not = ""
        if find is not None:
            (threshold,) = smallest_thresholds(score, are_bad, scores.patient, 1 - find)
            thresholds.append(float(threshold))
            if math.isnan(threshold):
                why_not = _explain_find(find, n_bad_patients)
                if not is_default:
                    raise UserError(f"{why_not}.")
        if miss is not None:
            (threshold,) = smallest_thresholds(score, are_bad, scores.patient, miss, of_bad=False)
            thresholds.append(float(threshold))
            if math.isnan(threshold):
                raise UserError(f"{_explain_miss(miss, len(set(scores.patient)))}.")
        highest = max(thresholds)
        if why_not:
            is_flagged = np.zeros(len(score), bool)
        else:
            is_flagged = ~(score > highest)  # NaN, no score, is flagged
        counted = ""
        if len(bad) < len(names):
            counted = some([names[key] for key in bad])
        return cls(
            bad={names[key]: float(limit) for key, limit in bad.items()},
            find=find,
            miss=miss,
            threshold=highest if math.isfinite(highest) else None,
            n_scans=len(score),
            n_bad_patients=n_bad_patients,
            share_bad=float(are_bad.mean()),
            share_found=float(is_flagged[are_bad].mean()) if are_bad.any() else math.nan,
            share_flagged=float(is_flagged.mean()),
            why_not=why_not,
            counted=counted,
        )

    @property
    def called_bad(self) -> str:
        """``Dice below 0.7``, ``Dice of infarct below 0.7``, ``Dice below 0.8 (LV cavity), 0.5
        (infarct)``."""
        limits = list(dict.fromkeys(f"{limit:g}" for limit in self.bad.values()))
        if len(limits) > 1:
            return f"Dice below {some([f'{limit:g} ({name})' for name, limit in self.bad.items()])}"
        if self.counted:
            return f"Dice of {self.counted} below {limits[0]}"
        return f"Dice below {limits[0]}"

    @property
    def aim(self) -> str:
        """What flags by predicted Dice aim at, beside the calibration scans; or why no scan is
        flagged by it."""
        if self.why_not:
            return f"Flagging by predicted Dice is off: no limit could be learned ({self.why_not})."
        share_bad = f"{100 * self.share_bad:.0f} %"
        scans = f"f the {self.n_scans} calibration scans {share_bad} were bad ({self.called_bad})"
        if self.threshold is None:
            return f"No scan is flagged by predicted Dice: o{scans}."
        aims = []
        if self.find is not None:
            aims.append(f"{100 * self.find:g} % of the bad scans are flagged")
        if self.miss is not None:
            aims.append(f"at most {100 * self.miss:g} % of all scans are bad and not flagged")
        found = f"{100 * self.share_found:.0f} %"
        flagged = f"{100 * self.share_flagged:.0f} %"
        return (
            f"Aim for patients like those of the calibration: {', and '.join(aims)}. "
            f"O{scans}; {found} of these and {flagged} of all would be flagged."
        )


def _explain_find(find: float, n_bad_patients: int) -> str:
    """Why a share of the bad scans cannot be aimed at, and the largest that can."""
    largest = math.floor(1000 * n_bad_patients / (n_bad_patients + 1)) / 1000
    text = (
        f"-find {find:g} takes {patients_needed(1 - find)} calibration patients with a bad scan, "
        f"there are {n_bad_patients}"
    )
    return f"{text}; -find {largest:g} can be had" if n_bad_patients else text


def _explain_miss(miss: float, n_patients: int) -> str:
    """Why a share of missed scans cannot be aimed at, and the smallest that can."""
    smallest = math.ceil(1000 / (n_patients + 1)) / 1000
    return (
        f"-miss {miss:g} takes {patients_needed(miss)} calibration patients, "
        f"there are {n_patients}; -miss {smallest:g} can be had"
    )
