"""The former name of `nnunet_nacl.registration`, which startup files of older editable installs
still import."""
