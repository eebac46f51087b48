"""The front end's template browser. It shows 24 cards at first, and more when one scrolls to its end."""

from __future__ import annotations

from live_pack import FOLDER
from playwright.sync_api import Page
from templates import NAMES

CARD = '[data-testid="template-workflow-{}"]'
_ANY = '[data-testid^="template-workflow-"]'
_ONLY = f"""([names, least]) => {{
  const cards = [...document.querySelectorAll('{_ANY}')];
  const shown = cards.map(card => card.dataset.testid.slice('template-workflow-'.length));
  return shown.length >= least && shown.every(name => names.includes(name));
}}"""
_MORE = f"count => document.querySelectorAll('{_ANY}').length > count"
_HAS_PICTURE = "card => document.querySelector(card + ' img')?.naturalWidth > 0"
_FIRST = min(24, len(NAMES))


def choose_pack(page: Page) -> None:
    """In the open template browser, choose this pack's section; returns when its cards, and only they, are shown."""
    page.get_by_text(FOLDER, exact=True).click()
    page.wait_for_function(_ONLY, arg=[NAMES, _FIRST])


def search(page: Page, words: str) -> str:
    """Type into the search of the open template browser; returns the first card's name, once only this pack's are
    shown again."""
    box = page.get_by_placeholder("Search").last
    box.fill("#####")  # the newest front end finds words that are only similar, too
    page.wait_for_function(_ONLY, arg=[[], 0])
    box.fill(words)
    page.wait_for_function(_ONLY, arg=[NAMES, _FIRST])
    return page.locator(_ANY).first.get_attribute("data-testid").removeprefix(CARD.partition('"')[2].partition("{")[0])


def show_card(page: Page, name: str) -> None:
    """Scroll to a template's card and wait for its picture, which loads when it becomes visible."""
    card = CARD.format(name)
    while not page.locator(card).count():
        shown = page.locator(_ANY).count()
        page.locator(_ANY).last.hover()
        page.mouse.wheel(0, 10_000)  # what loads more cards is below the last one
        page.wait_for_function(_MORE, arg=shown)
    page.locator(card).scroll_into_view_if_needed()
    page.wait_for_function(_HAS_PICTURE, arg=card)


def choose_template(page: Page, name: str) -> None:
    """Choose this pack's section and click a template. Cards are replaced until the section's pictures are loaded."""
    choose_pack(page)
    show_card(page, name)
    page.locator(CARD.format(name)).click()
