"""Muon, AdamW groups, schedules, weight averaging."""
