"""What became of a list: the reader's marks and corrections, and how right it was."""
