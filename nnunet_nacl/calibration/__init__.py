"""The mathematics of calibration maps: log-odds, fit and cross-fit, on arrays."""
