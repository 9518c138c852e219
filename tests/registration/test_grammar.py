"""Trainer names: one name for every variant, and an error in one line for everything that only
looks like one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nnunetv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_nacl.methods import METHODS, PREFIX
from nnunet_nacl.registration.grammar import grammar, parse
from nnunet_nacl.registration.tokens import MAX_NAME_LENGTH, TOKENS, Token, Variant
from nnunet_nacl_trainers import CalibrationTrainer

_NUMBERS = st.integers(0, 99999).map(lambda number: number / 1000)
_VALUES = {
    "lambda<x>": _NUMBERS,
    "k<n>": st.integers(0, 5).map(lambda half: 2 * half + 1),
    "sigma<x>": _NUMBERS.filter(bool),
    "gamma<x>": _NUMBERS,
    "alpha<x>": st.integers(0, 1000).map(lambda number: number / 1000),
    "m<x>": _NUMBERS,
    "<n>epochs": st.integers(1, 5000),
    "<n>iters": st.integers(1, 5000),
    "train<x>": st.integers(1, 999).map(lambda number: number / 10),
    "seed<n>": st.integers(1, 99999),
}
"""Values of the tokens with a number; all others are words."""


def values_of(token: Token) -> st.SearchStrategy:
    return _VALUES[token.form] if token.has_number else st.sampled_from(token.words)


@st.composite
def variants(draw: st.DrawFn) -> Variant:
    """Any variant that has a name; a setting that equals the default is left out, as the grammar
    wants it."""
    method = draw(st.sampled_from(list(METHODS)))
    with_dice = draw(st.booleans())
    values = {}
    for token in TOKENS:
        if token.fits(method, with_dice) and draw(st.booleans()):
            value = draw(values_of(token))
            if value != token.default_for(method):
                values[token.form] = value
    if method == "NACL" and "gaussian|svls" not in values:
        values.pop("sigma<x>", None)
    if "noda" in values:
        values.pop("nomirror", None)
    if values.get("lambda<x>") == 0:
        for form in METHODS[method].settings_by_token:
            if form != "lambda<x>":
                values.pop(form, None)
    if method == "CE" and with_dice and not values:
        values["adam"] = "adam"
    return Variant(method, with_dice, values)


@given(variants())
def test_every_variant_has_one_name_that_means_it(variant: Variant) -> None:
    assert len(variant.name) > MAX_NAME_LENGTH or parse(variant.name) == variant
    assert variant.name.isidentifier() and "__" not in variant.name


def test_every_token_sets_an_attribute_of_the_trainer_or_a_setting_of_a_loss() -> None:
    documented = CalibrationTrainer.__annotations__
    for token in TOKENS:
        if token.attribute is None:
            assert token.methods, token.form
        else:
            assert token.attribute in documented, token.form
            assert (
                getattr(CalibrationTrainer, token.attribute) != token.attribute_value
                or token.has_number
            )
    forms = {token.form for token in TOKENS}
    for method in METHODS.values():
        assert set(method.settings_by_token) <= forms, method.name


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("NACL", {}),
        (
            "NACL_lambda0p2_k5_gaussian_sigma2_l2_100epochs_adam",
            {
                "lambda<x>": 0.2,
                "k<n>": 5,
                "gaussian|svls": "gaussian",
                "sigma<x>": 2.0,
                "l2": "l2",
                "<n>epochs": 100,
                "adam": "adam",
            },
        ),
        (
            "CE_50iters_train12p5_noda_seed2",
            {"<n>iters": 50, "train<x>": 12.5, "noda": "noda", "seed<n>": 2},
        ),
    ],
)
def test_names(name: str, values: dict) -> None:
    variant = Variant(name.split("_")[0], values=values)
    assert parse(PREFIX + name) == variant
    assert variant.name == PREFIX + name


def test_tokens_are_attributes_of_the_class_or_settings_of_its_loss() -> None:
    variant = parse(f"{PREFIX}DiceNACL_anneal_lambda0p2_l2_40epochs_nomirror")
    assert variant.with_dice
    assert variant.loss_settings == {"penalty_weight": 0.2, "penalty": "l2"}
    assert variant.class_attributes == {"anneal_dice": True, "epochs": 40, "mirroring": False}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("NACL_lambda0p2_lambda0p3", "'lambda0p3' is no token of it"),
        ("NACL_lambda0p20", "'lambda0p20' is no token of it"),
        ("NACL_adam\n", "'adam\\n' is no token of it"),
        ("CE_1\u0662epochs", "'1\u0662epochs' is no token of it"),
        ("NACL_lambda0p1", "lambda 0.1 is the default"),
        ("CE_noda_nomirror", "'nomirror': with 'noda' there is no mirroring either"),
        ("NACL_k4", "'k4': a neighbourhood needs a centre"),
        ("NACL_sigma2", "'sigma' needs 'gaussian' or 'svls'"),
        ("NACL_lambda0_k5", "'lambda0': there is no penalty"),
        ("NACL_lambda123456789012345678901234567890", "too many digits"),
    ],
)
def test_a_bad_token_is_an_error_in_one_line(name: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(PREFIX + name)
    message = str(caught.value)
    assert reason in message
    assert repr(PREFIX + name) in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "end"),
    [
        (
            "NACL_lambda0p1_50epochs",
            "lambda 0.1 is the default, which names leave out; type nnUNetTrainerNACL_50epochs",
        ),
        (
            "NACL_lambda0p1_1000epochs",
            "lambda 0.1 and 1000 epochs are defaults, which names leave out; type"
            " nnUNetTrainerNACL",
        ),
        (
            "DiceCE_1000epochs",
            "1000 epochs is the default, which names leave out; type nnUNetTrainer",
        ),
        ("NACL_lambda0.2", "; did you mean nnUNetTrainerNACL_lambda0p2?"),
        ("NACL_adam_lambda0p2", "; did you mean nnUNetTrainerNACL_lambda0p2_adam?"),
        ("CE_2epoch", "; did you mean nnUNetTrainerCE_2epochs?"),
        ("NACL_margin5", "; did you mean nnUNetTrainerNACL_m5?"),
        ("NACL_lambda_0.2", "; did you mean nnUNetTrainerNACL_lambda0p2?"),
        ("NACL_0.2", "; did you mean nnUNetTrainerNACL_lambda0p2?"),
        ("LS_0.2", "; did you mean nnUNetTrainerLS_alpha0p2?"),
        ("CE_lambda0p2", "CE has no lambda (NACL, MbLS, ACE have); did you mean nnUNetTrainerCE?"),
        ("ECP_gamma2", "ECP has no gamma (Focal has); did you mean nnUNetTrainerECP?"),
        (
            "NACL_anneal",
            "'anneal' says nothing without a Dice term; did you mean nnUNetTrainerDiceNACL_anneal?",
        ),
        (
            "DiceNACL_plainstart",
            "'plainstart' says nothing beside a Dice term; did you mean nnUNetTrainerDiceNACL?",
        ),
        ("NACL_lr3", "; `nnunet_nacl trainers` has the grammar"),
    ],
)
def test_the_error_ends_in_the_name_that_was_probably_meant(name: str, end: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(PREFIX + name)
    assert str(caught.value).endswith(end)
    meant = re.search(rf"{PREFIX}\w*", end)
    assert meant is None or meant[0] == PREFIX or parse(meant[0]) is not None


def test_names_have_a_greatest_length_and_stock_has_its_own() -> None:
    with pytest.raises(ValueError, match="nnU-Net's own nnUNetTrainer: use that name"):
        parse("nnUNetTrainerDiceCE")
    with pytest.raises(ValueError, match="128"):
        parse("nnUNetTrainerNACL_lambda0p".ljust(MAX_NAME_LENGTH, "0") + "3")
    values = {
        "lambda<x>": 0.25,
        "k<n>": 5,
        "gaussian|svls": "gaussian",
        "sigma<x>": 1.5,
        "m<x>": 5.0,
    }
    values |= {word: word for word in ("anneal", "l2", "softmax", "sum", "adam", "noda")}
    values |= {"<n>epochs": 10000, "<n>iters": 10000, "train<x>": 12.5, "seed<n>": 10}
    longest_of_all = Variant("NACL", True, values)
    assert (
        parse(longest_of_all.name) == longest_of_all
        and 100 < len(longest_of_all.name) <= MAX_NAME_LENGTH == 128
    )


@pytest.mark.parametrize(
    "name", ["", "nnUNetTrainer_250epochs", "nnUNetTrainerNACLs", "nnUNetTrainerNACL\n"]
)
def test_other_names_are_not_ours(name: str) -> None:
    assert parse(name) is None


def test_no_trainer_of_nnunet_is_taken_for_ours() -> None:
    # of the classes that nnU-Net's own search can find, read from its files without importing them
    names = set()
    for path in Path(nnunetv2.__path__[0], "training").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    assert {"nnUNetTrainer", "nnUNetTrainerDiceCELoss_noSmooth"} <= names and len(names) > 80
    assert [name for name in names if parse(name) is not None] == []


def test_the_grammars_own_example_is_a_name() -> None:
    (example,) = re.findall(r"^Example: (.*)$", grammar(), re.MULTILINE)
    assert parse(example) is not None
