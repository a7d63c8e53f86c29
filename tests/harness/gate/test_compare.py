"""Two runs compared: verdicts by hand, margins, and responses that are missing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.errors import UsageError
from ahabench.harness.gate.comparison import Comparison, Outcome
from ahabench.harness.gate.report import basis

Make = Callable[..., Path]
Compared = Callable[..., Comparison]


def only_row(found: Comparison) -> dict[str, Any]:
    (row,) = found.rows
    return row.as_row()


def test_a_run_passes_against_itself(compared: Compared, mini_run: Make) -> None:
    found = compared(mini_run("a", range(40)), mini_run("b", range(40)))
    row = only_row(found)
    assert (row["a"], row["b"], row["difference"]) == (80 / 120, 80 / 120, 0)
    assert (row["verdict"], row["fixed"], row["broken"], row["p"], row["n_needed"]) == ("PASS", 0, 0, 1.0, None)
    assert found.exit_code == 0


def test_a_run_on_both_sides_is_a_mistake(compared: Compared, mini_run: Make) -> None:
    a, b = mini_run("a"), mini_run("b")
    with pytest.raises(UsageError, match="a is on both sides"):
        compared(a, f"{b},{a.parent / '.' / 'a'}")


def test_a_large_drop_fails(compared: Compared, mini_run: Make) -> None:
    found = compared(mini_run("a", range(20)), mini_run("b", range(60)))
    row = only_row(found)
    assert (row["verdict"], row["broken"], found.exit_code) == ("FAIL", 40, 1)
    assert row["difference"] == pytest.approx(-1 / 3)
    assert row["upper"] < -0.02


def test_a_small_set_cannot_tell_a_small_drop(compared: Compared, mini_run: Make) -> None:
    found = compared(mini_run("a"), mini_run("b", range(3)))
    row = only_row(found)
    assert (row["verdict"], found.exit_code) == ("INCONCLUSIVE", 3)
    assert row["n_needed"] > 120


def test_a_wider_margin_passes_what_a_narrow_one_cannot_tell(compared: Compared, mini_run: Make) -> None:
    assert compared(mini_run("a"), mini_run("b", range(3)), "10").outcome is Outcome.PASS


def test_mcnemars_p_is_exact(compared: Compared, mini_run: Make) -> None:
    # One fixed, three broken: 2 * (1 + 4) / 16; at least three broken of four: (4 + 1) / 16.
    row = only_row(compared(mini_run("a", [0]), mini_run("b", [1, 2, 3])))
    assert (row["fixed"], row["broken"], row["p"], row["p_worse"]) == (1, 3, 0.625, 0.3125)
    assert row["test"] == "exact McNemar"


def test_the_keys_of_a_row_are_those_that_are_promised(compared: Compared, mini_run: Make) -> None:
    promised = "task metric a b difference ci95 margin verdict p n clusters fixed broken n_needed".split()
    found = compared(mini_run("a"), mini_run("b")).as_json()
    assert list(found)[:3] == ["verdict", "exit_code", "rows"]
    assert list(found["rows"][0])[: len(promised)] == promised


def test_a_fixed_answer_counts_for_b(compared: Compared, mini_run: Make) -> None:
    row = only_row(compared(mini_run("a", range(30)), mini_run("b")))
    assert (row["difference"], row["fixed"], row["verdict"]) == (0.25, 30, "PASS")


def test_a_metric_on_whole_clusters_has_a_bootstrap_and_counts_them(compared: Compared, mini_run: Make) -> None:
    a, b = mini_run("a", [0], task="dynamath"), mini_run("b", [0, 119], task="dynamath")
    row = only_row(compared(a, b))
    # Two of twelve seeds have a wrong variant in B, one in A.
    assert (row["a"], row["b"], row["n"], row["clusters"]) == (pytest.approx(11 / 12), pytest.approx(10 / 12), 12, 12)
    assert (row["metric"], row["interval"], row["test"]) == ("worst", "cluster bootstrap", "clustered t")


def test_other_metrics_are_compared_where_they_are_named(compared: Compared, mini_run: Make) -> None:
    a, b = mini_run("a", [0], task="dynamath"), mini_run("b", [0, 119], task="dynamath")
    found = compared(a, b, "dynamath:average=5,*=2", metrics=["dynamath:average"])
    worst, average = found.rows
    assert (worst.metric, average.metric, average.margin) == ("worst", "average", 0.05)
    assert (average.n, average.clusters, average.interval) == (120, 12, "clustered t")
    assert average.found is not None
    assert average.found.value == pytest.approx(-1 / 120)


def test_an_unknown_metric_is_refused(compared: Compared, mini_run: Make) -> None:
    with pytest.raises(UsageError, match=r"unknown metric of mathvista 'acuracy'. Did you mean 'accuracy'"):
        compared(mini_run("a"), mini_run("b"), metrics=["mathvista:acuracy"])


def test_a_row_says_what_it_counts(compared: Compared, mini_run: Make) -> None:
    a = mini_run("a", tasks={"mathvista": [], "dynamath": []})
    b = mini_run("b", tasks={"mathvista": [], "dynamath": [0, 1, 10]})
    basis_of = {row.task: basis(row).split(", ") for row in compared(a, b).rows}
    assert basis_of["mathvista"][:3] == ["n 120 items", "0 items fixed", "0 items broken"]
    assert basis_of["dynamath"][:3] == ["n 12 clusters", "0 items fixed", "3 items broken"]
    assert basis_of["dynamath"][-1].startswith("needs ")
    assert basis_of["dynamath"][-1].endswith(" clusters")


def test_few_clusters_that_agree_need_as_many_as_would_pass(compared: Compared, mini_run: Make) -> None:
    row = only_row(compared(mini_run("a", task="dynamath"), mini_run("b", task="dynamath"), "2"))
    assert (row["n"], row["unit"], row["verdict"]) == (12, "clusters", "INCONCLUSIVE")
    # Drawn again, 1.353 clusters of n + 4 are up and as many down in the mean: their sum is -3 or less with a chance of
    # 6.0 %, -4 or less with 1.8 % (Skellam's distribution), so the lower bound is -3 / (n + 4).
    assert 3 / (row["n_needed"] + 4) <= 0.02 < 3 / (row["n_needed"] + 3)


@pytest.mark.parametrize(
    ("demands", "why"),
    [
        ({"margin": "mathvsta=20,*=50"}, "benchmark of a margin or metric 'mathvsta'. Did you mean 'mathvista'"),
        ({"margin": "wemth:score_strict=20,*=50"}, "Did you mean 'wemath'?"),
        ({"margin": "mathvista:acuracy=20,*=50"}, "unknown metric of mathvista 'acuracy'. Did you mean 'accuracy'?"),
        ({"margin": "wemath:score_stict=20,*=50"}, "Did you mean 'score_strict'?"),
        ({"metrics": ["dynamth:average"]}, "Did you mean 'dynamath'?"),
        ({"metrics": ["dynamath:averge"]}, "Did you mean 'average'?"),
        ({"metrics": ["accuracy"]}, "'accuracy' names no benchmark, wanted TASK:METRIC"),
    ],
)
def test_a_misspelt_name_is_refused(compared: Compared, mini_run: Make, demands: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError) as caught:
        compared(mini_run("a"), mini_run("b"), **demands)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_policy_may_name_benchmarks_that_the_runs_have_not(compared: Compared, mini_run: Make) -> None:
    found = compared(mini_run("a"), mini_run("b"), "wemath=1,dynamath:average=1,*=3", metrics=["dynamath:average"])
    assert found.outcome is Outcome.PASS
    assert "the policy names benchmarks that are not compared here: wemath, dynamath" in found.notes


def test_a_margin_of_a_metric_that_is_not_compared_is_said(compared: Compared, mini_run: Make) -> None:
    a, b = (mini_run(name, task="dynamath") for name in "ab")
    note = "margins of metrics that are not compared; add them to the metrics: dynamath:average"
    margin = "dynamath:average=1,dynamath:worst=30"
    assert note in compared(a, b, margin).notes
    assert note not in compared(a, b, margin, metrics=["dynamath:average"]).notes


def test_we_maths_score_is_compared_by_problem(compared: Compared, mini_run: Make) -> None:
    row = only_row(compared(mini_run("a", task="wemath"), mini_run("b", [0], task="wemath")))
    assert (row["metric"], row["n"], row["interval"]) == ("score_strict", 36, "cluster bootstrap")
    assert (row["fixed"], row["broken"]) == (0, 1)


def test_the_worst_row_is_the_outcome(compared: Compared, mini_run: Make) -> None:
    a = mini_run("a", tasks={"mathvista": [], "logicvista": []})
    b = mini_run("b", tasks={"mathvista": [], "logicvista": range(50)})
    found = compared(a, b)
    assert [row.verdict for row in found.rows] == [Outcome.PASS, Outcome.FAIL]
    assert found.exit_code == 1
    assert [row.task for row in found.worse] == ["logicvista"]


def test_p_values_for_something_worse_are_holms(compared: Compared, mini_run: Make) -> None:
    a = mini_run("a", tasks={"mathvista": [], "logicvista": []})
    b = mini_run("b", tasks={"mathvista": range(5), "logicvista": range(2)})
    # One-sided: 1/32 and 1/4; Holm doubles the smaller.
    first, second = (row.as_row() for row in compared(a, b).rows)
    assert (first["p_worse"], first["p_holm"]) == (1 / 32, 2 / 32)
    assert (second["p_worse"], second["p_holm"]) == (1 / 4, 1 / 4)


def test_a_significant_drop_within_the_margin_fails_where_the_policy_says_so(
    compared: Compared, mini_run: Make
) -> None:
    a, b = mini_run("a"), mini_run("b", range(8))
    assert compared(a, b, "20").outcome is Outcome.PASS
    found = compared(a, b, "20", on_significant_drop="fail")
    assert found.outcome is Outcome.FAIL
    assert only_row(found)["n_needed"] is None


def test_a_drop_that_fails_by_the_policy_alone_says_so(compared: Compared, mini_run: Make) -> None:
    found = compared(mini_run("a"), mini_run("b", range(8)), "20", on_significant_drop="fail")
    # Eight broken, none fixed: 1/256.
    assert only_row(found)["notes"] == [
        "fails by the policy: a significant drop (Holm's p 0.00391), although the margin says PASS"
    ]


def test_a_drop_must_be_significant_among_all_rows(compared: Compared, mini_run: Make) -> None:
    # Five broken: 1/32, below 5 % alone; Holm doubles it among two rows, and 1/16 is not.
    a = mini_run("a", tasks={"mathvista": [], "logicvista": []})
    b = mini_run("b", tasks={"mathvista": range(5), "logicvista": []})
    strict = {"margin": "20", "on_significant_drop": "fail"}
    assert compared(a, b, tasks=["mathvista"], **strict).outcome is Outcome.FAIL
    assert compared(a, b, **strict).outcome is Outcome.PASS


def test_a_run_with_holes_is_incomplete(compared: Compared, mini_run: Make) -> None:
    found = compared(mini_run("a"), mini_run("b", texts={0: None, 1: None}))
    assert (found.outcome, found.exit_code, found.rows) == (Outcome.INCOMPLETE, 5, ())
    assert "responses to mathvista mini are missing: 2, the first is item" in found.missing[0]


def test_holes_leave_their_cluster_out_where_that_is_allowed(compared: Compared, mini_run: Make) -> None:
    a, b = mini_run("a", task="dynamath"), mini_run("b", task="dynamath", texts={0: None})
    found = compared(a, b, allow_missing=True)
    row = only_row(found)
    assert (row["n"], row["clusters"], found.outcome) == (11, 11, Outcome.INCONCLUSIVE)
    assert "on 110 of 120 items: the clusters that all runs answered in full" in row["notes"]
