"""What cases teach about others: Dice, presence, flags, sensitive labels, unlike scans."""
