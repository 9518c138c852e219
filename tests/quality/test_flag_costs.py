"""What it costs to find bad scans."""

from __future__ import annotations

import math

import numpy as np

from nnunet_nacl.quality.flag_costs import FINDS, flag_costs
from nnunet_nacl.quality.scan_scores import ScanScores


def test_costs_of_what_is_called_bad_are_by_the_structures_that_count():
    """Of 40 patients 20 have a bad structure 1, by a score that finds them in order; structure 3 is
    always bad."""
    scores = ScanScores(
        score={"1": list(np.arange(40) / 40), "3": [0.0] * 40},
        dice={"1": [0.0] * 20 + [1.0] * 20, "3": [0.0] * 40},
        entropy=[0.0] * 40,
        patient=np.arange(40),
        always=[],
    )
    costs = flag_costs(scores, {"1": 0.5})
    # of 20 bad ones 21 (1 - find) - 1 may be missed
    allowed = [math.floor(21 * (1 - find) - 1 + 1e-9) for find in FINDS]
    assert allowed == [9, 5, 3, 1, 0]
    assert costs.find.tolist() == list(FINDS)
    assert costs.flagged.tolist() == [(20 - missed) / 40 for missed in allowed]
    assert set(costs.share_bad) == {0.5}
    assert set(flag_costs(scores).share_bad) == {1.0}
