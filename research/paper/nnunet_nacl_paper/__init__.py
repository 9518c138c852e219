"""Repeats the NACL paper (Murugesan et al., Medical Image Analysis 101, 2025) with the public
package nnunet_nacl.

Its six data sets, its networks as trainers of nnU-Net, its evaluation, its ranks and figures.
Nothing in nnunet_nacl knows this package; what it reads of that are documents (calibration.json,
comparison.json) and its public functions.
"""
