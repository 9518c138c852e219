"""What a trainer's name stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nnunet_nacl.methods import METHODS, PREFIX
from nnunet_nacl.registration.tokens import TOKENS, Token, TokenValue

MAX_NAME_LENGTH = 128
"""A result folder is named after trainer, plans and configuration, within the 255 bytes of file
systems."""


@dataclass(frozen=True)
class Variant:
    """What a trainer's name stands for.

    Attributes:
        method: One of ``METHODS``.
        with_dice: Whether nnU-Net's soft Dice term is added.
        values: Values of the tokens by their forms; what is absent has the method's, or nnU-Net's,
            default.

    """

    method: str
    with_dice: bool = False
    values: Mapping[str, TokenValue] = field(default_factory=dict)

    @property
    def tokens(self) -> list[Token]:
        """The tokens of its name, in their order."""
        return [token for token in TOKENS if token.form in self.values]

    @property
    def named_trainer(self) -> str:
        """The trainer whose settings the tokens change."""
        if self.with_dice:
            return f"{PREFIX}Dice{self.method}"
        return f"{PREFIX}{self.method}"

    @property
    def name(self) -> str:
        """The trainer's name; :func:`~nnunet_nacl.registration.grammar.parse` knows whether there
        is such a trainer."""
        parts = [token.write(self.values[token.form]) for token in self.tokens]
        return "_".join([self.named_trainer, *parts])

    @property
    def meaning(self) -> str:
        """What its loss is, in words."""
        meaning = METHODS[self.method].meaning
        if self.with_dice:
            meaning += ", plus nnU-Net's soft Dice term"
        if "anneal" in self.values:
            meaning += " with a falling weight"
        return meaning

    @property
    def loss_settings(self) -> dict[str, TokenValue]:
        """The settings of the loss that the name spells out; the loss's own defaults hold for the
        others."""
        names = METHODS[self.method].settings_by_token
        return {names[form]: value for form, value in self.values.items() if form in names}

    @property
    def class_attributes(self) -> dict[str, TokenValue]:
        """The attributes of the trainer's class that the name spells out."""
        attributes: dict[str, TokenValue] = {}
        for token in self.tokens:
            if token.attribute is None:
                continue
            if token.has_number:
                attributes[token.attribute] = self.values[token.form]
            else:
                attributes[token.attribute] = token.attribute_value
        return attributes
