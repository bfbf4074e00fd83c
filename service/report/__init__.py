"""A report: one experiment as one HTML page, worked out from notes and store alone."""
