"""The web page as somebody uses it, in a real Chromium of the system."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Locator, Page, Response

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
    "user_agent": "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/130.0.0.0 Mobile Safari/537.36",
}
PATIENCE = 120_000
"""Milliseconds for what the server has to do."""


class Room:
    """One visit to the page at ``url``."""

    def __init__(self, browser: Browser, url: str, *, phone: bool = False, ready: str = "picture is repainted") -> None:
        self.phone = phone
        self.context: BrowserContext = browser.new_context(**(PHONE if phone else DESKTOP), permissions=["camera"])
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("response", self._answered)
        self.page.on("requestfailed", lambda request: self.complaints.append(f"{request.failure} {request.url}"))
        self.page.goto(url, wait_until="commit")
        self.text(ready).wait_for()
        self.settled()

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status} {response.url}")

    def text(self, words: str) -> Locator:
        return self.page.get_by_text(words).first

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def option(self, name: str) -> Locator:
        """A part of a segmented control."""
        return self.page.get_by_role("radio", name=name, exact=True).first

    def toggle(self, name: str) -> None:
        self.page.get_by_text(name, exact=True).click()
        self.settled()

    def settled(self) -> None:
        """Wait until the page's script has run and everything is drawn; a click takes a moment to start it."""
        for _ in range(2):
            self.page.wait_for_timeout(400)
            self.page.wait_for_function(
                """() => !document.querySelector('[data-testid=stSkeleton]')
                    && document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'"""
            )

    def upload(self, part: int, *files: Path | dict[str, object]) -> None:
        """Choose files in the page's first or second field for them."""
        self.page.locator("input[type=file]").nth(part).set_input_files(list(files))  # type: ignore[arg-type]
        self.settled()

    def fill_number(self, label: str, value: int) -> None:
        field = self.page.get_by_role("spinbutton", name=label)
        field.fill(str(value))
        field.press("Enter")
        self.settled()

    def stroke(self, *points: tuple[float, float]) -> None:
        """Paint on the canvas through points in shares of its width and height, with the mouse or a finger."""
        canvas = self.page.locator("canvas.upper-canvas").last
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box is not None
        path = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        path = [between(a, b, i / 8) for a, b in pairwise(path) for i in range(9)]
        if self.phone:
            touch = self.context.new_cdp_session(self.page)
            for i, (x, y) in enumerate(path):
                kind = "touchMove" if i else "touchStart"
                touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
            touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        else:
            self.page.mouse.move(*path[0])
            self.page.mouse.down()
            for x, y in path[1:]:
                self.page.mouse.move(x, y)
            self.page.mouse.up()
        self.page.wait_for_timeout(500)  # the canvas tells a moment later
        self.settled()

    def repainted(self) -> int:
        """The share of the picture that the page says is repainted, in percent."""
        return int(self.text("picture is repainted").inner_text().partition("%")[0])

    def overflow(self) -> int:
        """By how many pixels the page is wider than the screen."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))

    def shot(self, path: Path) -> None:
        """A picture of the whole page: the screen is made as high as it for a moment."""
        size = self.page.viewport_size
        assert size is not None
        height = self.page.locator("[data-testid=stMain]").evaluate("element => element.scrollHeight")
        self.page.set_viewport_size({"width": size["width"], "height": height})
        self.page.wait_for_timeout(300)
        self.page.screenshot(path=path)
        self.page.set_viewport_size(size)

    def leave(self) -> None:
        self.context.close()


def between(a: tuple[float, float], b: tuple[float, float], share: float) -> tuple[float, float]:
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share
