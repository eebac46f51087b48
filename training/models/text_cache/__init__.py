"""Text embeddings on disk: T5 encodes each prompt once, and training needs neither its 10 GB of memory nor its time.

`python -m training.prompts.encode --recipe NAME prompts.text_cache=FOLDER` builds a cache: a folder of shards
(shard.py) and a manifest (manifest.py), which is written last, so a folder without a manifest is unfinished.
"""

from training.models.text_cache.cache import TextCache

__all__ = ["TextCache"]
