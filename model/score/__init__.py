"""Bits per byte on validation text: window plans, sliding evaluation, SLOT."""
