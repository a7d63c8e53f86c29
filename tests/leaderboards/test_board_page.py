"""What a reader does with the tables of the board: sort, filter, group, hide, plot."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ahabench.leaderboards.build import build_site

MakeRun = Callable[..., Path]


def names(page: Any, table: str = "table-1") -> list[str]:
    script = (
        f"Array.from(document.querySelectorAll('#{table} tr[data-row]:not([hidden]) th.name')).map(e => e.dataset.v)"
    )
    return [name.removeprefix("org/") for name in page.evaluate(script)]


def open_board(page: Any, site: Path) -> None:
    page.goto((site / "index.html").as_uri())


def test_a_press_on_a_header_sorts_and_says_so(page: Any, site: Path) -> None:
    open_board(page, site)
    assert names(page) == ["beta-2B", "alpha-1B", "gamma-7B"]
    page.select_option("select[name=group]", "none")
    header = page.locator("#table-1 th[data-key=mathvista]")
    header.locator("button").click()
    # 3/4, 2/3 and 1/2 of the items are right.
    assert (names(page), header.get_attribute("aria-sort")) == (["gamma-7B", "beta-2B", "alpha-1B"], "descending")
    header.locator("button").click()
    assert (names(page), header.get_attribute("aria-sort")) == (["alpha-1B", "beta-2B", "gamma-7B"], "ascending")


def test_a_table_that_stands_by_its_mean_says_so(page: Any, site: Path) -> None:
    open_board(page, site)
    assert page.locator("#table-1 th[data-key=mean]").get_attribute("aria-sort") == "descending"
    # The authors' order.
    assert page.locator("#vlaa-thinker-reward th[data-key=mean]").get_attribute("aria-sort") == "none"
    page.locator("#table-1 th[data-key=mean] button").click()
    assert page.locator("#table-1 th[data-key=mean]").get_attribute("aria-sort") == "ascending"


def test_a_missing_value_sorts_last_both_ways(page: Any, site: Path) -> None:
    open_board(page, site)
    page.select_option("select[name=group]", "none")
    press = page.locator("#table-1 th[data-key=logicvista] button")
    for _ in range(2):
        press.click()
        assert names(page)[-1] == "gamma-7B"


def test_the_keyboard_sorts(page: Any, site: Path) -> None:
    open_board(page, site)
    page.locator("#table-1 th[data-key=name] button").focus()
    page.keyboard.press("Enter")
    assert names(page) == ["alpha-1B", "beta-2B", "gamma-7B"]


def test_the_first_stop_of_the_keyboard_skips_to_the_content(page: Any, site: Path) -> None:
    open_board(page, site)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_words_filter_rows_by_model_and_base(page: Any, site: Path) -> None:
    open_board(page, site)
    page.fill("input[name=q]", "zed")
    assert names(page) == ["alpha-1B", "gamma-7B"]
    assert page.locator("[data-count]").inner_text().startswith("2 of ")


def test_reported_rows_can_be_hidden(page: Any, site: Path) -> None:
    open_board(page, site)
    page.uncheck("input[name=reported]")
    assert page.locator("tr.reported:visible").count() == 0
    assert page.locator("#table-1 tr[data-row]:visible").count() == 3


def test_rows_group_by_base(page: Any, site: Path) -> None:
    open_board(page, site)
    page.select_option("select[name=group]", "base")
    groups = page.locator("#table-1 tr.group th").all_inner_texts()
    assert [group.split()[0] for group in groups] == ["Ypsilon", "Zed"]


def test_a_column_can_be_hidden(page: Any, site: Path) -> None:
    open_board(page, site)
    page.click(".menu summary")
    page.uncheck("input[name=column][value=wemath]")
    assert page.locator("#table-1 th[data-key=wemath]").is_hidden()
    head = page.locator("#table-1 thead th:visible").count()
    assert page.locator("#table-1 tr[data-row]").first.locator("th:visible, td:visible").count() == head


def test_a_phone_shows_scores_first_and_brings_the_rest_back(site: Path, browser: Any) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    opened = context.new_page()
    open_board(opened, site)
    base = opened.locator("#table-1 th[data-key=base]")
    assert base.is_hidden()
    assert "hide" not in opened.evaluate("location.hash")
    opened.click(".menu summary")
    opened.check("input[name=column][value=base]")
    assert base.is_visible()
    last = opened.locator(".menu input").last.bounding_box()
    # Nothing lies above the menu.
    at = f"document.elementFromPoint({last['x'] + 5}, {last['y'] + 5}).closest('.menu') !== null"
    opened.evaluate("window.scrollTo({top: 0, behavior: 'instant'})")
    assert opened.evaluate(at)
    opened.reload()
    assert base.is_visible()
    context.close()


def test_an_address_brings_the_view_back(page: Any, site: Path) -> None:
    open_board(page, site)
    page.fill("input[name=q]", "zed")
    page.locator("#table-1 th[data-key=name] button").click()
    address = page.evaluate("location.href")
    page.goto("about:blank")
    page.goto(address)
    assert page.input_value("input[name=q]") == "zed"
    assert page.locator("#table-1 th[data-key=name]").get_attribute("aria-sort") == "ascending"


def test_one_plot_at_a_time_is_shown(page: Any, site: Path) -> None:
    open_board(page, site)
    box = page.locator("[data-plots]").first
    box.locator("select").select_option("mathvista")
    assert box.locator("figure:visible figcaption").all_inner_texts() == ["MathVista"]


def test_a_long_table_keeps_its_head_and_names_in_sight(make_run: MakeRun, tmp_path: Path, browser: Any) -> None:
    first = make_run("m0", bool)
    for number in range(1, 25):
        shutil.copytree(first, first.parent / f"m{number}")
    build_site([first.parent], tmp_path / "site")
    opened = browser.new_page(viewport={"width": 390, "height": 700})
    opened.goto((tmp_path / "site" / "index.html").as_uri())
    box = opened.locator(".scroll").first
    box.evaluate("element => element.scrollTo(200, 400)")
    corner = opened.locator("#table-1 thead th").first.bounding_box()
    frame = box.bounding_box()
    opened.close()
    assert (round(corner["x"] - frame["x"]), round(corner["y"] - frame["y"])) == (0, 0)


def test_the_switch_of_colours_is_remembered(page: Any, site: Path) -> None:
    open_board(page, site)
    page.click("[data-theme-switch]")
    page.goto((site / "about.html").as_uri())
    # The page may be another process of the browser's, which a busy machine tells late what was stored.
    page.wait_for_function("localStorage.getItem('theme') === 'dark'")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
