"""The former name of `nnunet_nacl.registration`: startup files of editable installs that were made before still name it."""
