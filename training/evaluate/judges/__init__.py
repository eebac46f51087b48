"""Judges decide for each image whether the negative prompt has removed what it names: CLIP, a plug-in, or people.

A judge sees the images and the pair of prompts that they were made for, never the method. A plug-in is a function,
named on the command line as package.module:function:

    def judge(pictures: list[PIL.Image.Image], pair: Pair) -> list[Verdict]
"""

from training.evaluate.judges.verdict import Verdict

__all__ = ["Verdict"]
