"""Makes nnU-Net find the trainers of this package, through an environment variable that is set when Python starts.

nnU-Net (2.8.0 and later) looks trainers up in its own package, then in the folders that `nnUNet_extTrainer` names.
A startup file in site-packages appends our *bridge folder* to that variable; the one module there resolves trainer
names by the entry points of the group `nnunetv2.trainers` and by the grammar of our names.

This module is imported whenever Python starts: it may import nothing but `os`, which is loaded by then anyway.
"""

import os

ENVIRONMENT_VARIABLE = "nnUNet_extTrainer"
ENTRY_POINT_GROUP = "nnunetv2.trainers"
TRAINERS_PACKAGE = "nnunet_nacl_trainers"


def bridge_folder():
    """The folder that nnU-Net has to search, as an absolute path without a trailing separator."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "_bridge")
