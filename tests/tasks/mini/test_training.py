"""Training records: the five kinds of reward, the schema, and that nothing of the test items is in them."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from ahabench.harness import registry
from ahabench.harness.dataset import load
from ahabench.harness.images import decode
from ahabench.harness.score import judge_one
from ahabench.harness.types import AnswerType, Item, Response, Status
from ahabench.tasks.mini import suite
from ahabench.tasks.mini.picture import Picture
from ahabench.tasks.mini.scene import BLANK, Cell, Scene, Side, side
from ahabench.tasks.mini.schemas import Drawn
from ahabench.tasks.mini.training import VERIFIERS, TrainSample, train_records, train_samples, write_records

NAMES = sorted(suite.MAKERS)
N_TRAIN = 6_000
DIGEST = "df7127950f109ae085225971ce7b6035b1830eca7ee2aa309e1e84665fbe55be"
"""SHA-256 over id, question, gold, completions and pixels of the first 500 samples of seed 0."""


@pytest.fixture(scope="module")
def samples() -> list[TrainSample]:
    return list(train_samples(N_TRAIN))


@pytest.fixture(scope="module")
def tested() -> list[Drawn]:
    return [drawn for name in NAMES for drawn in suite.held_out(name)]


def shown(scene: Scene) -> tuple[Cell, ...]:
    return tuple(BLANK if cell.kind == "sign" else cell for cell in scene)


def test_no_test_item_is_a_training_record(samples: list[TrainSample]) -> None:
    trained = {(sample.record["question"], sample.record["image"].pixels().tobytes()) for sample in samples}
    shared = []
    for name in NAMES:
        task = registry.find_task(name)
        for item in load(task, "mini").items:
            (picture,) = item.images
            assert isinstance(picture, Picture)
            content = (task.prompts["think"].render(item).text, picture.pixels().tobytes())
            shared.append(content in trained)
    assert len(shared) == 720
    assert sum(shared) == 0


def test_no_scene_of_a_test_item_is_in_training_with_any_question(
    samples: list[TrainSample], tested: list[Drawn]
) -> None:
    trained = {shown(sample.problem.scene) for sample in samples}
    assert trained.isdisjoint(shown(drawn.problem.scene) for drawn in tested)


def test_no_pair_of_numbers_of_mathverse_is_in_training_in_those_places(samples: list[TrainSample]) -> None:
    def pair(scene: Scene) -> tuple[str, ...]:
        return tuple(cell.words for cell in shown(scene))

    tested = {pair(drawn.problem.scene) for drawn in suite.held_out("mathverse")}
    assert tested.isdisjoint(pair(sample.problem.scene) for sample in samples)


def test_no_fresh_fact_is_in_training(samples: list[TrainSample]) -> None:
    assert not any(fact.fresh for sample in samples for fact in sample.problem.facts)
    used = {fact for sample in samples for fact in sample.problem.facts}
    assert any(fact.left > fact.right for fact in used)


def test_all_other_facts_of_two_digits_are_in_training_as_the_docstring_says(
    samples: list[TrainSample], tested: list[Drawn]
) -> None:
    used = {fact for sample in samples for fact in sample.problem.facts}
    wanted = {fact for drawn in tested for fact in drawn.problem.facts if not fact.fresh and fact.left <= 9}
    assert len(wanted) > 80
    assert wanted <= used


def test_no_scene_is_a_large_part_of_training_or_of_the_test_items(
    samples: list[TrainSample], tested: list[Drawn]
) -> None:
    trained = Counter(shown(sample.problem.scene) for sample in samples)
    assert trained.most_common(1)[0][1] <= 0.01 * N_TRAIN
    # A MathVerse problem has one picture in five versions, a We-Math problem one in four rows.
    largest = Counter(shown(drawn.problem.scene) for drawn in tested).most_common(1)[0][1]
    assert largest <= 15


def test_about_a_quarter_of_all_scenes_is_for_testing() -> None:
    digits = [Cell("digit", str(number)) for number in range(10)]
    scenes = [(a, b, c, BLANK) for a in digits for b in digits for c in digits]
    share = sum(side(scene) is Side.TEST for scene in scenes) / len(scenes)
    # 1,000 draws at 1/4: a standard deviation of 0.014.
    assert share == pytest.approx(0.25, abs=0.06)


def test_all_five_kinds_of_reward_occur_often(samples: list[TrainSample]) -> None:
    kinds = Counter(sample.record["verifier_type"] for sample in samples)
    assert set(kinds) == set(VERIFIERS)
    assert min(kinds.values()) > 0.08 * N_TRAIN


def test_no_two_records_ask_the_same_of_the_same_pixels(samples: list[TrainSample]) -> None:
    contents = {(sample.record["question"], sample.record["image"].pixels().tobytes()) for sample in samples}
    assert len(contents) == N_TRAIN
    assert len({sample.record["id"] for sample in samples}) == N_TRAIN


def test_a_record_has_the_keys_of_the_published_ones(samples: list[TrainSample]) -> None:
    keys = {"id", "image", "question", "gt", "ds_answer", "caption", "verifier_type", "meta"}
    assert all(set(sample.record) == keys for sample in samples)
    for sample in samples:
        assert sample.record["question"].strip()
        assert isinstance(sample.record["gt"], int) == (sample.record["verifier_type"] == "digit")


def test_a_digit_is_one_digit_and_a_choice_is_letters(samples: list[TrainSample]) -> None:
    digits = [sample.record["gt"] for sample in samples if sample.record["verifier_type"] == "digit"]
    assert {0, 9} <= set(digits) <= set(range(10))
    letters = {sample.record["gt"] for sample in samples if sample.record["verifier_type"] == "mcq"}
    assert {"A", "B", "C", "D", "E", "A, C"} <= letters


def test_the_careful_completion_is_right_and_the_hasty_one_now_and_then(samples: list[TrainSample]) -> None:
    right: list[bool] = []
    for sample in samples:
        if sample.record["verifier_type"] not in ("digit", "math"):
            continue
        scorer = registry.find_scorer(registry.find_task("mathvista"), "robust")
        item = Item(id="1", question="", gold=str(sample.record["gt"]), answer_type=AnswerType.EXPRESSION)
        verdicts = [
            judge_one(scorer, item, Response(item_id="1", text=text, finish_reason="stop")).status
            for text in (sample.careful, sample.hasty)
        ]
        assert verdicts[0] is Status.CORRECT, sample
        right.append(verdicts[1] is Status.CORRECT)
    assert 0.1 < sum(right) / len(right) < 0.35


def test_only_the_careful_completion_thinks(samples: list[TrainSample]) -> None:
    assert all(sample.careful.startswith("<think> first ") for sample in samples)
    assert all(sample.hasty.startswith("<answer> ") for sample in samples)
    assert all(sample.careful.count("<answer>") == sample.hasty.count("<answer>") == 1 for sample in samples)


def test_the_careful_completion_reads_what_is_drawn(samples: list[TrainSample]) -> None:
    sample = next(sample for sample in samples if sample.problem.family == "add")
    one, two, three, four = (cell.words for cell in sample.problem.scene)
    assert sample.careful.startswith(f"<think> first {one} second {two} third {three} fourth {four} . first ") or (
        f"first {one} second {two} third {three} fourth {four} ." in sample.careful
    )


@pytest.mark.parametrize(("units", "largest"), [("normalised", 1.0), ("pixel", 56.0), ("0-1000", 1000.0)])
def test_a_box_is_around_what_is_asked_in_the_unit_that_is_declared(units: str, largest: float) -> None:
    boxes = [sample for sample in train_samples(300, box_units=units) if sample.record["verifier_type"] == "iou"]
    assert boxes
    for sample in boxes:
        record = sample.record
        assert record["meta"]["box_units"] == units
        left, top, right, bottom = (number / largest for number in json.loads(record["gt"]))
        shape = record["question"].split()[-1].rstrip("?").removesuffix("s" if "are" in record["question"] else "")
        for place, cell in enumerate(sample.problem.scene):
            row, column = divmod(place, 2)
            inside = left <= column / 2 < right and top <= row / 2 < bottom
            assert inside == (cell.value == shape or f"{cell.value}e" == shape), sample


def test_an_unknown_unit_of_boxes_is_refused() -> None:
    with pytest.raises(ValueError, match="box_units is 'inches', wanted one of normalised, pixel, 0-1000"):
        next(train_records(1, box_units="inches"))


def test_the_same_seed_draws_the_same_and_another_something_else() -> None:
    def drawn(seed: int) -> list[tuple[str, bytes]]:
        return [(record["question"], record["image"].read()) for record in train_records(50, seed)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_more_records_begin_with_the_same_ones() -> None:
    few = [record["question"] for record in train_records(40)]
    assert [record["question"] for record in train_records(80)][:40] == few


def test_the_first_records_are_those_of_the_committed_digest() -> None:
    assert training_digest() == DIGEST


def training_digest() -> str:
    sha = hashlib.sha256()
    for sample in train_samples(500):
        record = sample.record
        texts = [record["id"], record["question"], record["gt"], sample.careful, sample.hasty, record["caption"]]
        sha.update(json.dumps(texts).encode() + record["image"].pixels().tobytes())
    return sha.hexdigest()


@pytest.mark.parametrize("lines", [False, True])
def test_a_written_data_set_has_records_with_images_beside_them(tmp_path: Path, lines: bool) -> None:
    drawn = list(train_samples(30))
    path = write_records(drawn, tmp_path / "set", lines=lines)
    text = path.read_text()
    records = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    assert [record["id"] for record in records] == [sample.record["id"] for sample in drawn]
    for record, sample in zip(records, drawn, strict=True):
        image = (path.parent / record["image"]).read_bytes()
        assert image == sample.record["image"].read()
        assert decode(image, name=record["id"]).size == (56, 56)
        assert record["gt"] == sample.record["gt"]
