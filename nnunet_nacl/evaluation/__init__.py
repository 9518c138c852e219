"""Compares several models: paired statistics, tables, figures and a page."""
