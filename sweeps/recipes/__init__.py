"""Recipes by name: where each lies, so that naming one imports only that one."""

from __future__ import annotations

RECIPES = {
    "tiny": "sweeps.recipes.tiny:tiny",
    "tiny_ttt": "sweeps.recipes.tiny_ttt:tiny_ttt",
    "tiny_ttt_slot": "sweeps.recipes.tiny_ttt_slot:tiny_ttt_slot",
    "tiny_prequant": "sweeps.recipes.tiny_prequant:tiny_prequant",
    "small": "sweeps.recipes.small:small",
    "core": "sweeps.recipes.core:core",
    "pr1303": "sweeps.recipes.pr1303:pr1303",
    "pr1303_tiny": "sweeps.recipes.pr1303:pr1303_tiny",
    "pr1313": "sweeps.recipes.pr1313:pr1313",
    "pr1313_tiny": "sweeps.recipes.pr1313:pr1313_tiny",
    "pr1488": "sweeps.recipes.pr1488:pr1488",
    "pr1488_tiny": "sweeps.recipes.pr1488:pr1488_tiny",
    "pr1176": "sweeps.recipes.pr1176:pr1176",
    "pr1176_tiny": "sweeps.recipes.pr1176:pr1176_tiny",
    "pr1423": "sweeps.recipes.pr1423:pr1423",
    "pr1423_tiny": "sweeps.recipes.pr1423:pr1423_tiny",
    "pr1423_as_claimed": "sweeps.recipes.pr1423:pr1423_as_claimed",
    "pr1423_as_claimed_tiny": "sweeps.recipes.pr1423:pr1423_as_claimed_tiny",
    "pr1394": "sweeps.recipes.pr1394:pr1394",
    "pr1394_tiny": "sweeps.recipes.pr1394:pr1394_tiny",
    "pr1493": "sweeps.recipes.pr1493:pr1493",
    "pr1493_tiny": "sweeps.recipes.pr1493:pr1493_tiny",
    "naive": "sweeps.recipes.naive:naive",
    "naive_tiny": "sweeps.recipes.naive:naive_tiny",
    "house": "sweeps.recipes.house:house",
    "house_tiny": "sweeps.recipes.house:house_tiny",
    "naive_cpu": "sweeps.recipes.naive:naive_cpu",
    "house_cpu": "sweeps.recipes.house:house_cpu",
}
"""Name -> ``module:function`` returning a RunSpec."""
