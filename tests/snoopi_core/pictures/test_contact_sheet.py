"""The page of pictures: every picture is on it, under its label, at a readable size."""

from __future__ import annotations

import pytest
import torch

from snoopi_core.pictures.contact_sheet import MAX_COLUMNS, MAX_PIXELS, MAX_ROWS, MAX_SIDE, MIN_SIDE, contact_sheet

INK = 0.3  # darker than this is text, where the pictures are bright


def plain(count: int, rows: int = 1, height: int = 64, width: int = 64) -> list[torch.Tensor]:
    """Pictures of one bright colour each, no two alike."""
    shades = torch.linspace(0.45, 0.95, count * rows).reshape(count, rows, 1, 1, 1)
    return list(torch.cat([shades, 1.4 - shades, shades * 0 + 0.8], -1).expand(count, rows, height, width, 3))


def found(sheet: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """Mask of this colour on the page, (H, W)."""
    return ((sheet[0] - colour).abs() < 1.5 / 255).all(-1)


def box(where: torch.Tensor) -> tuple[int, int, int, int]:
    """left, top, width, height of the masked part."""
    rows, columns = where.any(1).nonzero(), where.any(0).nonzero()
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


@pytest.mark.parametrize(
    ("count", "rows", "size", "shown"),
    [
        (1, 1, (64, 64), (256, 256)),
        (5, 3, (48, 80), (192, 320)),
        (6, 1, (300, 400), (300, 400)),
        (4, 1, (1024, 768), (512, 384)),
        (11, 2, (64, 64), (256, 256)),
    ],
)
def test_every_picture_is_there_once_in_order(count, rows, size, shown):
    pictures = plain(count, rows, *size)
    sheet = contact_sheet(pictures, [f"alpha {n}" for n in range(count)])
    assert sheet.shape[0] == 1 and sheet.shape[3] == 3 and sheet.dtype == torch.float32
    boxes = [[box(found(sheet, picture[0, 0])) for picture in several] for several in pictures]
    assert all((height, width) == shown for column in boxes for _, _, width, height in column)
    assert MIN_SIDE <= max(shown) <= MAX_SIDE
    # Down the page the pictures of a label; the labels from left to right, in bands.
    for column in boxes:
        assert len({left for left, *_ in column}) == 1
        assert [top for _, top, *_ in column] == sorted({top for _, top, *_ in column})
    order = [(column[0][1], column[0][0]) for column in boxes]
    assert order == sorted(set(order))
    assert len({left for _, left in order}) <= MAX_COLUMNS


@pytest.mark.parametrize("size", [(64, 64), (512, 512), (640, 160), (2048, 2048)])
def test_a_label_is_above_its_picture_and_meets_no_other(size):
    pictures = plain(4, 1, *size)
    labels = ["alpha 0", "alpha 0.123456789", "", "alpha 1"]
    sheet = contact_sheet(pictures, labels)
    boxes = [box(found(sheet, several[0, 0, 0])) for several in pictures]
    pitch = boxes[1][0] - boxes[0][0]
    for label, (left, top, width, _) in zip(labels, boxes, strict=True):
        start = left + width // 2 - pitch // 2
        dark = (sheet[0, max(0, top - 60) : top, start : start + pitch] < INK).all(-1)
        assert bool(dark.any()) == bool(label)
        if label:  # with room on both sides
            columns = dark.any(0).nonzero()
            assert int(columns[0]) > 0 and int(columns[-1]) < pitch - 1
            assert int(dark.any(1).sum()) >= 9, "too small to read"


def test_of_many_pictures_some_are_shown_with_their_numbers():
    pictures = plain(2, 33, 16, 16)
    sheet = contact_sheet(pictures, ["a", "b"])
    shown = [n for n, picture in enumerate(pictures[0]) if found(sheet, picture[0, 0]).any()]
    assert len(shown) == MAX_ROWS and shown[0] == 0 and shown[-1] == 32


def test_many_pictures_are_smaller_so_that_the_page_stays_one():
    """As large as it can be: the most alphas, and the most rows that are shown."""
    pictures = plain(32, MAX_ROWS, 512, 384)
    pictures[0] = torch.zeros_like(pictures[0])
    pictures[0][0] = red = torch.tensor([1.0, 0.0, 0.0])
    sheet = contact_sheet(pictures, [f"alpha {n}" for n in range(32)])
    _, _, width, height = box(found(sheet, red))
    assert 0.9 * MAX_PIXELS < 32 * MAX_ROWS * width * height <= MAX_PIXELS * 1.01
    assert sheet.nbytes < 300e6  # as the help page says
    assert height / width == pytest.approx(512 / 384, rel=0.01)


def test_values_out_of_range_are_cut_off():
    sheet = contact_sheet([torch.full((1, 8, 8, 3), 2.0), torch.full((1, 8, 8, 3), -1.0)], ["", ""])
    assert float(sheet.max()) == 1.0 and float(sheet.min()) == 0.0


@pytest.mark.parametrize(("count", "rows"), [(3, 1), (6, 2)])
def test_a_mark_frames_one_column_and_covers_no_picture(count, rows):
    pictures = plain(count, rows)
    labels = [f"alpha {n}" for n in range(count)]
    without = contact_sheet(pictures, labels)
    sheet = contact_sheet(pictures, labels, marked=1, note="Alpha 1 is the one to start with. " * 3)
    for column in pictures:
        for picture in column:
            assert box(found(sheet, picture[0, 0])) == box(found(without, picture[0, 0]))
    green = found(sheet, torch.tensor([0x1A, 0x7F, 0x37]) / 255)[: without.shape[1]]
    left, top, width, _ = box(found(sheet, pictures[1][0, 0, 0]))
    assert green[top, left - 2] and green[top, left + width + 1] and green[top - 2, left + width // 2]
    assert sheet.shape[1] > without.shape[1] and sheet.shape[2] == without.shape[2]
