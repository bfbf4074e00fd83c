"""Recipes by name: where each lies, so that naming one imports only that one."""

from __future__ import annotations

RECIPES = {
    "tiny": "sweeps.recipes.tiny:tiny",
    "core": "sweeps.recipes.core:core",
}
"""Name -> ``module:function`` returning a RunSpec."""
