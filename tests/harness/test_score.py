"""Verdicts and metrics as functions of the responses, on a benchmark of six sums."""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_rows import RIGHT

from ahabench.harness import registry
from ahabench.harness.dataset import Dataset, load
from ahabench.harness.errors import IncompleteRunError, UsageError
from ahabench.harness.judge import Judge
from ahabench.harness.score import judge_one, judge_responses, summarise
from ahabench.harness.types import Response, Status

TOY = Path(__file__).parent / "toy"
IDS = ("a1", "a2", "b1", "b2", "c1", "c2")


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The benchmark, installed as a stranger's package would be."""
    monkeypatch.syspath_prepend(str(TOY))
    registry.tasks.cache_clear()
    yield
    registry.tasks.cache_clear()


@pytest.fixture
def dataset() -> Dataset:
    return load(registry.find_task("toy"), data=TOY / "data")


def responses(answers: dict[str, str | None], sample: int = 0, **fields: Any) -> list[Response]:
    return [Response(item_id=key, sample_index=sample, text=text, **fields) for key, text in answers.items()]


def statuses(dataset: Dataset, *said: Response, scorer: str = "robust", **options: Any) -> dict[str, Status]:
    scores = judge_responses(dataset, scorer, said, **options)
    return {row.item_id: row.verdict.status for row in scores.judged}


def metrics(dataset: Dataset, said: list[Response], scorer: str = "robust", **options: Any) -> dict[str, Any]:
    return summarise(judge_responses(dataset, scorer, said), **options)[0]


# Verdicts.


@pytest.mark.parametrize("seed", range(5))
def test_verdicts_stand_in_the_order_of_the_data_whatever_the_order_of_the_responses(
    dataset: Dataset, seed: int
) -> None:
    said = responses(RIGHT) + responses(RIGHT, sample=1)
    random.Random(seed).shuffle(said)
    judged = judge_responses(dataset, "robust", said).judged
    assert [(row.item_id, row.sample_index) for row in judged] == [(key, sample) for key in IDS for sample in (0, 1)]


def test_several_processes_give_the_same_verdicts_as_one(dataset: Dataset) -> None:
    # More than 4 chunks, so that there is work for a second process.
    said = [
        Response(item_id=key, sample_index=n, text=f"It is {n % 130}." if n % 5 else "I pass.")
        for n in range(200)
        for key in IDS
    ]
    assert judge_responses(dataset, "robust", said, workers=3) == judge_responses(dataset, "robust", said, workers=1)


def test_a_response_that_was_cut_off_before_an_answer_is_truncated(dataset: Dataset) -> None:
    cut = Response(item_id="a1", text="Let me think", finish_reason="length")
    done = Response(item_id="a2", text="Let me think", finish_reason="stop")
    assert statuses(dataset, cut, done) == {"a1": Status.TRUNCATED, "a2": Status.NO_ANSWER}


def test_a_response_that_was_cut_off_after_its_answer_keeps_it(dataset: Dataset) -> None:
    said = responses({"a1": "It is 2", "a2": "It is 5"}, finish_reason="length")
    assert statuses(dataset, *said) == {"a1": Status.CORRECT, "a2": Status.WRONG}


def test_what_was_never_generated_is_an_error_and_not_wrong(dataset: Dataset) -> None:
    scores = judge_responses(dataset, "robust", responses(RIGHT | {"b1": None}))
    assert [row.verdict.status for row in scores.judged if row.item_id == "b1"] == [Status.ERROR]
    assert scores.missing == (("b1", 0),)
    assert summarise(scores, allow_missing=True)[0]["metrics"]["accuracy"]["n"] == 5


def test_an_extraction_is_compared_where_the_rules_only_compare(dataset: Dataset) -> None:
    said = [Response(item_id="a1", text="It is 9", extraction="2"), Response(item_id="a2", text="It is 4")]
    assert statuses(dataset, *said, scorer="official") == {"a1": Status.CORRECT, "a2": Status.NO_ANSWER}


def test_rules_that_only_compare_are_refused_where_nothing_was_extracted(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match=r"toy: the scorer 'official' compares .* --judge"):
        judge_responses(dataset, "official", responses(RIGHT))


def test_what_nobody_has_read_is_not_called_cut_off(dataset: Dataset) -> None:
    said = Response(item_id="a1", text="So it is 2, because", finish_reason="length")
    assert judge_one(dataset.task.scorers["official"], dataset.items[0], said).status is Status.NO_ANSWER


