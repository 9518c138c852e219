"""Data sets x configurations x folds x trainers x seeds, as a workflow: one file says which, Snakemake runs it."""
