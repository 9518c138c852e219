"""The table of what calibration changes."""

from __future__ import annotations

import math

from nnunet_nacl.calibration.effect import changes
from nnunet_nacl.show.effect_table import effect_table


def test_a_mask_that_is_empty_everywhere_has_no_numbers():
    before = {"NLL all": [0.5, 0.7, 0.9], "ECE predicted": [math.nan] * 3, "Dice 1": [0.8, 0.8, 0.8]}
    after = {"NLL all": [0.4, 0.5, 0.6], "ECE predicted": [math.nan] * 3, "Dice 1": [0.8, 0.8, 0.8]}
    lines = effect_table(changes(before, after), {"1": "li\nver"}).splitlines()  # a name stays in its cell
    assert lines[0].split() == ["before", "after", "change", "95", "%", "interval", "cases"]
    assert lines[1].split()[:5] == ["NLL", "all", "0.7000", "0.5000", "-0.2000"] and lines[1].endswith(" 3")
    assert lines[2].split() == ["ECE", "predicted", "-", "-", "-", "-", "0"]
    assert lines[3].split()[:5] == ["Dice", "li\\nver", "0.8000", "0.8000", "0.0000"]