def test_rules_for_a_judges_replies_are_not_called_so_twice(data: Path, serve: Callable[..., Any]) -> None:
    logicvista = load(registry.find_task("logicvista"), data=data)
    said = [Response(item_id=logicvista.items[0].id, text="It is A.")]
    with Judge(serve(lambda _: '{"answer": "A"}').url, "reader") as judge:
        (row,) = judge_responses(logicvista, "official", said, judge=judge).judged
    assert row.verdict.rule == "judge/letter-list"


def test_an_item_that_the_scorer_leaves_out_is_neither_scored_nor_missing(dataset: Dataset) -> None:
    with_it = judge_responses(dataset, "vlmevalkit", responses(RIGHT))
    without = judge_responses(dataset, "vlmevalkit", responses({key: RIGHT[key] for key in IDS[:-1]}))
    assert with_it == without
    assert (with_it.excluded, with_it.missing) == (frozenset({"c2"}), ())
    assert [row.item_id for row in with_it.judged] == list(IDS[:-1])


def test_a_response_to_no_item_is_refused_with_how_ids_look(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match=r"toy test has no item 'd1'; its ids look like 'a1'"):
        judge_responses(dataset, "robust", responses(RIGHT | {"d1": "3"}))


def test_an_unknown_scorer_is_refused_with_the_nearest(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match=r"unknown scorer of toy 'robot'. Did you mean 'robust'"):
        judge_responses(dataset, "robot", responses(RIGHT))


def test_a_verdict_row_has_the_public_keys(dataset: Dataset) -> None:
    (judged,) = judge_responses(dataset, "robust", responses({"a1": "2"})).judged
    row = judged.as_row()
    aha = row.pop("aha")
    assert (aha["moments"], aha["words"], aha["classes"]) == (0, 1, {})
    assert row == {
        "item_id": "a1",
        "sample_index": 0,
        "status": "correct",
        "extracted": "2",
        "rule": "same",
    }


def test_metrics_tell_how_many_responses_hold_a_moment(dataset: Dataset) -> None:
    thinking = "Let me look. Wait, that's not right, let me recount. 2"
    row = metrics(dataset, responses({**RIGHT, "a1": thinking}))
    assert row["aha"]["with_moment"]["value"] == pytest.approx(1 / 6)
    assert row["aha"]["accuracy"]["with"]["n"] == 1
    assert row["aha"]["accuracy"]["without"]["n"] == 5
    assert row["aha"]["published"]["vlaa_training_plot"] == pytest.approx(1 / 6)
    assert row["aha"]["per_1000_tokens"] is None


# Metrics.


def test_metrics_have_the_public_shape(dataset: Dataset) -> None:
    row = metrics(dataset, responses(RIGHT | {"b1": "7", "c2": "?"}), prompt="official@4")
    public = "task split prompt scorer n_items headline metrics rates breakdown aha".split()
    assert set(public) <= row.keys()
    assert [row[key] for key in public[:6]] == ["toy", "test", "official@4", "robust@2", 6, "accuracy"]
    # Right are a1, a2, b2, c1: 4 of 6. Of the pairs, a alone is right.
    assert row["metrics"]["accuracy"]["value"] == pytest.approx(4 / 6)
    assert row["metrics"]["pairs"]["value"] == pytest.approx(1 / 3)
    assert set(row["metrics"]["accuracy"]) == {"value", "n", "stderr", "ci95"}
    assert {kind: row["breakdown"]["kind"][kind]["accuracy"]["value"] for kind in ("small", "large")} == {
        "small": 3 / 4,
        "large": 1 / 2,
    }
    json.dumps(row, allow_nan=False)


def test_the_interval_is_clustered_by_pair(dataset: Dataset) -> None:
    estimate = metrics(dataset, responses(RIGHT | {"b1": "7", "c2": "?"}))["metrics"]["accuracy"]
    # Pairs' sums of (score - 2/3): a 2/3, b -1/3, c -1/3. Squares sum to 6/9; times 3/2 is 1; its root over n = 6.
    assert estimate["stderr"] == pytest.approx(1 / 6)
    # Student's t with 2 degrees of freedom, 97.5 %: 4.302653; cut at 0 and 1.
    assert estimate["ci95"] == pytest.approx([0, 1])


def test_rates_are_shares_of_the_responses(dataset: Dataset) -> None:
    said = [
        *responses({"a1": "2", "a2": "4"}, finish_reason="stop"),
        *responses({"b1": "well", "b2": "8"}, finish_reason="length"),
        *responses({"c1": "hm", "c2": "121"}),
    ]
    rates = metrics(dataset, said)["rates"]
    # c1 is unanswered, b1 truncated; of the four whose end is known, two reached the limit.
    assert rates == {"no_answer": 1 / 6, "truncated": 1 / 6, "timeout": 0, "length_limited": 2 / 4}


