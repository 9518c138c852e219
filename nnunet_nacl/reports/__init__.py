"""What tables, figures and pages have in common."""
