"""What a reader is told of a case: its row of the review list, the reasons to look at it, and its files."""
