"""The built-in suite: sizes, schemas, golds, clusters, and the same pixels everywhere."""

import json
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from ahabench.harness import registry
from ahabench.harness.dataset import load, read_export, subset, write_export
from ahabench.harness.errors import UsageError
from ahabench.harness.images import decode
from ahabench.harness.score import judge_one
from ahabench.harness.types import Item, Response, Result, Status
from ahabench.tasks.mini.scene import PLACES, SHAPES, Cell, Fact
from ahabench.tasks.mini.suite import MAKERS, digest, held_out, rows
from ahabench.tasks.mini.training import careful, train_samples

NAMES = sorted(MAKERS)

# What the pictures and questions are: a change is a change of the benchmark, and takes a commit that says why.
DIGESTS = {
    "dynamath": "6604272c7423829ca4fae404e89cf80b51533e242c40f598e00ed93ce0737972",
    "logicvista": "8ff1f067e1043bb1f910c1970e99635cfdd763c18870d4f50b6ffbb695da911f",
    "mathverse": "98878f4b29532b4c06ba6e24dd643823506f1b6ee91e2d4bd6581219dd528873",
    "mathvision": "6d4d788f69e493f44ae6d1f37e9a9ec21226944314d1cb3c3bf880a6a0050410",
    "mathvista": "bdfe8cf914256f377c3a02b4c39dc028d2dcdc63147083e1eafb0b60feb50a1d",
    "wemath": "15cb7055c4b02ec4769eebb975911b23f36121a57c41ce82b4f876eab1ff9713",
}


def items(name: str) -> tuple[Item, ...]:
    return load(registry.find_task(name), "mini").items


def verdict(item: Item, name: str, text: str) -> Status:
    scorer = registry.find_scorer(registry.find_task(name), "robust")
    return judge_one(scorer, item, Response(item_id=item.id, text=text, finish_reason="stop")).status


def solve(question: str, scene: tuple[Cell, ...]) -> set[str]:
    """What the answer is, worked out from the question's words and the cells, apart from how the problem was made."""
    words = [cell.words for cell in scene]
    numbers = [int(word) for word in words if word.isdigit()]
    shapes = [cell.value for cell in scene if cell.kind in ("dark", "light")]
    at = dict(zip(PLACES, words, strict=True))
    if said := re.search(r"The first is (\d) and the third is (\d)\. ", question):
        assert (at["first"], at["third"]) == said.groups()
        question = question[said.end() :]
    if question in ("", "What is the answer?"):
        left, sign, right, mark = words
        assert mark == "?"
        return {str(int(left) + int(right) if sign == "+" else int(left) - int(right))}
    if question == "What is one plus the other?":
        return {str(sum(numbers))}
    if question == "What is the largest minus the smallest?":
        return {str(max(numbers) - min(numbers))}
    if asked := re.fullmatch(r"What is the mean of the first and the second\?", question):
        return {str(float(Fraction(int(at["first"]) + int(at["second"]), 2)))}
    if asked := re.fullmatch(r"What is the (largest|smallest)\?", question):
        return {str({"largest": max, "smallest": min}[asked[1]](numbers))}
    if asked := re.fullmatch(r"What (?:shape )?is the (\w+)\?", question):
        return {at[asked[1]]}
    if asked := re.fullmatch(r"What is the (\w+) minus the (\w+)\?", question):
        return {str(int(at[asked[1]]) - int(at[asked[2]]))}
    if re.fullmatch(r"What is the \w+( plus the \w+)+\?", question):
        return {str(sum(int(at[place]) for place in PLACES if f"the {place}" in question))}
    if asked := re.fullmatch(r"Which is the (largest|smallest)\?", question):
        return {PLACES[numbers.index({"largest": max, "smallest": min}[asked[1]](numbers))]}
    if asked := re.fullmatch(r"Is the (\w+) larger than the (\w+)\?", question):
        return {"yes" if int(at[asked[1]]) > int(at[asked[2]]) else "no"}
    if asked := re.fullmatch(r"How many (\w+) are there\?", question):
        return {str(sum(asked[1] in (f"{shape}s", f"{shape}es") for shape in shapes))}
    if question == "How many different shapes are there?":
        return {str(len(set(shapes)))}
    if question == "Which one is different?":
        lonely = [place for place in PLACES if words.count(at[place]) == 1]
        return {lonely[0] if lonely else "none"}
    if question == "Which number is next?":
        return {str(2 * numbers[2] - numbers[1])}
    if question == "Which one is missing?":
        return {missing(words)}
    if asked := re.fullmatch(r"Which have a (\w+)\?", question):
        return {place for place, word in at.items() if word == asked[1]}
    if asked := re.fullmatch(r"Which are larger than (\d)\?", question):
        return {place for place, word in at.items() if int(word) > int(asked[1])}
    raise AssertionError(f"no rule for {question!r}")


