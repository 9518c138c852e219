"""A case, the measuring of it, and the record that is kept of it."""
