"""The page of a comparison."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.gate.compare import compare
from ahabench.harness.gate.policy import Policy
from ahabench.harness.gate.sides import open_side
from ahabench.leaderboards.compare_page import marked, write_compare_page
from ahabench.leaderboards.stripped import strip

MakeRun = Callable[..., Path]
HOSTILE = "</pre><script>window.hit=true</script><img src=x onerror=window.hit=true> Wait,\nlet me check \u202egnp."


@pytest.fixture
def page(make_run: MakeRun, tmp_path: Path) -> Path:
    """A right on items 0 to 29, B on 10 to 34: 10 broken, 5 fixed."""
    first = make_run("a", lambda n: n < 30, text=HOSTILE)
    second = make_run("b", lambda n: 10 <= n < 35, text=HOSTILE)
    sides = [open_side(str(run), baselines=tmp_path) for run in (first, second)]
    return write_compare_page(compare(sides[0], sides[1], Policy()), tmp_path / "page")


def test_the_page_counts_flips_and_shows_both_responses(page: Path, browser: Any) -> None:
    opened = browser.new_page()
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda one: said.append(one.url) if not one.url.startswith(("file:", "data:")) else None)
    opened.goto(page.as_uri())
    assert opened.locator("h3").inner_text() == "Flips: 10 broken, 5 fixed"
    assert opened.locator("details.flip").count() == 15
    opened.locator("details.flip summary").first.click()
    texts = opened.locator("details.flip[open] pre").all_inner_texts()
    assert len(texts) == 2
    # Lines are kept, and what would turn the reading direction is shown as its code.
    assert texts[1] == HOSTILE.replace("\u202e", "\\u202e")
    assert opened.locator("details.flip[open] img").count() == 1
    assert opened.evaluate("window.hit") is None
    assert opened.locator("main script").count() == 0
    opened.close()
    assert said == []


def test_axe_finds_no_serious_fault(page: Path, browser: Any) -> None:
    axe = pytest.importorskip("axe_core_python.sync_playwright", reason="axe-core-python is not installed")
    context = browser.new_context(bypass_csp=True)
    opened = context.new_page()
    opened.goto(page.as_uri())
    opened.locator("details.flip summary").first.click()
    found = axe.Axe().run(opened)
    context.close()
    assert [one["id"] for one in found["violations"] if one["impact"] in {"serious", "critical"}] == []


def test_a_phone_scrolls_no_page(page: Path, browser: Any) -> None:
    opened = browser.new_page(viewport={"width": 390, "height": 844})
    opened.goto(page.as_uri())
    opened.locator("details.flip summary").first.click()
    width = opened.evaluate("document.documentElement.scrollWidth")
    opened.close()
    assert width == 390


def test_a_run_without_texts_says_so(make_run: MakeRun, tmp_path: Path) -> None:
    first = strip(make_run("a", lambda n: n < 30), tmp_path / "stripped")
    second = make_run("b", lambda n: n < 20, text="B's words.")
    sides = [open_side(str(run), baselines=tmp_path) for run in (first, second)]
    page = write_compare_page(compare(sides[0], sides[1], Policy()), tmp_path / "page").read_text()
    assert page.count("[this run holds no texts]") == 10
    assert "B&#39;s words." in page
    assert "never generated" not in page


def test_marks_lose_no_letter() -> None:
    text = "It is 3. Wait, that is wrong. Let me check: 4."
    parts = marked(text, "")
    assert "".join(part for _, part in parts) == text
    assert [kind for kind, _ in parts if kind]