def missing(words: list[str]) -> str:
    """The fourth of a two-by-two pattern: the parallelogram's corner, for numbers, shapes and tones alike."""
    one, two, three, mark = words
    assert mark == "?"
    if one.isdigit():
        return str(int(two) + int(three) - int(one))
    a, b, c = (word.split() for word in (one, two, three))
    # A shape is paired with the shape beside or below it; the one that has no partner yet is repeated.
    shape = c[-1] if a[-1] == b[-1] else b[-1]
    assert {a[-1], b[-1], c[-1]} == {a[-1], shape}
    return shape


@pytest.mark.parametrize("name", NAMES)
def test_each_benchmark_has_its_120_items_without_data_or_hub(name: str) -> None:
    dataset = load(registry.find_task(name), "mini")
    assert (len(dataset.items), dataset.source, dataset.revision) == (120, "built-in", None)
    assert len({item.id for item in dataset.items}) == 120


@pytest.mark.parametrize("name", NAMES)
def test_rows_have_the_keys_and_types_of_the_official_files(name: str, data: Path) -> None:
    task = registry.find_task(name)
    split = "text_only" if name == "mathverse" else task.default_split  # the other versions are not at hand everywhere
    official = list(task.read_folder(data / name, split))
    # Made from the other columns by a rule, which the task's prompts know; one key is misspelled in one record.
    keys = set().union(*official) - {"query_wo", "query_cot", "sourceli,nk"}
    kinds = {key: {type(row.get(key)) for row in official} for key in keys} | {"question_for_eval": {str}}
    for row in rows(name):
        assert set(row) == keys
        assert all(type(row[key]) in kinds[key] for key in keys)
    assert {item.id for item in items(name)}.isdisjoint(item.id for item in task.items_of(official))


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_decodes_to_56_pixels_squared(name: str) -> None:
    for item in items(name):
        (image,) = item.images
        assert decode(image.read(), name=item.id).size == (56, 56)


@pytest.mark.parametrize("name", NAMES)
def test_no_two_items_ask_the_same_of_the_same_pixels(name: str) -> None:
    contents = [(item.question, item.images[0].read()) for item in items(name)]
    assert len(set(contents)) == 120


@pytest.mark.parametrize("name", NAMES)
def test_the_gold_is_what_the_cells_and_the_words_say(name: str) -> None:
    for drawn in held_out(name):
        problem = drawn.problem
        if problem.family == "pattern" and any("light" in option for option in problem.options):
            continue  # shape and tone at once: the next test
        assert solve(problem.ask, problem.scene) == set(problem.answer.split(", ")), problem


def test_a_pattern_in_two_tones_has_each_shape_in_each_tone() -> None:
    found = [
        drawn.problem
        for drawn in held_out("logicvista")
        if drawn.problem.family == "pattern" and any("light" in option for option in drawn.problem.options)
    ]
    assert found
    for problem in found:
        shown = [cell.words for cell in problem.scene[:3]]
        assert len({*shown, problem.answer}) == 4
        assert {*shown, problem.answer} == set(problem.options)


@pytest.mark.parametrize("name", NAMES)
def test_the_tasks_own_scorer_takes_the_careful_answer_and_no_other(name: str) -> None:
    for item, drawn in zip(items(name), held_out(name), strict=True):
        assert verdict(item, name, careful(drawn.problem)) is Status.CORRECT, item
        assert verdict(item, name, "<answer> 77</answer>") is Status.WRONG, item
        if item.labels and ", " not in str(item.gold):
            other = next(label for label in item.labels if label != item.gold)
            assert verdict(item, name, f"<answer> {other}</answer>") is Status.WRONG, item


@pytest.mark.parametrize("name", NAMES)
def test_every_prompt_style_asks_every_item(name: str) -> None:
    for style in registry.find_task(name).prompts.values():
        assert all(style.render(item).text.strip() for item in items(name))


@pytest.mark.parametrize("scorer", ["official", "vlmevalkit"])
@pytest.mark.parametrize("name", NAMES)
def test_the_published_rules_take_every_gold(name: str, scorer: str) -> None:
    rules = registry.find_scorer(registry.find_task(name), scorer)
    assert [item.id for item in items(name) if not rules.compare(item, str(item.gold)).correct] == []


