"""The schedule in trainer names."""

from __future__ import annotations

import pytest

from nnunet_nacl.demo.options import Schedule, schedule_of, short_name, with_schedule
from nnunet_nacl.errors import UserError

SHORT = Schedule(40, 50)


@pytest.mark.parametrize(
    ("given", "run"),
    [
        ("nnUNetTrainer", "nnUNetTrainerDiceCE_40epochs_50iters_adam"),
        ("nnUNetTrainerCE", "nnUNetTrainerCE_40epochs_50iters_adam"),
        ("nnUNetTrainerNACL_lambda0p2_l2", "nnUNetTrainerNACL_lambda0p2_l2_40epochs_50iters_adam"),
        ("nnUNetTrainerNACL_train50", "nnUNetTrainerNACL_40epochs_50iters_adam_train50"),
        ("nnUNetTrainerDiceNACL_anneal", "nnUNetTrainerDiceNACL_anneal_40epochs_50iters_adam"),
        ("nnUNetTrainerNACL_7epochs", "nnUNetTrainerNACL_7epochs"),
        ("nnUNetTrainerNACL_adam", "nnUNetTrainerNACL_adam"),
        ("nnUNetTrainer_5epochs", "nnUNetTrainer_5epochs"),
        ("nnUNetTrainerDiceCELoss", "nnUNetTrainerDiceCELoss"),
    ],
)
def test_names_without_a_schedule_get_the_demos(given, run):
    assert with_schedule(given, SHORT) == run


def test_stock_defaults_are_not_spelled_out():
    stock = Schedule(1000, 250, adam=False)
    assert with_schedule("nnUNetTrainer", stock) == "nnUNetTrainer"
    assert with_schedule("nnUNetTrainerNACL", stock) == "nnUNetTrainerNACL"
    assert with_schedule("nnUNetTrainerNACL", Schedule(40, 250, adam=False)) == "nnUNetTrainerNACL_40epochs"


def test_a_name_that_breaks_the_grammar_is_an_error():
    with pytest.raises(UserError, match="nnUNetTrainerNACL_lamda2"):
        with_schedule("nnUNetTrainerNACL_lamda2", SHORT)


@pytest.mark.parametrize("schedule", [Schedule(0, 10), Schedule(10, -1)])
def test_an_empty_schedule_is_an_error(schedule):
    with pytest.raises(UserError, match="-epochs and -iters"):
        with_schedule("nnUNetTrainer", schedule)


def test_the_schedule_is_read_back():
    assert schedule_of(with_schedule("nnUNetTrainerNACL", SHORT)) == SHORT
    assert schedule_of("nnUNetTrainer") == Schedule(1000, 250, adam=False)
    assert schedule_of("nnUNetTrainer_5epochs").epochs == 5


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("nnUNetTrainerDiceCE_40epochs_50iters_adam", "DiceCE"),
        ("nnUNetTrainerNACL_lambda0p2_5epochs", "NACL_lambda0p2"),
        ("nnUNetTrainerNACL_adam", "NACL"),
        ("nnUNetTrainer", "nnUNetTrainer"),
        ("nnUNetTrainer_5epochs", "nnUNetTrainer_5epochs"),
    ],
)
def test_the_progress_bar_leaves_out_what_all_share(name, shown):
    assert short_name(name) == shown
