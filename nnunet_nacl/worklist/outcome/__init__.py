"""What became of a list: the reader's marks and corrections, and what they say of its promises."""
