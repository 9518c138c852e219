"""The networks of the paper's experiments, each made from nnU-Net's plans; one file each."""
