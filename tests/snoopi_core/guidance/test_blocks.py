import pytest

from snoopi_core.guidance.blocks import Block, describe_blocks, parse_blocks

SD15 = [
    *(Block("input", index) for index in (1, 2, 4, 5, 7, 8)),
    Block("middle", 0),
    *(Block("output", index) for index in range(3, 12)),
]


def names(text):
    return [f"{block.group}.{block.index}" for block in SD15 if block in parse_blocks(text, SD15)]


def test_all():
    assert parse_blocks("all", SD15) == parse_blocks("input, middle, output", SD15) == frozenset(SD15)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("middle", ["middle.0"]),
        ("middle.0", ["middle.0"]),
        ("input.1, output.4-6", ["input.1", "output.4", "output.5", "output.6"]),
        ("input.1 output.4", ["input.1", "output.4"]),
        ("INPUT.8,input.8", ["input.8"]),
        ("input.2-7", ["input.2", "input.4", "input.5", "input.7"]),
        ("output.0-3", ["output.3"]),
        ("output.10-99", ["output.10", "output.11"]),
        ("output.10-" + "9" * 5000, ["output.10", "output.11"]),
        ("output." + "0" * 5000 + "3", ["output.3"]),
    ],
)
def test_words_and_ranges(text, expected):
    assert names(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "blocks is empty"),
        (" , ", "blocks is empty"),
        ("in", "no cross-attention in 'in'"),
        ("input.3", "no cross-attention in 'input.3'"),
        ("output.6-4", "no cross-attention in 'output.6-4'"),
        ("output.", "'output.' is not a block"),
        ("input.1-", "'input.1-' is not a block"),
        ("4-8", "'4-8' is not a block"),
        ("output." + "9" * 5000, r"no cross-attention in 'output\.9{53}\.\.\.'"),
        ("output.\N{ARABIC-INDIC DIGIT THREE}", "is not a block"),
        ("input.-1", "'input.-1' is not a block"),
    ],
)
def test_errors_list_what_there_is(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_blocks(text, SD15)
    assert "input.1-2, input.4-5, input.7-8, middle.0, output.3-11" in str(caught.value)


def test_a_description_can_be_read_back():
    assert parse_blocks(describe_blocks(SD15), SD15) == frozenset(SD15)
