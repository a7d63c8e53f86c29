"""Which completions share a row of the model's input, and how groups stay together."""

from collections.abc import Callable
from typing import Any

import torch

from ahabench.trainer.shared_prompt import Cost, Row, best_layout, cost_of, same_prompts, shareable, shuffle_groups

TrainerOf = Callable[..., Any]


def test_other_images_are_another_prompt() -> None:
    prompts = [torch.tensor(ids) for ids in ([1, 2], [1, 2], [1, 2], [1, 3], [1, 2])]
    grids = [torch.tensor([[1, 2, 2]])] * 4 + [torch.tensor([[1, 1, 4]])]
    pixels = [torch.zeros(4, 3), torch.ones(4, 3), torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(4, 3)]
    assert same_prompts(prompts, pixels, grids) == [[0, 2], [1], [3], [4]]
    assert same_prompts(prompts, [], []) == [[0, 1, 2, 4], [3]]


def test_the_layout_shares_what_pays() -> None:
    linear, square = Cost(token=1, pair=0), Cost(token=0, pair=1)
    # Together 99 + 4 x 11 = 143 tokens; alone 4 x 110.
    assert best_layout([[0, 1, 2, 3]], [100] * 4, [10] * 4, linear) == [Row((0, 1, 2, 3))]
    # 9 + 4 x 101 = 413 tokens, squared, against 4 rows of 110, squared.
    assert best_layout([[0, 1, 2, 3]], [10] * 4, [100] * 4, square) == [Row((place,)) for place in range(4)]
    # Two rows of 99 + 2 x 101 = 301 cost 181,202, one row of 503 costs 253,009, four of 200 cost 160,000.
    assert best_layout([[0, 1, 2, 3]], [100] * 4, [100] * 4, square) == [Row((place,)) for place in range(4)]


def test_a_row_is_not_shared_when_the_others_would_be_padded_to_it() -> None:
    # Sharing: one row of 49 + 3 x 51 = 202 and two that are padded to it, 606 tokens; alone: five rows of 100.
    groups = [[0, 1, 2], [3], [4]]
    alone = [Row((place,)) for place in range(5)]
    assert best_layout(groups, [50] * 5, [50] * 5, Cost(token=1, pair=0)) == alone


def test_the_cost_of_a_layer_is_that_of_its_weights(trainer_of: TrainerOf) -> None:
    model = trainer_of().model
    layer = shareable(model).language_model.layers[0]
    weights = sum(one.numel() for one in layer.parameters() if one.ndim == 2)
    assert cost_of(model.config.get_text_config()).token == weights


def test_groups_stay_together_and_nothing_is_lost() -> None:
    torch.manual_seed(0)
    batch = {"place": torch.arange(12), "name": [f"{place}" for place in range(12)], "n": torch.tensor(5), "old": None}
    shuffled = shuffle_groups(batch, 4)
    blocks = [shuffled["place"][start : start + 4].tolist() for start in (0, 4, 8)]
    assert sorted(blocks) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert blocks != sorted(blocks)
    assert shuffled["name"] == [f"{place}" for place in shuffled["place"].tolist()]
    assert (shuffled["n"], shuffled["old"]) == (5, None)


def test_half_a_group_stays_together_where_processes_share_it() -> None:
    # 6 of the 12 completions of three groups of 4: a group and a half, so that no more than 2 belong together for sure.
    pairs = shuffle_groups({"place": torch.arange(6)}, 4)["place"].view(3, 2)
    assert sorted(pairs.tolist()) == [[0, 1], [2, 3], [4, 5]]
