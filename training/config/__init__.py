"""Settings of a run: layered from recipes (layers.py), and checked before the run starts (checks.py)."""

from training.config.errors import RecipeError
from training.config.layers import load_recipe, recipe_names, split_words
from training.config.loras import split_strength
from training.config.recipe import Recipe
from training.config.settings import Clip, Prompts, Teacher
from training.config.sources import ROOT, WORLDS, find_file, looks_like_hub_id, package_versions

__all__ = [
    "ROOT",
    "WORLDS",
    "Clip",
    "Prompts",
    "Recipe",
    "RecipeError",
    "Teacher",
    "find_file",
    "load_recipe",
    "looks_like_hub_id",
    "package_versions",
    "recipe_names",
    "split_strength",
    "split_words",
]
