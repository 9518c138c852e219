"""Errors, files, JSON, CSV and images, and what tables, figures and pages have in common."""
