"""The command line `nnunet_nacl`: one module per subcommand."""
