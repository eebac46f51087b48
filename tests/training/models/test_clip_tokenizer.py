"""The offline tokenizer is CLIP's."""

import pytest
from transformers import CLIPTokenizer

from training.models.clip_tokenizer import clip_tokenizer

TEXTS = ["", "a red ring on the left, white background", "Plus sign, CYAN; don't ünïcode 漢字 12345 <3", "word " * 100]


def ids(tokenizer, text):
    return tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids


def test_known_ids():
    tokenizer = clip_tokenizer()
    assert len(tokenizer) == 49408
    assert ids(tokenizer, "")[:3] == [49406, 49407, 49407]
    assert ids(tokenizer, "a photo of a cat")[:7] == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_save_and_load_round_trip(tmp_path):
    clip_tokenizer().save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    assert again.model_max_length == 77
    for text in TEXTS:
        assert ids(again, text) == ids(clip_tokenizer(), text)


@pytest.mark.host
def test_ids_equal_the_hosts():
    sd1_clip = pytest.importorskip("comfy.sd1_clip")
    host = sd1_clip.SDTokenizer()
    for text in TEXTS[:3]:
        rows = host.tokenize_with_weights(text.replace("<3", ""))
        assert [token for token, _ in rows[0]] == ids(clip_tokenizer(), text.replace("<3", ""))
