"""Does a scorer keep the rules? Flips of the validation stream, played through the real scorer on a small network."""
