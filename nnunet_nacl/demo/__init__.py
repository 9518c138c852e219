"""`nnunet_nacl demo`: from a Decathlon task to calibrated models, a comparison and a list, by
commands that it shows.

`plan.py` works out what the demo does, `steps.py` does it, `processes.py` runs the commands side by
side, `small_configuration.py` makes a network that a CPU can train, `virtual_brains.py` makes data.
"""