@pytest.mark.parametrize("name", NAMES)
def test_all_metrics_and_breakdowns_are_defined_on_the_whole_split(name: str) -> None:
    task = registry.find_task(name)
    results = [Result(item=item, scores=(1.0,), answers=(item.gold,)) for item in items(name)]
    assert task.metrics[task.headline](results).value == 1.0
    for metric in task.metrics.values():
        value = metric(results).value
        assert value is not None
        assert 0 <= value <= 1
    for tag in task.breakdowns:
        assert all(item.tags.get(tag) for item in items(name)), tag


@pytest.mark.parametrize("name", NAMES)
def test_each_level_has_a_fair_share(name: str) -> None:
    to_item, drawn = registry.find_task(name).to_item, list(held_out(name))
    assert [to_item(each.row).id for each in drawn] == [item.id for item in items(name)]
    counts = Counter(each.problem.level for each in drawn)
    assert set(counts) == {1, 2, 3}
    assert min(counts.values()) >= 24  # We-Math's composite sums of three and spreads; a third elsewhere


@pytest.mark.parametrize("name", NAMES)
def test_no_answer_alone_takes_a_benchmark_far(name: str) -> None:
    golds = Counter(item.gold for item in items(name))
    # We-Math has three numbers to choose from in each question.
    assert max(golds.values()) <= (0.45 if name == "wemath" else 0.25) * 120


def test_dynamath_has_whole_seeds_of_one_question_each() -> None:
    seeds: dict[str, list[Item]] = {}
    for item in items("dynamath"):
        seeds.setdefault(item.group, []).append(item)
    assert len(seeds) == 12
    for seed, variants in seeds.items():
        assert [item.id for item in variants] == [f"{seed}_v{number}" for number in range(1, 11)]
        assert len({item.question for item in variants}) == 1
        assert len({item.images[0].read() for item in variants}) == 10


def test_wemath_has_24_problems_of_two_steps_and_12_of_three_with_all_their_rows() -> None:
    keys: dict[str, list[str]] = {}
    for item in items("wemath"):
        keys.setdefault(item.group, []).append(item.tags["key"][0])
    two, three = ["2steps_1", "2steps_2", "2steps_multi"], ["3steps_1", "3steps_2", "3steps_3", "3steps_multi"]
    assert Counter(map(tuple, keys.values())) == {tuple(two): 24, tuple(three): 12}


def test_mathverse_moves_the_text_of_24_problems_into_the_picture() -> None:
    problems: dict[str, list[Item]] = {}
    for item in items("mathverse"):
        problems.setdefault(item.group, []).append(item)
    assert len(problems) == 24
    for versions in problems.values():
        named = {item.tags["version"][0]: item for item in versions}
        lengths = [
            len(named[version].question) for version in ("Text Dominant", "Text Lite", "Vision Dominant", "Vision Only")
        ]
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[-1] == 0
        assert len({item.gold for item in versions}) == 1


def test_a_quarter_of_mathverse_needs_a_fact_that_training_never_has() -> None:
    fresh = {item.group for item in items("mathverse") if item.tags["subfield"] == ("fresh facts",)}
    assert len(fresh) == 6
    for name in NAMES:
        for drawn in held_out(name):
            assert drawn.problem.fresh == (drawn.row.get("problem_index") in fresh)


def test_logicvista_has_letters_and_sets_of_letters() -> None:
    sizes = Counter(len(str(item.gold).split(", ")) for item in items("logicvista"))
    assert sizes[1] == 80
    assert sizes[2] + sizes[3] == 40
    assert min(sizes[2], sizes[3]) > 0


def test_mathvista_has_options_integers_and_floats() -> None:
    kinds = Counter(item.tags["answer_type"][0] for item in items("mathvista"))
    assert kinds == {"text": 20, "integer": 80, "float": 20}


@pytest.mark.parametrize("name", NAMES)
def test_a_limit_takes_whole_clusters(name: str) -> None:
    whole = Counter(item.cluster for item in items(name))
    part = Counter(item.cluster for item in subset(items(name), 30))
    assert part
    assert sum(part.values()) <= 30
    assert all(whole[cluster] == number for cluster, number in part.items())


@pytest.mark.parametrize("name", NAMES)
def test_questions_and_pixels_are_those_of_the_committed_digest(name: str) -> None:
    assert digest(held_out(name)) == DIGESTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_an_export_of_the_split_reads_back_the_same(name: str, tmp_path: Path) -> None:
    dataset = load(registry.find_task(name), "mini")
    write_export(dataset, tmp_path)
    again = load(dataset.task, "mini", data=tmp_path)
    assert (again.source, again.digest) == ("export", dataset.digest)
    assert [item.images[0].read() for item in read_export(tmp_path, dataset.task, "mini")] == [
        item.images[0].read() for item in dataset.items
    ]


def test_a_folder_of_official_files_does_not_get_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "wemath").mkdir()
    (tmp_path / "wemath" / "testmini.json").write_text("[]")
    assert load(registry.find_task("wemath"), "mini", data=tmp_path).source == "built-in"


