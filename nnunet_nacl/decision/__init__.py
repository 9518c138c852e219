"""The segmentation with the highest expected Dice, and how high that is."""
