"""The review list: scores, flags and reasons of each scan, its files and pages, and what readers
found."""
