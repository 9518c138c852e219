"""The mathematics of calibration maps: log-odds, fit and cross-fit, on arrays.

Read the files in this order, since each uses the symbols of those before it:

- ``log_odds``: the log-odds u and their total v.
- ``log_odds_map``: maps of u and v, with the coefficients a_ckj, g_ck and b_ck.
- ``voxels``: the voxels that a map is fitted to, by the label that the network chose.
- ``fitting``: the fit of one map, of losses that are linear in their logits.
- ``crossfit``: fits without each fold, by which the form of the map is chosen.
"""
