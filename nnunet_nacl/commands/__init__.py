"""One function a command, each in a file of its name."""
