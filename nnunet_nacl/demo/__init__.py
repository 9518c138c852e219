"""`nnunet_nacl demo`: from a Decathlon task to calibrated models and a comparison, with nnU-Net's own commands."""
