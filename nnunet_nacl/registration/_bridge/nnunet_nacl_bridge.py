"""The one module that nnU-Net imports from the bridge folder when it looks for a trainer.

nnU-Net asks it for an attribute of the trainer's name and forgets the module after each look-up, so
it holds neither classes nor state. The folder's name may be inherited, through the environment
variable, by a Python that does not have the package: there, too, every look-up must end in
AttributeError and nothing else.
"""


def __getattr__(name):
    if not name.startswith("_"):
        try:
            from nnunet_nacl.registration.lookup import resolve
        except ImportError:
            pass
        else:
            return resolve(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
