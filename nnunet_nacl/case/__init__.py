"""One case: its arrays, what is measured of it, and the record that is kept."""
