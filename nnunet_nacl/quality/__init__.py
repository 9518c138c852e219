"""Uncertainty of predictions: maps in the image's own geometry, and the list of the cases to look at first."""
