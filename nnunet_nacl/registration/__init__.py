"""How nnU-Net finds the trainers of this package: from a name to its class in five steps.

``nnUNetv2_train ... -tr nnUNetTrainerNACL`` hands nnU-Net a name. nnU-Net (2.8.0 and later) looks
for a class of that name in its own package, then in each folder that the environment variable
``nnUNet_extTrainer`` names.

1. **Python starts** (``_startup.py``). Startup files in site-packages, ``nnunet_nacl.pth`` and,
   from Python 3.15 on, ``nnunet_nacl.start`` (setup.py writes both), import ``_startup.py``, which
   puts our *bridge folder* behind the user's own folders in ``nnUNet_extTrainer``.
2. **nnU-Net searches** (``_bridge/nnunet_nacl_bridge.py``). It imports the one module in the bridge
   folder, and asks it for an attribute of the trainer's name. The module passes the name on. It
   holds no class itself, since nnU-Net forgets the module after each search.
3. **The name is looked up** (``lookup.py``). Trainers that installed packages registered as entry
   points of the group ``nnunetv2.trainers`` are asked first, ours before those of others. For
   ``nnUNetTrainerNACL`` that is the end: its entry point names the class.
4. **A name with tokens is read** (``grammar.py``; the tokens stand in ``tokens.py``).
   ``nnUNetTrainerNACL_lambda0p2_100epochs`` is a known trainer and settings: ``lambda0p2`` is a
   setting of the loss, ``100epochs`` an attribute of the trainer's class. A name of ours that
   cannot be read, or one that nearly is a trainer's, is an error in one line that ends in the name
   to type (``suggestions.py`` guesses it, by meaning first); any other name is left to nnU-Net,
   whose search goes on.
5. **The class** stands in ``nnunet_nacl_trainers`` (the folder ``trainers/`` of the sources):
   ``nacl.py`` holds ``class nnUNetTrainerNACL``, whose attribute ``loss_class`` is ``NACLLoss`` of
   ``nnunet_nacl/losses/nacl.py``. For a name with tokens that package makes a subclass of it
   with other attributes.

Prediction and all other commands take the same way, with the name that the checkpoint holds. A
class of the user's, in a folder of ``nnUNet_extTrainer`` or in an installed package, takes part
like any other: docs/losses.md, "Own trainers".

This module is imported whenever Python starts: it may import nothing but ``os``, which is loaded by
then anyway.
"""

import os

ENVIRONMENT_VARIABLE = "nnUNet_extTrainer"
ENTRY_POINT_GROUP = "nnunetv2.trainers"
TRAINERS_PACKAGE = "nnunet_nacl_trainers"


def bridge_folder():
    """The folder that nnU-Net has to search, as an absolute path without a trailing separator."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "_bridge")
