"""Measures any one-step student as the paper does: `python -m training.evaluate COMMAND`.

`generate` makes folders of images; `score`, `removal`, `report` and `alpha` read them. The only thing that both sides
share is the format of a folder (sets/manifest.py).
"""
