"""The site in a real browser: it opens from a disk, works without scripts, and shows hostile text as text."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.leaderboards.build import build_site

MakeRun = Callable[..., Path]

HOSTILE = (
    "<script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    '"><svg onload=window.hit=1>',
    "' onmouseover='window.hit=1",
    "</style></title><script>window.hit=1</script>",
    "{{7*7}}{% raw %}",
    "javascript:window.hit=1",
    "</script><script>window.hit=1</script>",
    "<!--benchmarks-->",
    "‮gnp.exe",
    "a\u0000b\u001b[31m",
)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_five_files_are_written(site: Path) -> None:
    wanted = ["index.html", "leaderboard.csv", "leaderboard.json", "leaderboard.md", "leaderboard.tex"]
    assert [name for name in wanted if not (site / name).stat().st_size] == []


def test_the_same_runs_give_the_same_bytes(site: Path, three_models: Path, tmp_path: Path) -> None:
    build_site([three_models], tmp_path / "again", published=True)
    assert digest(site) == digest(tmp_path / "again")


def test_a_row_reads_without_scripts(site: Path, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto((site / "index.html").as_uri())
    row = opened.locator("#table-1 tr[data-row]").first
    assert row.is_visible()
    assert "org/beta-2B" in row.inner_text()
    # Every plot at once, since nothing can choose one: the mean and the six.
    assert opened.locator("[data-plots]").first.locator("figure:visible").count() == 7
    context.close()


def test_a_run_says_what_its_responses_were_like(page: Any, site: Path) -> None:
    page.goto((site / "runs" / "alpha-1b.html").as_uri())
    table = page.locator("section:has(#responses) table")
    heads = table.locator("thead th").all_inner_texts()
    assert heads == ["Per benchmark", "MathVista", "MathVision", "MathVerse", "DynaMath", "WeMath", "LogicVista"]
    lines = {line[0]: line[1:] for line in (text.split("\t") for text in table.locator("tbody tr").all_inner_texts())}
    assert lines["items"] == ["120"] * 6
    assert lines["ended by “stop”"] == ["120"] * 6
    # Every second item of MathVista was answered right.
    assert lines["tokens: completion per item"] == ["5"] * 6
    assert lines["tokens: completion per correct"][0] == "10"


def test_every_link_of_every_page_leads_somewhere(site: Path) -> None:
    for file in site.rglob("*.html"):
        text = file.read_text().partition("<script>")[0]
        for target in re.findall(r'href="([^"#]+)"', text):
            if not target.startswith(("https:", "data:")):
                assert (file.parent / target).exists(), (file.name, target)
        for target in re.findall(r'href="#([^"]+)"', text):
            assert f'id="{target}"' in text, (file.name, target)


def test_a_benchmark_has_its_breakdowns(page: Any, site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    page.click("nav >> text=DynaMath")
    titles = page.locator("h3").all_inner_texts()
    assert {"All metrics", "By subject: average over variants", "By level: worst case: all variants right"} <= set(
        titles
    )


def test_wemath_has_its_four_outcomes(page: Any, site: Path) -> None:
    page.goto((site / "benchmarks" / "wemath.html").as_uri())
    heads = page.locator("table").first.locator("thead button").all_inner_texts()
    assert {"IK", "IG", "CM strict", "CM loose", "RM strict", "RM loose", "strict", "loose"} <= set(heads)
    assert "RM loose: rote memorisation (loose)" in page.locator("p.notes").first.inner_text()
    # Shares of the mini suite's 36 problems.
    assert "n 36" in page.locator("table").first.locator("thead th", has_text="IK").inner_text()
    assert page.locator("nav [aria-current=page]").inner_text() == "WeMath"


def test_the_board_is_cited_by_the_digest_of_its_numbers(page: Any, site: Path) -> None:
    page.goto((site / "about.html").as_uri())
    numbers = hashlib.sha256((site / "leaderboard.json").read_bytes()).hexdigest()
    assert f"SHA-256 {numbers}" in page.locator("pre").inner_text()


def test_paper_is_light_whatever_the_screen_is(site: Path, browser: Any) -> None:
    context = browser.new_context(color_scheme="dark")
    opened = context.new_page()
    opened.goto((site / "index.html").as_uri())
    ink = "getComputedStyle(document.documentElement).getPropertyValue('--ink')"
    dark = opened.evaluate(ink)
    opened.emulate_media(media="print")
    assert opened.evaluate(ink) != dark
    opened.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert opened.evaluate(ink) != dark
    context.close()


def test_a_run_of_training_has_curves(make_run: MakeRun, tmp_path: Path, page: Any) -> None:
    run = make_run("a", bool)
    # What stands before the first step is the curve's first point.
    (run / "log.jsonl").write_text('{"step": 0, "baseline/reward": 0.1}\n{"step": 5, "reward": 0.4, "loss": 1}\n')
    build_site([run], tmp_path / "site")
    page.goto((tmp_path / "site" / "runs" / "a.html").as_uri())
    drawn = page.locator("figure svg")
    assert drawn.count() == 1
    assert drawn.locator("title").text_content() == "reward, mean"
    assert drawn.locator("desc").text_content() == "0.1 at step 0, 0.4 at step 5, between 0.1 and 0.4"


@pytest.mark.parametrize("name", ["index.html", "benchmarks/mathvision.html", "runs/alpha-1b.html", "about.html"])
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_no_fault(site: Path, browser: Any, name: str, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_core_python.sync_playwright", reason="axe-core-python is not installed")
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 844}, bypass_csp=True)
    opened = context.new_page()
    opened.goto((site / name).as_uri())
    found = axe.Axe().run(opened)
    context.close()
    assert [(one["id"], one["nodes"][0]["html"][:120]) for one in found["violations"]] == []
    assert len(found["passes"]) > 10


def test_a_name_without_spaces_stays_on_the_page(
    make_run: MakeRun, card: MakeRun, tmp_path: Path, browser: Any
) -> None:
    text = "x" * 120
    card(make_run("a", bool), name=text, base=text, note=text, licence=text)
    build_site([tmp_path / "runs"], tmp_path / "site")
    context = browser.new_context(viewport={"width": 390, "height": 844})
    opened = context.new_page()
    widths = {}
    for file in sorted((tmp_path / "site").rglob("*.html")):
        opened.goto(file.as_uri())
        widths[file.name] = opened.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert set(widths.values()) == {390}, widths


@pytest.mark.parametrize("name", ["index.html", "benchmarks/mathvision.html", "runs/alpha-1b.html", "about.html"])
def test_a_phone_scrolls_tables_and_not_the_page(site: Path, browser: Any, name: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    opened = context.new_page()
    opened.goto((site / name).as_uri())
    width = opened.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert width == 390


@pytest.mark.slow
def test_hostile_text_is_only_ever_text(make_run: MakeRun, card: MakeRun, tmp_path: Path, page: Any) -> None:
    for number, text in enumerate(HOSTILE):
        run = make_run(f"r{number}", lambda n, at=number: n < 10 * at)
        plain = text.replace("\u0000", "").replace("\u001b", "")
        card(run, name=plain, base=plain, note=plain, licence=plain)
        manifest = (run / "run.json").read_text()
        (run / "run.json").write_text(manifest.replace('"system_prompt": ""', f'"system_prompt": {quoted(text)}'))
    build_site([tmp_path / "runs"], tmp_path / "site")
    files = sorted((tmp_path / "site").rglob("*.html"))
    assert len(files) > len(HOSTILE)
    for file in files:
        page.goto(file.as_uri())
        assert page.evaluate("window.hit") is None
        assert page.evaluate("document.scripts.length") == 1
        assert page.locator("main img, main svg[onload], main script").count() == 0
        assert page.evaluate("Array.from(document.querySelectorAll('[onmouseover],[onerror],[onload]')).length") == 0
        assert "49" not in page.locator("h1").inner_text()
    page.goto((tmp_path / "site" / "index.html").as_uri())
    shown = page.locator("#table-1").inner_text()
    assert [text for text in HOSTILE[:9] if text not in shown] == []
    # What would turn the reading direction is shown as its code.
    assert "\\u202egnp.exe" in shown


def test_the_policy_lets_nothing_in(site: Path) -> None:
    for file in site.rglob("*.html"):
        text = file.read_text()
        assert "default-src 'none'; style-src 'sha256-" in text
        assert "unsafe" not in text.split("<title>")[0]
        assert " style=" not in text


def quoted(text: str) -> str:
    return json.dumps(text)
