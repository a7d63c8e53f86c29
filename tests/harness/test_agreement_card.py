"""The published card: what it says is what the scorers do today."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ahabench.harness import registry
from ahabench.harness.agreement_card import CARD, card
from ahabench.harness.errors import UsageError

ROOT = Path(__file__).parents[2]
TOY = Path(__file__).parent / "toy"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stranger's benchmark of six sums is installed; "robust" takes the last number for the answer."""
    monkeypatch.syspath_prepend(str(TOY))
    registry.tasks.cache_clear()
    yield TOY / "data"
    registry.tasks.cache_clear()


@pytest.mark.slow
def test_the_committed_card_is_what_the_scorers_do(data: Path, outputs: Path) -> None:
    assert (ROOT / CARD).read_text(encoding="utf-8") == card(outputs, data)


def test_a_card_has_the_rows_that_follow_by_hand(toy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    said = [
        ("a1", "2", True),  # right for both
        ("a2", "5", False),  # wrong for both
        ("b1", "6", False),  # false positive
        ("b2", "who knows", True),  # false negative, unread, and the gold stands nowhere in it
    ]
    rows = [{"item_id": key, "response": text, "official_correct": right, "model": "m"} for key, text, right in said]
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = card(tmp_path, toy)
    # Both say right 2 of 4 and agree on 2 of 4: kappa 0. One of four published as right holds no gold: ceiling 75 %.
    row = "4 | 50.00 | 0.000 | 1 | 1 | 1 | 50.0 | 50.0"
    assert "## toy test · robust@2" in text
    assert f"| m | {row} | 75.0 |" in text
    assert f"| **all** | {row} | |" in text
    # Nothing was extracted, so there is nothing for these rules to compare.
    assert "official@1" not in text


def test_a_folder_without_published_responses_is_refused(toy: Path, tmp_path: Path) -> None:
    for rows in ("", '{"item_id": "a1", "response": null, "official_correct": true}\n'):
        (tmp_path / "toy").mkdir(exist_ok=True)
        (tmp_path / "toy" / "x.jsonl").write_text(rows)
        with pytest.raises(UsageError, match=r"holds no responses with verdicts in <task>/\*.jsonl of a known task"):
            card(tmp_path, toy)
