"""The front end's template browser."""

from __future__ import annotations

from live_pack import FOLDER
from playwright.sync_api import Page
from templates import NAMES

CARD = '[data-testid="template-workflow-{}"]'
_COUNT = "count => document.querySelectorAll('[data-testid^=\"template-workflow-\"]').length === count"
_HAS_PICTURE = "card => document.querySelector(card + ' img')?.naturalWidth > 0"


def choose_pack(page: Page) -> None:
    """In the open template browser, choose this pack's section; returns when exactly its cards are shown."""
    page.get_by_text(FOLDER, exact=True).click()
    page.wait_for_function(_COUNT, arg=len(NAMES))


def search(page: Page, words: str) -> None:
    """Type into the search of the open template browser; returns once all cards of this pack are shown again."""
    box = page.get_by_placeholder("Search").last
    box.fill("no template is called so")
    page.wait_for_function(_COUNT, arg=0)
    box.fill(words)
    page.wait_for_function(_COUNT, arg=len(NAMES))


def show_card(page: Page, name: str) -> None:
    """Scroll to a template's card and wait for its picture, which loads when it becomes visible."""
    card = CARD.format(name)
    page.locator(card).scroll_into_view_if_needed()
    page.wait_for_function(_HAS_PICTURE, arg=card)


def choose_template(page: Page, name: str) -> None:
    """Choose this pack's section and click a template. Cards are replaced until the section's pictures are loaded."""
    choose_pack(page)
    show_card(page, name)
    page.locator(CARD.format(name)).click()