def test_the_suite_mini_is_the_built_in_split_of_every_task_that_has_one() -> None:
    wanted = [(name, "mini") for name in NAMES]
    assert [(task.name, split) for task, split in registry.parse_tasks("all", suite="mini")] == wanted
    assert [(task.name, split) for task, split in registry.parse_tasks(None, suite="mini")] == wanted


def test_a_named_split_goes_before_the_suite() -> None:
    pairs = registry.parse_tasks("wemath,mathverse:text_lite", suite="mini")
    assert [(task.name, split) for task, split in pairs] == [("wemath", "mini"), ("mathverse", "text_lite")]


def test_an_unknown_suite_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown suite 'minni'\. Did you mean 'mini'"):
        registry.parse_tasks("all", suite="minni")


def test_the_full_suite_wants_to_be_told_which_tasks() -> None:
    with pytest.raises(UsageError, match="give --tasks all"):
        registry.parse_tasks(None)


def ahabench(*arguments: object) -> subprocess.CompletedProcess[str]:
    script = Path(sysconfig.get_path("scripts")) / "ahabench"
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_eval_takes_the_suite_offline_and_each_level_counts(tmp_path: Path) -> None:
    said = tmp_path / "said.jsonl"
    with said.open("w") as file:
        for name in NAMES:
            for item, drawn in zip(items(name), held_out(name), strict=True):
                text = careful(drawn.problem) if drawn.problem.level == 1 else "Let me look at it once more."
                file.write(json.dumps({"item_id": item.id, "response": text}) + "\n")
    run = tmp_path / "run"
    done = ahabench(
        *("eval", "m", "--suite", "mini", "--engine", f"replay:{said}", "--prompt", "think", "--out", run, "--json")
    )
    assert done.returncode == 0, done.stderr
    scored = {row["task"]: row for row in json.loads(done.stdout)}
    assert sorted(scored) == NAMES
    assert {row["split"] for row in scored.values()} == {"mini"}
    assert {
        name: scored[name]["metrics"]["accuracy"]["value"] for name in ("mathvista", "mathvision", "logicvista")
    } == {name: pytest.approx(1 / 3) for name in ("mathvista", "mathvision", "logicvista")}
    # Four seeds of twelve are level 1 throughout. Of We-Math's 36 problems, 12 are sums and differences of two numbers
    # that are read at level 1: both steps right, the composite wrong, half a point each.
    assert scored["dynamath"]["metrics"]["worst"]["value"] == pytest.approx(4 / 12)
    assert scored["wemath"]["metrics"]["score_strict"]["value"] == pytest.approx(0.5 * 12 / 36)
    again = ahabench("score", run, "--json")
    assert again.stdout == done.stdout


def test_shapes_and_places_are_the_words_of_the_questions() -> None:
    text = " ".join(sample.record["question"] for sample in train_samples(400))
    assert all(shape in text for shape in SHAPES)
    assert all(place in text for place in PLACES)


def test_a_fact_and_its_mirror_image_are_not_both_fresh() -> None:
    facts = [Fact(left, "+", right) for left in range(10) for right in range(10)]
    assert not any(fact.fresh and Fact(fact.right, "+", fact.left).fresh for fact in facts)
    assert any(fact.fresh for fact in facts)


def test_the_list_of_tasks_says_that_the_split_is_built_in() -> None:
    done = ahabench("tasks", "wemath")
    assert "split mini: 120 items, built in" in done.stdout
    assert json.loads(ahabench("tasks", "wemath", "--json").stdout)[0]["splits"]["mini"]["built_in"] is True


def test_agreement_export_and_score_take_a_built_in_split_by_name(tmp_path: Path) -> None:
    assert ahabench("export", "jsonl", "--task", "mathverse:mini", "--out", tmp_path / "export").returncode == 0
    said = tmp_path / "said.jsonl"
    found = list(zip(items("mathverse"), held_out("mathverse"), strict=True))
    lines = [
        {"item_id": item.id, "response": careful(drawn.problem), "official_correct": number % 4 > 0}
        for number, (item, drawn) in enumerate(found)
    ]
    said.write_text("".join(json.dumps(row) + "\n" for row in lines))
    scored = ahabench("score", said, "--task", "mathverse:mini", "--out", tmp_path / "run", "--json")
    assert json.loads(scored.stdout)[0]["metrics"]["accuracy"]["value"] == 1
    compared = ahabench("agreement", said, "--task", "mathverse:mini", "--json")
    # All are right; three in four are said to be.
    assert json.loads(compared.stdout)[0]["agreement"] == 0.75
