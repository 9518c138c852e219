"""nnU-Net's folders, models, images and logits: no other package reads them."""
