"""Figures, one a file, drawn from numbers; `layout`, `style` and `values` hold what they share."""
