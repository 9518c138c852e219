"""Everything that reads nnU-Net's folders, models, images and logits."""
