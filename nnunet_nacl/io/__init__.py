"""The only reader and writer of nnU-Net's files: what a case is, and where its parts lie."""
