"""Passes on to `nnunet_nacl.registration._startup`; startup files of older editable installs import
this module."""

from nnunet_nacl.registration._startup import register

__all__ = ["register"]
