"""A real Chromium that is not let out of this machine, and the pages it opens."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Debian's package chromium")
    with sync_api.sync_playwright() as playwright:
        # Its own services (updates, translation) would ask servers elsewhere.
        found = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        yield found
        found.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page; at the end none may have had an error in its console or asked for anything elsewhere."""
    contexts: list[Any] = []
    troubles: list[str] = []

    def check(request: Any) -> None:
        if not request.url.startswith(("file://", "http://127.0.0.1:", "data:", "blob:")):
            troubles.append(f"asked for {request.url}")

    def open_page(url: str | Path, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("request", check)
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("console", lambda said: troubles.append(f"console: {said.text}") if said.type == "error" else None)
        page.on("dialog", lambda dialog: (troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(url.absolute().as_uri() if isinstance(url, Path) else url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not troubles
