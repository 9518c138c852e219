"""Everything that is fitted to held-out cases, on arrays and tables.

The calibration map, in the order in which the files use each other's symbols:

- ``log_odds``: the log-odds u and their total v.
- ``log_odds_map``: maps of u and v, with the coefficients a_ckj, g_ck and b_ck.
- ``voxels``: the voxels that a map is fitted to, by the label that the network chose.
- ``fitting``: the fit of one map, of losses that are linear in their logits.
- ``crossfit``: fits without each fold, by which the form of the map is chosen.

What cases teach about other scans (``learned_quality`` holds all of it): predicted Dice and its
``intervals``, ``presence`` of a structure, ``flags`` and ``recall`` with ``risk_control``, and what
makes a scan or a batch ``unlike`` them.
"""
