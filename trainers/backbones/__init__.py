"""The networks that a trainer's name can ask for instead of the plans': one file each, and the trainer's part."""

from __future__ import annotations

from nnunet_nacl_trainers.backbones.trainer import BackboneTrainer

__all__ = ["BackboneTrainer"]
