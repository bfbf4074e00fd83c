"""Timings of the hot paths, as paired ratios in one process: machines are noisy, ratios less so."""
