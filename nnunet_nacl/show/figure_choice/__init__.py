"""Which figures show a comparison, with their words: numbers from `comparison`, drawn by `figures`."""
