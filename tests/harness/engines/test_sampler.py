"""Drawing by rows: the right distribution, and the same draw in any company."""

from collections import Counter
from typing import Any

import pytest

from ahabench.harness.engines.sampler import RowSampler, logits_processors, row_seed
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Prompt, Request


def request(item: str, sample: int = 0) -> Request:
    return Request(item_id=item, sample_index=sample, prompt=Prompt(text=""), images=())


def drawn(sampler: RowSampler, scores: Any) -> list[int]:
    """Return the token of each row, after checking that it is the only one left."""
    left = sampler(None, scores).isfinite()
    assert left.sum(dim=1).tolist() == [1] * len(scores)
    return left.int().argmax(dim=1).tolist()


def test_tokens_are_drawn_as_often_as_their_probability_says() -> None:
    import torch
    from scipy.stats import chisquare

    probabilities = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625])
    rows = 8000
    counts = Counter(drawn(RowSampler(range(rows)), probabilities.log().repeat(rows, 1)))
    expected = (probabilities * rows).tolist()
    assert chisquare([counts[token] for token in range(5)], expected).pvalue > 0.001


def test_one_row_draws_as_often_over_its_steps() -> None:
    import torch
    from scipy.stats import chisquare

    sampler, scores = RowSampler([3]), torch.tensor([[0.75, 0.25]]).log()
    counts = Counter(drawn(sampler, scores)[0] for _ in range(4000))
    assert chisquare([counts[0], counts[1]], [3000, 1000]).pvalue > 0.001


def test_a_row_draws_the_same_in_any_batch() -> None:
    import torch

    torch.manual_seed(0)
    scores = torch.randn(20, 6, 50)  # [steps, B, V]
    together, seeds = RowSampler(range(6)), [4, 1]
    apart = [RowSampler([seed]) for seed in seeds]
    for step in scores:
        tokens = drawn(together, step)
        assert [tokens[seed] for seed in seeds] == [
            drawn(one, step[[seed]])[0] for one, seed in zip(apart, seeds, strict=True)
        ]


@pytest.mark.parametrize("dead", [0, 2, 4])
def test_a_token_that_a_filter_removed_is_never_drawn(dead: int) -> None:
    import torch

    scores = torch.zeros(1, 5)
    scores[0, dead] = float("-inf")
    sampler = RowSampler([1])
    assert {drawn(sampler, scores)[0] for _ in range(300)} == set(range(5)) - {dead}


def test_nearly_all_of_the_mass_on_the_last_token_is_no_trouble() -> None:
    import torch

    scores = torch.full((50, 150_000), -40.0)
    scores[:, -1] = 40.0
    assert drawn(RowSampler(range(50)), scores) == [149_999] * 50


def test_temperature_top_k_and_top_p_cut_in_their_usual_order() -> None:
    import torch

    # 8 : 4 : 2 : 1 : 1 at temperature 1; at 0.5 the squares 64 : 16 : 4 : 1 : 1. Top-k 3 leaves 64 : 16 : 4, of which
    # the first two are 80/84 = 0.952, enough for a top-p of 0.9 (the first alone is 0.762).
    scores = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0]).log()
    chain = logits_processors(Sampling(temperature=0.5, top_k=3, top_p=0.9), [request(str(n)) for n in range(4000)])
    rows = scores.repeat(4000, 1)
    for filter_ in chain[:-1]:
        rows = filter_(None, rows)
    assert rows[0].softmax(dim=0).tolist() == pytest.approx([0.8, 0.2, 0, 0, 0])
    counts = Counter(drawn(chain[-1], rows))
    assert set(counts) == {0, 1}
    assert counts[0] / 4000 == pytest.approx(0.8, abs=0.03)  # 4.7 standard errors


def test_greedy_draws_nothing() -> None:
    assert logits_processors(Sampling(temperature=0.0, top_k=5, top_p=0.5), [request("1")]) == []


def test_a_stream_is_the_runs_seed_the_item_and_the_sample() -> None:
    keys = [(seed, item, sample) for seed in (0, 1) for item in ("1", "11", "\ud83d") for sample in (0, 1, 11)]
    assert len({row_seed(seed, request(item, sample)) for seed, item, sample in keys}) == len(keys)
    assert row_seed(0, request("1", 1)) == row_seed(0, request("1", 1))
