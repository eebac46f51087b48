"""The paper's measurements, for any student: `python -m training.evaluate generate | score | removal | report | alpha`.

`generate` makes images; the others judge them, and meet it only in manifest.py's format.
"""
