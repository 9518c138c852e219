"""Trainers whose names have tokens: subclasses with other class attributes, made when they are asked for."""

from __future__ import annotations

from importlib import import_module

from nnunet_nacl.methods import METHODS, STOCK_NAME
from nnunet_nacl.registration.grammar import Variant, parse
from nnunet_nacl_trainers.base import CalibrationTrainer

_PACKAGE = __package__ or __name__
_variants: dict[str, type[CalibrationTrainer]] = {}  # so that a name is always the same class


def get_trainer(name: str) -> type[CalibrationTrainer] | None:
    """The trainer class of a name, always the same one; None if the name is none of ours.

    Raises:
        ValueError: The method is one of ours, a token of the name is not; the message holds the grammar.
    """
    if name in _variants:
        return _variants[name]
    variant = parse(name)
    if variant is None:
        return None
    if not variant.values:
        return _find_class(variant)
    _variants[name] = _make_subclass(name, variant)
    return _variants[name]


def _find_class(variant: Variant) -> type[CalibrationTrainer]:
    """The class in the file of the method's loss that a name without tokens stands for."""
    module = import_module(f"{_PACKAGE}.{METHODS[variant.method].function}")
    return getattr(module, variant.named_trainer)


def _make_subclass(name: str, variant: Variant) -> type[CalibrationTrainer]:
    """A subclass of the named trainer, with what the tokens say for attributes."""
    if variant.named_trainer == STOCK_NAME:  # without tokens that is nnU-Net's own trainer
        parent = _find_class(Variant(variant.method))
        attributes: dict[str, object] = {"with_dice": True}
    else:
        parent = _find_class(variant)
        attributes = {}
    attributes.update(variant.class_attributes)
    attributes.update(
        loss_settings=variant.loss_settings,
        __module__=_PACKAGE,
        __doc__=f"Trains with {variant.meaning}.",
    )
    return type(name, (parent,), attributes)
