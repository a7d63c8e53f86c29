"""The links of the documentation: each leads to a file of the repository, and each anchor to a heading."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "leaderboards" / "published").rglob("*.md")]
)
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(<?([^()\s<>]+)>?(?:\s+\"[^\"]*\")?\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def links(text: str) -> list[str]:
    """The targets of a page's links and images that do not lead to another site."""
    found = [inline or reference for inline, reference in LINK.findall(FENCE.sub("", text))]
    return [target for target in found if not ELSEWHERE.match(target)]


def anchors(text: str) -> set[str]:
    """What GitHub calls a page's headings: letters, digits, `-`, `_`; a name's second bearer gets `-1`."""
    names: list[str] = []
    for heading in HEADING.findall(FENCE.sub("", text)):
        said = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        names.append(re.sub(r"[^\w\- ]", "", said).replace(" ", "-"))
    return {f"{name}-{before}" if (before := names[:at].count(name)) else name for at, name in enumerate(names)}


def leads_somewhere(target: str, page: Path, root: Path) -> bool:
    path, _, anchor = unquote(target).partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.is_relative_to(root) or not file.exists():
        return False
    return not anchor or (file.suffix == ".md" and anchor in anchors(file.read_text(encoding="utf-8")))


def broken(page: Path, root: Path = ROOT) -> list[str]:
    """The links of a page that lead nowhere."""
    return [target for target in links(page.read_text(encoding="utf-8")) if not leads_somewhere(target, page, root)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_every_anchor_to_a_heading(page: Path) -> None:
    assert broken(page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A\n## `Cite` this, please?\n```\n# B\n```\n# A\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[x](other.md) [x](other.md#a-1) [x](other.md#cite-this-please) [x](https://h/gone.md) [x](#top)\n# Top\n"
        "![x](gone.png) [x](other.md#b) [x](other.md#a-2) [x](#cite-this-please) [x](../../etc)\n[x]: gone.md\n"
        "```\n[x](in-a-listing.md)\n```\n"
    )
    assert broken(page, tmp_path) == [
        *("gone.png", "other.md#b", "other.md#a-2", "#cite-this-please", "../../etc", "gone.md")
    ]


def test_the_pages_have_links() -> None:
    assert sum(len(links(page.read_text(encoding="utf-8"))) for page in PAGES) >= 15
