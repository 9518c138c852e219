"""What cases teach about others: predicted Dice, presence, flags, sensitive labels, unlike scans,
on frames."""
