"""`nnunet_nacl demo`: from a Decathlon task to a calibration table, with nnU-Net's own commands."""
