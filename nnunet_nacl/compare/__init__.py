"""Tables of several models: paired statistics, figures and a page."""
