"""Recipes by name: where each lies, so that naming one imports only that one."""

from __future__ import annotations

RECIPES = {
    "tiny": "sweeps.recipes.tiny:tiny",
    "tiny_ttt": "sweeps.recipes.tiny_ttt:tiny_ttt",
    "tiny_ttt_slot": "sweeps.recipes.tiny_ttt_slot:tiny_ttt_slot",
    "tiny_prequant": "sweeps.recipes.tiny_prequant:tiny_prequant",
    "small": "sweeps.recipes.small:small",
    "core": "sweeps.recipes.core:core",
}
"""Name -> ``module:function`` returning a RunSpec."""
