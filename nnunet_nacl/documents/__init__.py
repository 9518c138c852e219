"""The files that this package writes about cases, maps and comparisons."""
