"""Cases: the only reader and writer of nnU-Net's files."""
