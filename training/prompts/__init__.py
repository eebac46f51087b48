"""Endless prompts from the small world of shapes, files, folders, globs or data sets on the hub.

Nothing is copied, and little is held in memory. The position is a small dict, so a resumed run continues with the same
prompts in the same order as an uninterrupted one. In a distributed run every process reads the same stream and takes
its own rows of each batch.
"""

from training.prompts.open import open_prompts, recipe_prompts
from training.prompts.source import CountTokens, PromptSource

__all__ = ["CountTokens", "PromptSource", "open_prompts", "recipe_prompts"]