def test_the_rate_of_limited_responses_is_unknown_where_no_end_is_known(dataset: Dataset) -> None:
    assert metrics(dataset, responses(RIGHT))["rates"]["length_limited"] is None


def test_missing_responses_are_counted_in_the_refusal(dataset: Dataset) -> None:
    scores = judge_responses(dataset, "robust", responses({"a1": "2", "a2": "4", "b1": None}))
    with pytest.raises(IncompleteRunError, match=r"toy test: 4 of 6 responses are missing, the first is item b1"):
        summarise(scores)


def test_with_holes_allowed_a_metric_on_whole_clusters_is_refused_and_said(dataset: Dataset) -> None:
    scores = judge_responses(dataset, "robust", responses({key: RIGHT[key] for key in IDS[:-1]}))
    row, refused = summarise(scores, allow_missing=True)
    assert row["metrics"]["accuracy"]["value"] == 1
    assert row["metrics"]["pairs"] == {"value": None, "n": 0, "stderr": None, "ci95": None}
    assert row["missing"] == 1
    assert refused == ["pairs is refused: a pair has a hole"]


def test_several_samples_add_their_metrics(dataset: Dataset) -> None:
    wrong = dict.fromkeys(IDS, "0")
    second = RIGHT | {"c1": "no idea", "c2": "no idea"}
    said = responses(RIGHT) + responses(wrong, sample=1) + responses(second, sample=2)
    found = {name: estimate["value"] for name, estimate in metrics(dataset, said)["metrics"].items()}
    # Of 3 samples 2 are right for a and b, 1 for c. avg = (4 * 2/3 + 2 * 1/3) / 6.
    assert found["accuracy"] == found["avg@3"] == pytest.approx(10 / 18)
    # pass@2 = 1 - C(wrong, 2) / C(3, 2): 1 for a and b, 1 - 1/3 for c.
    assert found["pass@2"] == pytest.approx((4 + 2 * 2 / 3) / 6)
    assert found["pass@3"] == 1
    # Votes: right wins in a and b; in c one vote each, shared.
    assert found["maj@3"] == pytest.approx((4 + 2 / 2) / 6)


def test_a_sample_that_only_some_items_have_is_missing_from_the_others(dataset: Dataset) -> None:
    said = responses(RIGHT) + responses({"a1": "2"}, sample=1)
    scores = judge_responses(dataset, "robust", said)
    assert scores.missing == tuple((key, 1) for key in IDS[1:])
    allowed = summarise(scores, allow_missing=True)[0]
    assert not [name for name in allowed["metrics"] if "@" in name], "pass@2 of items with one sample"


def test_a_split_whose_answers_are_withheld_has_no_metrics() -> None:
    hidden = load(registry.find_task("toy"), "hidden", data=TOY / "data")
    with pytest.raises(UsageError, match="toy hidden: its answers are not public"):
        summarise(judge_responses(hidden, "robust", responses(RIGHT)))


def test_a_part_of_a_data_set_is_scored_over_its_items(dataset: Dataset) -> None:
    part = replace(dataset, items=dataset.items[:2])
    assert metrics(part, responses({"a1": "2", "a2": "5"}))["metrics"]["accuracy"]["value"] == 1 / 2


def test_the_bound_on_samples_is_not_for_a_run_that_says_how_many_it_has(dataset: Dataset) -> None:
    said = [Response(item_id="a1", sample_index=2000, text="2")]
    with pytest.raises(UsageError, match="toy test: a row has the sample_index 2000"):
        judge_responses(dataset, "robust", said)
    assert judge_responses(dataset, "robust", said, n_samples=2001).n_samples == 2001


def test_a_sample_index_beyond_reason_does_not_eat_the_memory() -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30));"
        f"sys.path.insert(0, {str(TOY)!r})\n"
        "from pathlib import Path\n"
        "from ahabench.harness import registry\n"
        "from ahabench.harness.dataset import load\n"
        "from ahabench.harness.errors import AhabenchError\n"
        "from ahabench.harness.score import judge_responses, summarise\n"
        "from ahabench.harness.types import Response\n"
        f"items = load(registry.find_task('toy'), data=Path({str(TOY / 'data')!r}))\n"
        "said = [Response(item_id='a1', sample_index=10**12, text='2')]\n"
        "try:\n    summarise(judge_responses(items, 'robust', said))\n"
        "except AhabenchError as error:\n    print(error.exit_code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() in {"2", "5"}, done.stderr[-300:]
