"""Appends the bridge folder to `nnUNet_extTrainer`; importing this module does so.

Python runs it at every start, by the file nnunet_nacl.pth or, from 3.15 on, nnunet_nacl.start in site-packages. So
it does next to nothing, imports no more than the package's own `__init__` files, and never raises.
"""

import os

from nnunet_nacl.registration import ENVIRONMENT_VARIABLE, bridge_folder


def register():
    """Appends the bridge folder to the variable, behind the user's own folders, unless it is there already.

    Child processes inherit the variable and run this again, and so does Python 3.15 by importing the module and
    then calling this function: the folder is never entered twice.
    """
    try:
        folder = bridge_folder()
        if os.pathsep in folder:  # would be read as two folders
            return
        value = os.environ.get(ENVIRONMENT_VARIABLE, "")
        if folder not in value.split(os.pathsep):
            os.environ[ENVIRONMENT_VARIABLE] = value + os.pathsep + folder if value else folder
    except Exception:  # an unregistered trainer is a nuisance, a Python that does not start is a disaster
        pass


register()
