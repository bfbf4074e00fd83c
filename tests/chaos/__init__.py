"""Runs struck at random, and what must come of them all the same: ``python -m tests.chaos``, docs/reliability.md."""
