"""From a challenge's folder, as it is distributed, to one of nnU-Net's raw data sets with the
paper's preparation."""
