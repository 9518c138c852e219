"""The review list on the terminal."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

from nnunet_nacl.calibration.dice_estimate import Prediction
from nnunet_nacl.cases.predicted_quality import PredictedCase
from nnunet_nacl.cli.review_text import print_list, table_lines
from tests.prediction.test_review_list import review


def test_a_line_for_each_case():
    rows = [review("liver_1", members=(1.0, 3.0)), review("b", pieces=0, members=(0.0, 0.0))]
    header, *lines = table_lines(rows)
    assert header.split() == "rank case empty expected Dice entropy confidence mutual information s0 (ml)".split()
    assert "liver_1" in lines[0] and "2 +- 1.4" in lines[0] and "yes" in lines[1]


def test_how_probably_a_structure_is_there_has_a_column_where_it_is_known():
    one, unknown = Prediction(0.8, math.nan, math.nan), Prediction(math.nan, math.nan, math.nan)
    predicted = {"a": PredictedCase((one,), (unknown,), (0.375,)), "b": PredictedCase((one,), (unknown,), (math.nan,))}
    header, *lines = table_lines([review("a"), review("b")], predicted)
    assert header.endswith("s0 (predicted Dice)  there") and [line.split()[-1] for line in lines] == ["0.38", "-"]
    header, *lines = table_lines([review("a"), review("b")], predicted, predicts_dice=False)
    assert header.endswith("s0 (ml)  there") and lines[0].split()[-2:] == ["2", "0.38"]


def printed(capsys, rows, predicted) -> list[str]:
    reasons = {row.case: [] for row in rows}
    found = SimpleNamespace(rows=rows, predicted=predicted, reasons=reasons, notes=(), n_to_look_at=0, findings={})
    found.predicts_dice, found.thresholds = predicted is not None, None
    print_list(found, Path("out"))
    return capsys.readouterr().out.splitlines()


def test_the_first_cases_are_shown(capsys):
    lines = printed(capsys, [review(str(i)) for i in range(30)], None)
    assert lines[0].endswith("(10 of 30):") and lines[11].split()[:2] == ["10", "9"] and not lines[12]


def test_intervals_are_spoken_of_where_there_is_one(capsys):
    bare, whole = Prediction(0.8, math.nan, math.nan), Prediction(0.8, 0.7, 0.9)
    nothing, rows = PredictedCase((bare,), (bare,)), [review("a"), review("b")]
    assert not any("intervals" in line for line in printed(capsys, rows, {"a": nothing, "b": nothing}))
    lines = printed(capsys, rows, {"a": nothing, "b": PredictedCase((whole,), (bare,))})
    assert lines[3].endswith("0.80 (0.70-0.90)") and lines[4].startswith("In brackets: 90 % intervals")
