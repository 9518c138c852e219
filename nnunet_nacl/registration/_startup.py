"""Puts the bridge folder into `nnUNet_extTrainer`; importing this module does so.

Python runs it at every start, by the file nnunet_nacl.pth or, from 3.15 on, nnunet_nacl.start in
site-packages. So it does next to nothing, imports no more than the package's own `__init__` files,
and never raises.
"""

import os

from nnunet_nacl.registration import ENVIRONMENT_VARIABLE, bridge_folder


def register():
    """Puts the bridge folder last in the variable: nnU-Net searches the user's own folders first.

    Child processes inherit the variable and run this again, and so does Python 3.15 by importing
    the module and then calling this function: the folder stands in it once.
    """
    try:
        bridge = bridge_folder()
        if os.pathsep in bridge:  # would be read as two folders
            return
        value = os.environ.get(ENVIRONMENT_VARIABLE, "")
        folders = [folder for folder in value.split(os.pathsep) if folder and folder != bridge]
        os.environ[ENVIRONMENT_VARIABLE] = os.pathsep.join([*folders, bridge])
    except Exception:
        pass  # an unregistered trainer is a nuisance, a Python that does not start is a disaster


register()
