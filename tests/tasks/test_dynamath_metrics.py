import json
from pathlib import Path

import pytest
from dynamath_published import DYNAMATH

from ahabench.harness.dataset import load
from ahabench.harness.errors import IncompleteRunError
from ahabench.harness.metrics import by_tag
from ahabench.harness.types import AnswerType, Item, Result
from ahabench.tasks.dynamath import TASK


def results(bits: dict[str, list[tuple[float, ...]]], **tags: dict[str, str]) -> list[Result]:
    """Results of seeds: for each variant, in order, its scores by sample."""
    return [
        Result(
            item=Item(
                id=f"{seed}_v{variant}",
                question="What?",
                gold="1",
                answer_type=AnswerType.FLOAT,
                group=seed,
                tags={name: (values[seed],) for name, values in tags.items()},
            ),
            scores=scores,
        )
        for seed, variants in bits.items()
        for variant, scores in enumerate(variants, start=1)
    ]


def value(name: str, rows: list[Result]) -> float | None:
    return TASK.metrics[name](rows).value


def test_the_reference_matrices_give_their_average_worst_and_robustness(metric_examples: Path):
    file = json.loads((metric_examples / "dynamath_avg_worst_rr.json").read_text(encoding="utf-8"))
    meta = file["seed_meta"]
    subjects, levels = ({seed: about[tag] for seed, about in meta.items()} for tag in ("subject", "level"))
    assert len(file["cases"]) == 10
    for case in file["cases"]:
        bits = {seed: [(float(bit),) for bit in row] for seed, row in case["input"]["bits_by_qid"].items()}
        rows, wanted = results(bits, subject=subjects, level=levels), case["expected"]
        assert value("rr", rows) == pytest.approx(wanted["reasoning_robustness"], abs=1e-12)
        for metric in ("average", "worst"):
            found = {"Overall": value(metric, rows)}
            for tag, prefix in (("subject", "Subject"), ("level", "Level")):
                assert metric in TASK.breakdowns[tag]
                found |= {f"{prefix}-{part}": value(metric, some) for part, some in by_tag(rows, tag).items()}
            assert found == pytest.approx(wanted[metric], abs=1e-12)


@pytest.mark.parametrize("model", DYNAMATH)
def test_published_verdicts_reproduce_the_published_scores(data: Path, outputs: Path, model: str):
    lines = (outputs / "dynamath" / f"{model}.jsonl").read_text(encoding="utf-8").splitlines()
    right = {row["item_id"]: row["official_correct"] for row in map(json.loads, lines)}
    rows = [Result(item=each, scores=(float(right[each.id]),)) for each in load(TASK, data=data).items]
    found = tuple(f"{value(name, rows):.2%}".rstrip("%") for name in ("average", "worst", "rr", "best"))
    assert found == DYNAMATH[model]
    assert TASK.metrics["worst"](rows).n == 501


def test_worst_takes_all_variants_best_takes_one():
    nine = [(1.0,)] * 9 + [(0.0,)]
    rows = results({"1": [(1.0,)] * 10, "2": nine, "3": [(0.0,)] * 10})
    assert value("worst", rows) == pytest.approx(1 / 3)
    assert value("best", rows) == pytest.approx(2 / 3)
    assert value("average", rows) == pytest.approx(19 / 30)
    assert value("rr", rows) == pytest.approx((1 / 3) / (19 / 30))


def test_of_several_samples_the_worst_variant_is_taken_within_each_sample():
    # Sample 0 is right throughout, sample 1 in nine of ten: worst (1 + 0) / 2, best (1 + 1) / 2, average 19 / 20.
    rows = results({"1": [(1.0, 1.0)] * 9 + [(1.0, 0.0)]})
    assert value("worst", rows) == 0.5
    assert value("best", rows) == 1.0
    assert value("average", rows) == pytest.approx(0.95)
    assert value("rr", rows) == pytest.approx(0.5 / 0.95)


def test_the_standard_error_of_worst_is_that_of_a_share_of_seeds():
    rows = results({str(seed): [(float(seed <= 3),)] * 10 for seed in range(1, 13)})
    # 3 of 12: variance 1/4 * 3/4, with the correction 12/11, over 12
    assert TASK.metrics["worst"](rows).stderr == pytest.approx((0.25 * 0.75 / 11) ** 0.5)
    assert TASK.metrics["average"](rows).stderr == pytest.approx((0.25 * 0.75 / 11) ** 0.5)


def test_robustness_over_nothing_right_has_no_value():
    assert value("rr", results({"1": [(0.0,)] * 10})) is None


@pytest.mark.parametrize("name", ["worst", "best", "rr"])
def test_a_seed_with_a_missing_variant_has_no_worst_case(name: str):
    rows = [row for row in results({"1": [(1.0,)] * 10, "17": [(1.0,)] * 10}) if row.item.id != "17_v4"]
    with pytest.raises(IncompleteRunError, match=r"seed 17 has 9 of its 10 variants, without \['17_v4'\]"):
        TASK.metrics[name](rows)


def test_a_seed_with_uneven_samples_has_no_worst_case():
    with pytest.raises(IncompleteRunError, match="number of samples"):
        value("worst", results({"1": [(1.0, 1.0)] * 9 + [(1.0,)]}))


def test_the_average_needs_no_whole_seeds():
    assert value("average", results({"1": [(1.0,)] * 10})[:4]) == 1.0
