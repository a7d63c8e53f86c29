"""How well moments are found: the measures against hand-worked numbers, and the reached quality on real passages."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ahabench.harness.aha.card import CARD, card
from ahabench.harness.aha.quality import (
    OURS,
    Passage,
    class_quality,
    finders,
    halves,
    main_class,
    quality,
    read_passages,
    wilson,
)
from ahabench.harness.errors import UsageError

LABELS = Path(__file__).resolve().parents[1] / "data" / "aha_labels.jsonl"


def passage(name: str, moment: bool, kind: str = "verification", weight: float = 1.0, source: str = "") -> Passage:
    return Passage(
        item_id=name,
        question="",
        text="",
        moment=moment,
        kind=kind if moment else "none",
        source=source or name,
        weight=weight,
    )


def test_precision_recall_and_f1_are_counted():
    labels = [True, True, True, False, False]
    said = [True, True, False, True, False]
    found = quality("x", [passage(str(i), label) for i, label in enumerate(labels)], said)
    # 2 of 3 said are true, 2 of 3 true are said; F1 of equal shares is the share.
    assert [found.precision.value, found.recall.value, found.f1.value] == [pytest.approx(2 / 3)] * 3
    assert (found.precision.n, found.recall.n, found.f1.n) == (3, 3, 5)


def test_weights_speak_for_what_was_not_drawn():
    found = quality("x", [passage("a", True), passage("b", True, weight=9.0)], [True, False])
    # Found 1 of 1 + 9.
    assert found.recall.value == pytest.approx(0.1)
    assert found.precision.value == 1.0


def test_a_rule_that_says_nothing_has_no_precision():
    found = quality("x", [passage("a", True)], [False])
    assert (found.precision.value, found.recall.value) == (None, 0.0)


def test_wilsons_interval_is_that_of_statsmodels():
    from statsmodels.stats.proportion import proportion_confint

    for hits, n in ((0, 5), (3, 7), (33, 33), (32, 33)):
        low, high = proportion_confint(hits, n, method="wilson")
        found = wilson(hits, n)
        assert (found.low, found.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))


def test_halves_keep_a_trace_together_and_share_the_classes():
    some = [passage(f"{i}", i % 3 > 0, ("verification", "correction")[i % 2], source=f"s{i // 3}") for i in range(60)]
    first, second = halves(some)
    assert sorted(p.item_id for p in first + second) == sorted(p.item_id for p in some)
    assert not {p.source for p in first} & {p.source for p in second}
    for kind in ("verification", "correction", "none"):
        assert abs(sum(p.kind == kind for p in first) - sum(p.kind == kind for p in second)) <= 3
    again, _ = halves(list(reversed(some)))
    assert {p.item_id for p in again} == {p.item_id for p in first}


def test_a_passage_without_a_label_is_refused(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"item_id": "a", "response": "b", "moment": "yes", "class": "none"}))
    with pytest.raises(UsageError, match=r"x\.jsonl:1 is no labelled passage"):
        read_passages(path)


def test_labels_are_keys_and_labels_only():
    rows = [json.loads(line) for line in LABELS.read_text().splitlines()]
    wanted = {"task", "model", "item_id", "stratum", "probability", "moment", "class"}
    assert all(row.keys() == wanted for row in rows)
    assert all((row["class"] == "none") != row["moment"] and 0 < row["probability"] <= 1 for row in rows)


def test_the_goal_is_reached_on_the_held_out_half(shared: Path):
    _, held_out = halves(read_passages(shared / "aha" / "passages.jsonl"))
    measured = {name: quality(name, held_out, [finds(one) for one in held_out]) for name, finds in finders().items()}
    ours = measured.pop(OURS)
    assert ours.precision.value is not None
    assert ours.precision.value >= 0.95
    assert ours.recall.value is not None
    assert ours.recall.value >= 0.90
    assert all((ours.f1.value or 0) > (other.f1.value or 0) for other in measured.values())


def test_the_card_has_every_rule_and_says_where_it_cannot_decide(shared: Path):
    text = card(shared / "aha" / "passages.jsonl", LABELS, shared / "outputs")
    assert text == (LABELS.parents[2] / CARD).read_text(encoding="utf-8"), "the committed card is another one"
    assert all(text.count(f"| {name}") >= 3 for name in list(finders())[1:])
    assert "Too few passages" in text
    assert "## Published outputs" in text


def test_a_label_without_its_response_is_named(tmp_path: Path):
    passages, labels = tmp_path / "p.jsonl", tmp_path / "l.jsonl"
    row = {"item_id": "a", "response": "Wait, no.", "moment": True, "class": "interruption", "source": "s#1"}
    passages.write_text(json.dumps(row) + "\n")
    label = {"task": "t", "model": "m", "item_id": "9", "stratum": "found", "probability": 0.5, "moment": True}
    labels.write_text(json.dumps({**label, "class": "correction"}))
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "m.jsonl").write_text(json.dumps({"item_id": "1", "response": "x"}) + "\n")
    with pytest.raises(UsageError, match="no response of m to t 9"):
        card(passages, labels, tmp_path)


def test_a_weight_of_one_is_no_weight():
    some = [passage(str(i), i < 6) for i in range(10)]
    said = [i % 2 == 0 for i in range(10)]
    weighted = quality("x", [replace(one, weight=2.0) for one in some], said)
    assert weighted.precision.value == quality("x", some, said).precision.value


def test_a_passage_with_several_classes_is_named_by_the_most_specific():
    text = "Wait. There are three bars in the chart, and the fourth one is the tallest. Let me double-check that."
    both = replace(passage("a", True), text=text)
    assert main_class(both) == "verification"
    assert main_class(replace(both, text="Wait. The chart shows 2019, not 2018.")) == "interruption"
    assert main_class(replace(both, text="The chart shows 2019.")) is None
    each, one = class_quality([both]), class_quality([both], one_each=True)
    assert (each["interruption"].precision.value, one["interruption"].precision.value) == (0.0, None)
    assert each["verification"].recall.value == one["verification"].recall.value == 1.0
