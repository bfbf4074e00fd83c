"""From weights to the artifact and back: rounding, codecs, the container."""
