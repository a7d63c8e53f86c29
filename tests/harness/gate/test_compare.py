"""Two runs compared: verdicts by hand, guards, seeds and samples, missing responses, older scorers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.errors import IncomparableRunsError, UsageError
from ahabench.harness.gate.compare import compare
from ahabench.harness.gate.comparison import Comparison, Outcome
from ahabench.harness.gate.policy import Policy, parse_margin
from ahabench.harness.gate.sides import open_side
from ahabench.harness.manifest import read_manifest, write_manifest
from ahabench.harness.runlog import RESPONSES, VERDICTS

Make = Callable[..., Path]
Run = Callable[..., Any]


def compared(a: object, b: object, margin: str = "2", **demands: Any) -> Comparison:
    options = {name: demands.pop(name) for name in ("tasks", "scorer") if name in demands}
    sides = [open_side(str(side), baselines=Path("baselines")) for side in (a, b)]
    return compare(*sides, Policy(margin=parse_margin(margin), **demands), **options)


def only_row(found: Comparison) -> dict[str, Any]:
    (row,) = found.rows
    return row.as_row()


# Verdicts.


def test_a_run_passes_against_itself(mini_run: Make) -> None:
    found = compared(mini_run("a", range(40)), mini_run("b", range(40)))
    row = only_row(found)
    assert (row["a"], row["b"], row["difference"]) == (80 / 120, 80 / 120, 0)
    assert (row["verdict"], row["fixed"], row["broken"], row["p"], row["n_needed"]) == ("PASS", 0, 0, 1.0, None)
    assert found.exit_code == 0


def test_a_large_drop_fails(mini_run: Make) -> None:
    found = compared(mini_run("a", range(20)), mini_run("b", range(60)))
    row = only_row(found)
    assert (row["verdict"], row["broken"], found.exit_code) == ("FAIL", 40, 1)
    assert row["difference"] == pytest.approx(-1 / 3)
    assert row["upper"] < -0.02


def test_a_small_set_cannot_tell_a_small_drop(mini_run: Make) -> None:
    found = compared(mini_run("a"), mini_run("b", range(3)))
    row = only_row(found)
    assert (row["verdict"], found.exit_code) == ("INCONCLUSIVE", 3)
    assert row["n_needed"] > 120


def test_a_wider_margin_passes_what_a_narrow_one_cannot_tell(mini_run: Make) -> None:
    assert compared(mini_run("a"), mini_run("b", range(3)), "10").outcome is Outcome.PASS


def test_mcnemars_p_is_exact(mini_run: Make) -> None:
    # One fixed, three broken: 2 * (1 + 4) / 16; at least three broken of four: (4 + 1) / 16.
    row = only_row(compared(mini_run("a", [0]), mini_run("b", [1, 2, 3])))
    assert (row["fixed"], row["broken"], row["p"], row["p_worse"]) == (1, 3, 0.625, 0.3125)
    assert row["test"] == "exact McNemar"


def test_the_keys_of_a_row_are_those_that_are_promised(mini_run: Make) -> None:
    promised = "task metric a b difference ci95 margin verdict p n clusters fixed broken n_needed".split()
    found = compared(mini_run("a"), mini_run("b")).as_json()
    assert list(found)[:3] == ["verdict", "exit_code", "rows"]
    assert list(found["rows"][0])[: len(promised)] == promised


def test_a_fixed_answer_counts_for_b(mini_run: Make) -> None:
    row = only_row(compared(mini_run("a", range(30)), mini_run("b")))
    assert (row["difference"], row["fixed"], row["verdict"]) == (0.25, 30, "PASS")


def test_a_metric_on_whole_clusters_has_a_bootstrap_and_counts_them(mini_run: Make) -> None:
    a, b = mini_run("a", [0], task="dynamath"), mini_run("b", [0, 119], task="dynamath")
    row = only_row(compared(a, b))
    # Two of twelve seeds have a wrong variant in B, one in A.
    assert (row["a"], row["b"], row["n"], row["clusters"]) == (pytest.approx(11 / 12), pytest.approx(10 / 12), 12, 12)
    assert (row["metric"], row["interval"], row["test"]) == ("worst", "cluster bootstrap", "clustered t")


def test_other_metrics_are_compared_where_they_are_named(mini_run: Make) -> None:
    a, b = mini_run("a", [0], task="dynamath"), mini_run("b", [0, 119], task="dynamath")
    found = compared(a, b, "dynamath:average=5,*=2", metrics=["dynamath:average"])
    worst, average = found.rows
    assert (worst.metric, average.metric, average.margin) == ("worst", "average", 0.05)
    assert (average.n, average.clusters, average.interval) == (120, 12, "clustered t")
    assert average.found is not None
    assert average.found.value == pytest.approx(-1 / 120)


def test_an_unknown_metric_is_refused(mini_run: Make) -> None:
    with pytest.raises(UsageError, match=r"unknown metric of mathvista 'acuracy'. Did you mean 'accuracy'"):
        compared(mini_run("a"), mini_run("b"), metrics=["mathvista:acuracy"])


def test_we_maths_score_is_compared_by_problem(mini_run: Make) -> None:
    row = only_row(compared(mini_run("a", task="wemath"), mini_run("b", [0], task="wemath")))
    assert (row["metric"], row["n"], row["interval"]) == ("score_strict", 36, "cluster bootstrap")
    assert (row["fixed"], row["broken"]) == (0, 1)


def test_the_worst_row_is_the_outcome(mini_run: Make) -> None:
    a = mini_run("a", tasks={"mathvista": [], "logicvista": []})
    b = mini_run("b", tasks={"mathvista": [], "logicvista": range(50)})
    found = compared(a, b)
    assert [row.verdict for row in found.rows] == [Outcome.PASS, Outcome.FAIL]
    assert found.exit_code == 1
    assert [row.task for row in found.worse] == ["logicvista"]


def test_p_values_for_something_worse_are_holms(mini_run: Make) -> None:
    a = mini_run("a", tasks={"mathvista": [], "logicvista": []})
    b = mini_run("b", tasks={"mathvista": range(5), "logicvista": range(2)})
    # One-sided: 1/32 and 1/4; Holm doubles the smaller.
    first, second = (row.as_row() for row in compared(a, b).rows)
    assert (first["p_worse"], first["p_holm"]) == (1 / 32, 2 / 32)
    assert (second["p_worse"], second["p_holm"]) == (1 / 4, 1 / 4)


def test_a_significant_drop_within_the_margin_fails_where_the_policy_says_so(mini_run: Make) -> None:
    a, b = mini_run("a"), mini_run("b", range(8))
    assert compared(a, b, "20").outcome is Outcome.PASS
    found = compared(a, b, "20", on_significant_drop="fail")
    assert found.outcome is Outcome.FAIL
    assert only_row(found)["n_needed"] is None


# Guards.


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"sampling": {"temperature": 0.7}}, "sampling.temperature"),
        ({"sampling": {"max_new_tokens": 128}}, "sampling.max_new_tokens"),
        ({"pixels": {"max": 100_352}}, "pixels.max"),
        ({"engine": {"name": "transformers"}}, "engine.name"),
        ({"engine": {"version": "0.33.0"}}, "engine.version"),
        ({"engine": {"dtype": "float16"}}, "engine.dtype"),
        ({"engine": {"options": {"quantization": "fp8"}}}, "engine.option.quantization"),
        ({"mixed_engines": [{"name": "vllm", "version": "0.31.0"}]}, "engine.mixed"),
        ({"system_prompt": "Do not think."}, "system_prompt"),
        ({"model": {"text_only": True}}, "text_only"),
        ({"judge": {"model": "j", "url": "http://j/v1", "prompt_version": 1}}, "judge.model"),
        ({"records": {"mathvista": {"prompt": {"style": "think", "version": 2}}}}, "prompt"),
        ({"records": {"mathvista": {"data_digest": "0" * 64}}}, "data_digest"),
        ({"records": {"mathvista": {"limit": 50}}}, "limit"),
        ({"sampling": {"temperature": None}}, "sampling.temperature"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_runs_that_differ_in_what_changes_scores_are_not_compared(
    mini_run: Make, fields: dict[str, Any], field: str
) -> None:
    found = compared(mini_run("a"), mini_run("b", **fields, score=False))
    assert (found.outcome, found.exit_code, found.rows) == (Outcome.NOT_COMPARABLE, 4, ())
    assert field in [guard.field for guard in found.mismatches]


@pytest.mark.parametrize(
    "fields",
    [
        {"engine": {"options": {"batch_size": "8"}}},
        {"engine": {"device": "NVIDIA H100"}},
        {"sampling": {"seed": 7}},
        {"packages": {"torch": "2.14.1"}},
        {"model": {"name": "elsewhere/b"}},
    ],
    ids=str,
)
def test_what_changes_no_scores_may_differ(mini_run: Make, fields: dict[str, Any]) -> None:
    assert compared(mini_run("a"), mini_run("b", **fields)).outcome is Outcome.PASS


@pytest.mark.parametrize("name", ["engine.version", "engine"])
def test_a_difference_is_accepted_by_name(mini_run: Make, name: str) -> None:
    found = compared(mini_run("a"), mini_run("b", engine={"version": "0.33.0"}), allow=[name])
    assert found.outcome is Outcome.PASS
    assert "accepted: engine.version: '0.32.0' in A, '0.33.0' in B" in found.notes


def test_accepting_one_difference_accepts_no_other(mini_run: Make) -> None:
    b = mini_run("b", engine={"version": "0.33.0"}, system_prompt="")
    found = compared(mini_run("a"), b, allow=["engine.version"])
    assert [guard.field for guard in found.mismatches] == ["system_prompt"]


def test_a_name_that_is_no_field_is_refused(mini_run: Make) -> None:
    with pytest.raises(UsageError, match=r"unknown field to allow 'engine.versoin'. Did you mean 'engine.version'"):
        compared(mini_run("a"), mini_run("b"), allow=["engine.versoin"])


def test_what_neither_side_knows_is_equal_with_a_note(mini_run: Make) -> None:
    unknown = {"engine": {"name": None, "version": None, "dtype": None}, "pixels": {"min": None, "max": None}}
    found = compared(mini_run("a", **unknown), mini_run("b", **unknown))
    assert found.outcome is Outcome.PASS
    (note,) = [text for text in found.notes if text.startswith("taken as equal")]
    assert "engine" in note
    assert "pixels" in note
    assert "tokens" not in note


def test_a_benchmark_that_the_candidate_lacks_is_not_passed_over(mini_run: Make) -> None:
    a = mini_run("a", tasks={"mathvista": [], "logicvista": []})
    b = mini_run("b")
    found = compared(a, b)
    assert (found.outcome, [guard.field for guard in found.mismatches]) == (Outcome.NOT_COMPARABLE, ["tasks"])
    assert compared(a, b, allow=["tasks"]).outcome is Outcome.PASS
    assert compared(a, b, tasks=["mathvista"]).outcome is Outcome.PASS


def test_a_benchmark_that_only_the_candidate_has_does_no_harm(mini_run: Make) -> None:
    found = compared(mini_run("a"), mini_run("b", tasks={"mathvista": [], "logicvista": range(120)}))
    assert [row.task for row in found.rows] == ["mathvista"]
    assert found.outcome is Outcome.PASS


def test_runs_without_a_common_benchmark_are_not_compared(mini_run: Make) -> None:
    assert compared(mini_run("a"), mini_run("b", task="logicvista")).outcome is Outcome.NOT_COMPARABLE


def test_a_task_that_no_run_has_is_refused(mini_run: Make) -> None:
    with pytest.raises(UsageError, match=r"unknown task of these runs 'mathvsta'. Did you mean 'mathvista'"):
        compared(mini_run("a"), mini_run("b"), tasks=["mathvsta"])


@pytest.mark.parametrize("field", ["prompt_sha256", "images_sha256"])
def test_responses_to_other_prompts_or_images_are_not_compared(mini_run: Make, field: str) -> None:
    a, b = mini_run("a"), mini_run("b")
    for run, digest in ((a, "aa"), (b, "bb")):
        path = run / "mathvista" / RESPONSES
        first, *rest = path.read_text().splitlines()
        path.write_text("\n".join([json.dumps({**json.loads(first), field: digest}), *rest]) + "\n")
    found = compared(a, b)
    assert [guard.field for guard in found.mismatches] == [field]
    assert found.exit_code == 4
    assert compared(a, b, allow=[field]).outcome is Outcome.PASS


def test_the_same_weights_are_an_a_a_comparison(mini_run: Make) -> None:
    same = {"model": {"weights_digest": "sha256:same"}}
    found = compared(mini_run("a", **same), mini_run("b", **same))
    assert any("same weights (A/A)" in text for text in found.notes)


# Missing responses.


def test_a_run_with_holes_is_incomplete(mini_run: Make) -> None:
    found = compared(mini_run("a"), mini_run("b", texts={0: None, 1: None}))
    assert (found.outcome, found.exit_code, found.rows) == (Outcome.INCOMPLETE, 5, ())
    assert "2 responses to mathvista mini are missing" in found.missing[0]


def test_holes_leave_their_cluster_out_where_that_is_allowed(mini_run: Make) -> None:
    a, b = mini_run("a", task="dynamath"), mini_run("b", task="dynamath", texts={0: None})
    found = compared(a, b, allow_missing=True)
    row = only_row(found)
    assert (row["n"], row["clusters"], found.outcome) == (11, 11, Outcome.INCONCLUSIVE)
    assert "on 110 of 120 items: the clusters that all runs answered in full" in row["notes"]


# Scorers.


def age(run: Path, scorer: str, task: str = "mathvista", **row: Any) -> None:
    """Make the verdicts those of another scorer, all of them wrong."""
    path = run / task / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "scorer": scorer}))
    verdicts = run / task / VERDICTS
    rows = [json.loads(line) | {"status": "wrong"} for line in verdicts.read_text().splitlines()]
    verdicts.write_text("".join(json.dumps(one) + "\n" for one in rows))


def test_verdicts_of_another_version_are_made_again_in_memory(
    mini_run: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = mini_run("a", range(10)), mini_run("b", range(10))
    age(a, "robust@0")
    before = (a / "mathvista" / VERDICTS).read_bytes()
    row = only_row(compared(a, b))
    assert (row["a"], row["difference"]) == (110 / 120, 0)
    assert (a / "mathvista" / VERDICTS).read_bytes() == before
    assert "is scored by robust@0; scored with robust@" in capsys.readouterr().err


def test_a_run_without_verdicts_is_scored_in_memory(mini_run: Make, capsys: pytest.CaptureFixture[str]) -> None:
    row = only_row(compared(mini_run("a", range(10), score=False), mini_run("b", range(10))))
    assert (row["a"], row["b"]) == (110 / 120, 110 / 120)
    assert "without current verdicts" in capsys.readouterr().err


def test_verdicts_that_do_not_cover_the_responses_are_made_again(mini_run: Make) -> None:
    a, b = mini_run("a"), mini_run("b")
    path = a / "mathvista" / VERDICTS
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:100]))
    assert only_row(compared(a, b))["a"] == 1


def test_verdicts_that_cover_the_responses_are_taken(mini_run: Make, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = mini_run("a"), mini_run("b")
    scorer = json.loads((a / "mathvista" / "metrics.json").read_text())["scorer"]
    age(a, scorer)
    assert only_row(compared(a, b))["a"] == 0
    assert capsys.readouterr().err == ""


def test_two_scorers_are_not_compared_unless_one_is_chosen(mini_run: Make) -> None:
    a, b = mini_run("a"), mini_run("b")
    age(a, "vlmevalkit@1")
    found = compared(a, b)
    assert [guard.guard for guard in found.mismatches] == ["scorer"]
    chosen = compared(a, b, scorer="robust")
    assert (chosen.outcome, only_row(chosen)["a"]) == (Outcome.PASS, 1)


def test_a_judges_old_verdicts_are_not_made_again_without_it(mini_run: Make) -> None:
    judge = {"judge": {"model": "j", "url": "http://j/v1", "prompt_version": 1}}
    a, b = mini_run("a"), mini_run("b")
    for run in (a, b):
        write_manifest(run, read_manifest(run).model_validate(read_manifest(run).model_dump() | judge))
    age(a, "robust@0")
    with pytest.raises(IncomparableRunsError, match="are by robust@0 and a judge"):
        compared(a, b)


def test_damaged_verdicts_are_an_error(mini_run: Make) -> None:
    a, b = mini_run("a"), mini_run("b")
    (a / "mathvista" / VERDICTS).write_text("{}\n")
    with pytest.raises(UsageError, match=r"verdicts.jsonl is damaged .*; delete it and run `ahabench score` again"):
        compared(a, b)


# Several runs a side, several samples an item.


def test_several_runs_of_a_side_are_its_seeds(mini_run: Make) -> None:
    for number, wrong in enumerate((10, 20, 30)):
        mini_run(f"seeds/{number}", range(wrong), sampling={"seed": number})
    a, folder = mini_run("a"), mini_run("seeds/0", range(10)).parent
    row = only_row(compared(a, folder))
    # The mean of 110, 100 and 90 of 120; the spread between runs is far beyond luck.
    assert row["b"] == pytest.approx(100 / 120)
    assert 0 < row["stderr_runs"] < row["stderr"]
    assert any("the choice of runs makes" in text for text in row["notes"])
    assert row["test"] == "clustered t"


def test_several_runs_are_given_with_commas(mini_run: Make) -> None:
    a, b, c = mini_run("a"), mini_run("b", [0]), mini_run("c", [1])
    found = compared(a, f"{b},{c}")
    assert (found.a, found.b) == ((str(a),), (str(b), str(c)))
    assert only_row(found)["b"] == pytest.approx(119 / 120)


def test_no_number_of_items_makes_up_for_too_few_runs(mini_run: Make) -> None:
    a = f"{mini_run('a1')},{mini_run('a2', range(30))}"
    b = f"{mini_run('b1')},{mini_run('b2', range(36))}"
    row = only_row(compared(a, b))
    assert (row["verdict"], row["n_needed"]) == ("INCONCLUSIVE", None)
    assert "no number of items would decide: the runs of a side differ too much; add runs" in row["notes"]


def test_runs_of_one_side_must_be_alike_too(mini_run: Make) -> None:
    a, b = mini_run("a"), mini_run("b")
    c = mini_run("c", engine={"version": "0.33.0"})
    assert compared(f"{a},{c}", b).outcome is Outcome.NOT_COMPARABLE


def test_copies_of_one_run_are_said_to_be_copies(mini_run: Make) -> None:
    a, b = mini_run("a"), mini_run("b")
    copy = shutil.copytree(b, b.parent / "copy")
    assert any("runs of B share weights and sampling seed" in text for text in compared(a, f"{b},{copy}").notes)


def test_a_run_given_twice_is_refused(mini_run: Make) -> None:
    a, b = mini_run("a"), mini_run("b")
    with pytest.raises(UsageError, match="names a run twice"):
        compared(f"{a},{a}", b)


def test_a_shard_is_refused(mini_run: Make) -> None:
    shard = mini_run("b", shard={"index": 1, "count": 2}, score=False)
    with pytest.raises(UsageError, match="is shard 1 of 2; join the shards"):
        compared(mini_run("a"), shard)


def test_a_folder_without_runs_is_refused(mini_run: Make, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="is no run and holds none"):
        compared(mini_run("a"), tmp_path / "empty")


def test_several_samples_are_averaged_within_their_item_and_said(mini_run: Make) -> None:
    a = mini_run("a", samples=4)
    b = mini_run("b", [(0, 0), (0, 1), (1, 0), *((2, sample) for sample in range(4))], samples=4)
    row = only_row(compared(a, b))
    assert row["difference"] == pytest.approx(-(0.5 + 0.25 + 1) / 120)
    # Item 2 alone is wrong in more than half of its samples; item 0 is right in just half, which is not more.
    assert (row["n"], row["samples"], row["broken"], row["test"]) == (120, 4, 2, "clustered t")
    assert "4 responses to an item: each item counts once, and their spread is part of the interval" in row["notes"]


def test_a_metric_of_several_samples_can_be_compared(mini_run: Make) -> None:
    a, b = mini_run("a", samples=4), mini_run("b", [(0, 0)], samples=4)
    found = compared(a, b, metrics=["mathvista:pass@4"])
    assert [(row.metric, row.found and row.found.value) for row in found.rows] == [
        ("accuracy", pytest.approx(-1 / 480)),
        ("pass@4", 0),
    ]


def test_other_numbers_of_samples_are_not_compared(mini_run: Make) -> None:
    found = compared(mini_run("a", samples=2), mini_run("b", samples=4))
    assert [guard.field for guard in found.mismatches] == ["sampling.samples"]


# Flips and what moved beside the score.


def test_flips_have_both_responses(mini_run: Make) -> None:
    found = compared(mini_run("a", [0]), mini_run("b", [1]))
    fixed, broken = found.tasks[0].flips
    assert (fixed.kind, broken.kind) == ("fixed", "broken")
    assert (fixed.a.status, fixed.b.status, fixed.b.extracted) == ("no_answer", "correct", fixed.gold)
    assert (broken.a.status, broken.b.text) == ("correct", "I cannot tell.")
    assert found.as_json()["flips"] == {"mathvista": {"fixed": [fixed.item_id], "broken": [broken.item_id]}}


def test_categories_count_the_flips_of_each_value(mini_run: Make) -> None:
    found = compared(mini_run("a", range(0, 120, 3)), mini_run("b", range(0, 120, 4)))
    # Wrong in A alone: multiples of 3 but not of 4; in B alone: of 4 but not of 3.
    assert sum(flip.kind == "fixed" for flip in found.tasks[0].flips) == 30
    assert sum(flip.kind == "broken" for flip in found.tasks[0].flips) == 20
    by_tag = [one for one in found.tasks[0].categories if one.tag == "question_type"]
    assert (sum(one.fixed for one in by_tag), sum(one.broken for one in by_tag)) == (30, 20)
    assert sum(one.n for one in by_tag) <= 120


def test_a_score_that_moved_with_truncation_says_so(mini_run: Make) -> None:
    cut = dict.fromkeys(range(24), "length")
    found = compared(mini_run("a"), mini_run("b", range(30), finish=cut))
    (note,) = only_row(found)["notes"]
    # 30 of 120 broken, 24 of them where B alone was cut off.
    assert note == (
        "truncation moved by +20.0 points; of the -25.0 points, -20.0 come from items whose truncation moved"
    )


def test_shifts_are_shown_and_decide_nothing(mini_run: Make) -> None:
    found = compared(mini_run("a"), mini_run("b", finish=dict.fromkeys(range(60), "length"), tokens=30))
    shifts = {shift.name: (shift.a, shift.b) for shift in found.tasks[0].shifts}
    assert shifts == {"truncated": (0, 0.5), "no_answer": (0, 0), "tokens": (10, 30), "aha": (0, 0)}
    assert found.outcome is Outcome.PASS


def test_aha_shifts_are_known_where_both_sides_have_counts_by_one_lexicon(mini_run: Make) -> None:
    runs = mini_run("a"), mini_run("b")
    for run, moments in zip(runs, (0, 2), strict=True):
        path = run / "mathvista" / VERDICTS
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["aha"] = {"lexicon": "1", "moments": moments}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {shift.name: (shift.a, shift.b) for shift in compared(*runs).tasks[0].shifts}
    assert found["aha"] == (0, 1)
    path.write_text(path.read_text().replace('"lexicon": "1"', '"lexicon": "2"'))
    assert "aha" not in {shift.name for shift in compared(*runs).tasks[0].shifts}
