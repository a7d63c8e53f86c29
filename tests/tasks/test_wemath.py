import functools
import json
from collections import Counter
from pathlib import Path

import pytest

from ahabench.harness.dataset import Dataset, load
from ahabench.harness.errors import DatasetError, IncompleteRunError
from ahabench.harness.images import ImageFile, decode
from ahabench.harness.metrics import by_tag
from ahabench.harness.types import AnswerType, Item, Response, Result, Status
from ahabench.tasks.wemath import DOMAINS, TASK, options, outcome, to_item

OFFICIAL, KIT = TASK.scorers["official"], TASK.scorers["vlmevalkit"]
NAMES = {
    "Score": "score",
    "InsufficientKnowledge": "ik",
    "InadequateGeneralization": "ig",
    "CompleteMastery": "cm",
    "RoteMemorization": "rm",
}
ROW = {
    "ID": "2steps_1",
    "knowledge concept": "Rotation",
    "question": "How far?",
    "option": "A. 3 m;B. 4 m; C. No correct answer",
    "answer": "B",
    "key": "2steps_1",
    "question number": 1,
    "images": (),
}


@functools.cache
def loaded(data: Path) -> Dataset:
    return load(TASK, data=data)


def item(gold: str = "B", *, key: str = "2steps_1", group: str = "p1", concept: str = "Rotation") -> Item:
    steps = {"2steps_multi": "two-step", "3steps_multi": "three-step"}.get(key, "one-step")
    return Item(
        id=f"{group}/{key}",
        question="How far?",
        gold=gold,
        answer_type=AnswerType.CHOICE,
        choices=("3 m", "4 m", "5 m", "No correct answer"),
        labels=("A", "B", "C", "D"),
        group=group,
        tags={"step": (steps,), "domain": ("d",), "concept": (concept,), "key": (key,), "option": ("A. 3 m",)},
    )


def problem(group: str, *scores: tuple[float, ...]) -> list[Result]:
    """Results of a composite problem: its one-step rows and then the last one, each with its scores by sample."""
    steps = len(scores) - 1
    keys = [f"{steps}steps_{number}" for number in range(1, steps + 1)] + [f"{steps}steps_multi"]
    return [Result(item=item(key=key, group=group), scores=each) for key, each in zip(keys, scores, strict=True)]


def bits(group: str, pattern: str) -> list[Result]:
    return problem(group, *((float(bit),) for bit in pattern))


def real(data: Path, pattern: dict[str, str]) -> list[Result]:
    """Results on the real items, from the bits of each problem: its steps in order, the composite last."""
    place = {"1": 0, "2": 1, "3": 2, "multi": -1}
    return [
        Result(item=each, scores=(float(pattern[each.group][place[each.tags["key"][0].partition("_")[2]]]),))
        for each in loaded(data).items
    ]


def said(text: str) -> Response:
    return Response(item_id="1", text=text)


def value(name: str, rows: list[Result]) -> float | None:
    return TASK.metrics[name](rows).value


# The data


def test_the_folder_has_525_problems_of_three_or_four_rows(data: Path):
    items = loaded(data).items
    assert len(items) == 1740
    assert {each.id for each in items} == {str(number) for number in range(1, 1741)}
    assert Counter(Counter(each.group for each in items).values()) == {3: 360, 4: 165}
    assert Counter(each.tags["step"][0] for each in items) == {"one-step": 1215, "two-step": 360, "three-step": 165}
    assert Counter(each.gold for each in items) == {"A": 585, "B": 507, "C": 454, "D": 193, "E": 1}


def test_the_concepts_and_domains_are_those_of_the_published_tree(data: Path):
    nodes = json.loads((data / "wemath/data/knowledge_structure_nodes.json").read_text(encoding="utf-8"))
    tree: dict[str, set[str]] = {}
    for node in nodes:
        tree.setdefault(node["root2"], set()).add(node["full node"].rpartition("_")[2])
    assert {domain: set(concepts) for domain, concepts in DOMAINS.items()} == tree
    assert sum(map(len, DOMAINS.values())) == len(nodes) == 67


def test_every_one_step_row_has_one_concept_and_all_67_occur(data: Path):
    rows = [each for each in loaded(data).items if each.tags["step"] == ("one-step",)]
    assert all(len(each.tags["concept"]) == len(each.tags["domain"]) == 1 for each in rows)
    assert len({each.tags["concept"] for each in rows}) == 67


def test_every_option_string_is_taken_apart(data: Path):
    items = loaded(data).items
    assert all(each.gold in each.labels and all(each.choices) for each in items)
    labels = Counter("".join(each.labels) for each in items)
    assert labels == {"ABCDE": 1175, "ABCD": 559, "ABCDEF": 3, "ABCDEFG": 2, "ABCF": 1}
    assert sum(each.choices[-1].startswith("No correct answer") for each in items) == 1738


@pytest.mark.parametrize(
    ("text", "labels", "texts"),
    [
        ("A. 3;B. 4; C. 5", "ABC", ("3", "4", "5")),
        ("A. 4 B. 3 C. 2 ;D. 1; E. none", "ABCDE", ("4", "3", "2", "1", "none")),
        ("A. ①; ②;B．③", "AB", ("①; ②", "③")),  # noqa: RUF001
        ("A. about ;O.;B. not about ;O.;C. No.; F. none", "ABCF", ("about ;O.", "not about ;O.", "No.", "none")),
        ("A. to get ;C.; B. to get ;C.; C. to get ;C.; D. none", "ABCD", (*("to get ;C.",) * 3, "none")),
        ("A. left;  ; B. right;  ; C. none", "ABC", ("left", "right", "none")),
        ("A. angle BE;G.; B. angle D", "AB", ("angle BE;G.", "angle D")),
        ("", "", ()),
    ],
)
def test_option_strings_with_stray_semicolons_are_taken_apart(text: str, labels: str, texts: tuple[str, ...]):
    assert options(text) == (tuple(labels), texts)


def test_the_twelve_strings_with_stray_semicolons_are_listed(data: Path):
    broken = set()
    for each in loaded(data).items:
        parts = [part.strip() for part in each.tags["option"][0].replace("．", ".").split(";")]  # noqa: RUF001
        if [part[:2] for part in parts] != [f"{label}." for label in "ABCDEFG"[: len(parts)]]:
            broken.add(each.id)
    assert len(broken) == 12
    assert {key for key, why in TASK.bad_items.items() if "semicolon" in why} == broken


def test_options_that_stand_twice_are_listed(data: Path):
    twice = {each.id for each in loaded(data).items if len(set(each.choices)) < len(each.choices)}
    assert {key for key, why in TASK.bad_items.items() if "same text" in why} == twice


def test_pictures_are_decoded_whatever_their_name_says(data: Path):
    sizes = []
    for each in loaded(data).items[:40]:
        image = each.images[0].read()
        if image.startswith(b"\xff\xd8"):  # JPEG data in a .png file
            sizes.append(decode(image, name=each.id).size)
    assert sizes
    assert all(min(size) > 10 for size in sizes)


def test_a_row_becomes_an_item_in_the_group_of_its_problem():
    found = to_item(ROW)
    assert (found.id, found.group, found.gold) == ("1", "2steps_1", "B")
    assert found.choices == ("3 m", "4 m", "No correct answer")
    assert found.tags["domain"] == ("Basic Transformations of Figures",)
    assert found.tags["step"] == ("one-step",)


def test_a_composite_row_has_the_concepts_of_its_steps():
    found = to_item(ROW | {"key": "2steps_multi", "knowledge concept": "Rotation;Parallel"})
    assert found.tags["concept"] == ("Rotation", "Parallel")
    assert found.tags["domain"] == ("Basic Transformations of Figures", "Understanding of Plane Figures")
    assert found.tags["step"] == ("two-step",)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"knowledge concept": "Alchemy"}, "Alchemy"),
        ({"key": "4steps_1"}, "4steps_1"),
        ({"answer": "D"}, "'D' of"),
        ({"option": "3 or 4"}, "of \\(\\)"),
    ],
)
def test_a_row_that_is_not_we_math_is_refused_with_what_is_wrong(change: dict[str, object], named: str):
    with pytest.raises(DatasetError, match=named):
        to_item(ROW | change)


def test_an_image_path_cannot_lead_out_of_the_folder(tmp_path: Path):
    (tmp_path / "testmini.json").write_text(json.dumps([{"image_path": "../../secret.png"}]), encoding="utf-8")
    with pytest.raises(DatasetError, match="leads out"):
        list(TASK.read_folder(tmp_path, "testmini"))


def test_images_stand_beside_the_records(tmp_path: Path):
    (tmp_path / "data").mkdir()
    record = {"image_path": "2steps/image/1-1.png"}
    (tmp_path / "data" / "testmini.json").write_text(json.dumps([record]), encoding="utf-8")
    row = next(iter(TASK.read_folder(tmp_path, "testmini")))
    assert row["images"] == (ImageFile(tmp_path / "data" / "2steps" / "image" / "1-1.png"),)


# The prompts


def test_the_official_prompt_shows_the_options_as_published():
    assert TASK.prompts["official"].render(to_item(ROW)).text == (
        "Now, we require you to solve a multiple-choice math question. Please briefly describe your thought process "
        "and provide the final answer(option).\nQuestion: How far?\nOption: A. 3 m;B. 4 m; C. No correct answer\n"
        "Regarding the format, please answer following the template below, and be sure to include two <> symbols:\n"
        "<Thought process>: <<your thought process>> <Answer>: <<your option>>"
    )


def test_the_vlmevalkit_prompt_lists_the_options():
    text = TASK.prompts["vlmevalkit"].render(to_item(ROW)).text
    assert text.startswith("Hint: Now, we require you")
    assert text.endswith("\nQuestion: How far?\nOptions:\nA. 3 m\nB. 4 m\nC. No correct answer\n")


def test_the_think_prompt_is_the_question_with_its_options_under_a_system_prompt():
    prompt = TASK.prompts["think"].render(to_item(ROW))
    assert prompt.text == "How far?\n(A) 3 m\n(B) 4 m\n(C) No correct answer"
    assert prompt.system is not None
    assert "<think>" in prompt.system


# The scorers


def test_every_published_extraction_comes_out_as_in_the_authors_script(metric_examples: Path):
    cases = json.loads((metric_examples / "wemath_extraction.json").read_text(encoding="utf-8"))["cases"]
    assert len(cases) == 15
    for case in cases:
        verdict = OFFICIAL.read(item(), said(case["input"]["response"]))
        letter = case["expected"]["processed_answer"]
        assert verdict.extracted == letter, case
        wanted = Status.NO_ANSWER if letter is None else Status.CORRECT if letter == "B" else Status.WRONG
        assert verdict.status is wanted, case


def test_every_gold_is_right_under_the_rules(data: Path):
    for each in loaded(data).items:
        assert OFFICIAL.read(each, said(f"<Answer>: <<{each.gold}>>")).correct
        assert OFFICIAL.compare(each, each.gold or "").correct
        assert KIT.read(each, said(f"Answer: {each.gold}")).correct, each.id
        assert KIT.compare(each, each.gold or "").correct


def test_the_last_answer_counts():
    assert OFFICIAL.read(item(), said("Answer: A. No: Answer: B")).correct


@pytest.mark.parametrize(
    ("response", "status"),
    [
        ("Answer: B", Status.CORRECT),
        ("4 M", Status.CORRECT),
        ("Answer: A", Status.WRONG),
        ("Cannot determine the answer", Status.WRONG),
        ("A or B", Status.NO_ANSWER),
        ("", Status.NO_ANSWER),
    ],
)
def test_vlmevalkits_prefetch_decides_or_leaves_it_to_the_judge(response: str, status: Status):
    assert KIT.read(item(), said(response)).status is status


def test_a_judges_letter_is_compared_and_its_z_is_wrong():
    assert KIT.compare(item(), "B").correct
    assert KIT.compare(item(), "Z").status is Status.WRONG


@pytest.mark.parametrize("text", ["Answer" * 200_000, ">" * 1_000_000, "Answer: " + "<" * 1_000_000, "\x00\ud800", "İ"])
def test_hostile_text_is_no_answer_and_no_error(text: str):
    assert OFFICIAL.read(item(), said(text)).status is Status.NO_ANSWER
    assert KIT.read(item(), said(text)).status is Status.NO_ANSWER


# The metrics


def test_every_pattern_of_bits_has_its_published_outcome(metric_examples: Path):
    patterns = json.loads((metric_examples / "wemath_group_patterns.json").read_text(encoding="utf-8"))["patterns"]
    assert len(patterns) == 8 + 16
    for pattern in patterns:
        *steps, multi = (bit == "1" for bit in pattern["bits"])
        assert outcome(steps, multi) == pattern["strict"], pattern
        assert outcome(steps, multi, loose=True) == pattern["loose"], pattern


def test_the_reference_runs_give_every_published_number(data: Path, metric_examples: Path):
    cases = json.loads((metric_examples / "wemath_full_metric.json").read_text(encoding="utf-8"))["cases"]
    assert len(cases) == 13
    for case in cases:
        rows, wanted = real(data, case["input"]["bits_by_ID"]), case["expected"]
        found = {tag: value("concept_macro", part) for tag, part in by_tag(rows, "domain").items()}
        found |= {"One-step(S1)": value("s1", rows), "Two-step(S2)": value("s2", rows)}
        found |= {"Three-step(S3)": value("s3", rows)}
        assert {name: f"{number:.2%}" for name, number in found.items() if number is not None} == {
            name: f"{percent:.2f}%" for name, percent in wanted["accuracy"].items()
        }, case["name"]
        four = wanted["four_dimensional"]
        if "error" in four:  # 0 / 0 in the authors' script
            assert value("rm_strict", rows) is value("rm_loose", rows) is None
            continue
        for name, numbers in four.items():
            kind, _, mode = name.removesuffix(")").partition(" (")
            metric = NAMES[kind] if kind in ("InsufficientKnowledge", "InadequateGeneralization") else None
            found_value = value(metric or f"{NAMES[kind]}_{mode.lower()}", rows)
            assert f"{found_value:.2%}" == f"{numbers['percent']:.2f}%", (case["name"], name)


def test_the_reference_scores_are_met_exactly(data: Path, metric_examples: Path):
    for case in json.loads((metric_examples / "wemath_full_metric.json").read_text(encoding="utf-8"))["cases"]:
        rows, wanted = real(data, case["input"]["bits_by_ID"]), case["expected"]["hand_counts"]
        assert value("score_strict", rows) == pytest.approx(wanted["strict"], abs=1e-12)
        assert value("score_loose", rows) == pytest.approx(wanted["loose"], abs=1e-12)
        assert value("ik", rows) == pytest.approx(wanted["IK"] / 525, abs=1e-12)
        assert value("cm_loose", rows) == pytest.approx(wanted["CMl"] / 525, abs=1e-12)


def test_the_score_weighs_mastery_one_and_missing_generalization_one_half():
    # CM, IG, IK, RM (loosely CM): strict (1 + 1/2) / 4, loose (2 + 1/2) / 4
    rows = bits("a", "111") + bits("b", "110") + bits("c", "100") + bits("d", "1011")
    assert value("score_strict", rows) == 1.5 / 4
    assert value("score_loose", rows) == 2.5 / 4
    assert value("rm_strict", rows) == 1 / 2
    assert value("rm_loose", rows) == 0.0
    assert TASK.metrics["score_strict"](rows).n == 4
    assert TASK.metrics["rm_strict"](rows).n == 2


def test_the_order_of_rows_changes_nothing():
    rows = bits("a", "1101") + bits("b", "110")
    assert TASK.metrics["score_loose"](rows[::-1]).value == TASK.metrics["score_loose"](rows).value == 0.75


def test_the_standard_error_is_that_of_a_mean_over_problems():
    # Scores 1, 1/2, 0, 0: mean 3/8, squared deviations 25/64 + 1/64 + 9/64 + 9/64 = 44/64, over 3 and over 4.
    rows = bits("a", "111") + bits("b", "110") + bits("c", "100") + bits("d", "101")
    assert TASK.metrics["score_strict"](rows).stderr == pytest.approx((44 / 64 / 3 / 4) ** 0.5)


def test_of_several_samples_the_outcome_is_taken_within_each():
    # Sample 0: all right, CM. Sample 1: only the composite, RM. Mixing them would make it a CM twice.
    rows = problem("a", (1.0, 0.0), (1.0, 0.0), (1.0, 1.0))
    assert value("score_strict", rows) == 0.5
    assert value("cm_strict", rows) == 0.5
    assert value("rm_strict", rows) == 0.5
    assert value("ik", rows) == 0.0


def test_a_missing_row_is_refused_and_named():
    rows = bits("2steps_7", "111") + bits("3steps_9", "1111")[1:]
    for name in ("score_strict", "score_loose", "ik", "ig", "cm_strict", "rm_strict", "cm_loose", "rm_loose"):
        with pytest.raises(IncompleteRunError, match="problem 3steps_9"):
            TASK.metrics[name](rows)


def test_a_missing_composite_row_is_refused():
    with pytest.raises(IncompleteRunError, match="2steps_multi"):
        TASK.metrics["ik"](bits("2steps_7", "111")[:2])


def test_uneven_samples_are_refused():
    with pytest.raises(IncompleteRunError, match="number of samples"):
        TASK.metrics["ik"](problem("a", (1.0, 1.0), (1.0,), (1.0,)))


def test_concepts_weigh_the_same_whatever_their_size():
    # Rotation: 1 of 3, Parallel: 1 of 1; the composite row does not count.
    scored = [("a", "Rotation", 1.0), ("b", "Rotation", 0.0), ("c", "Rotation", 0.0), ("d", "Parallel", 1.0)]
    rows = [Result(item=item(group=group, concept=concept), scores=(score,)) for group, concept, score in scored]
    rows.append(Result(item=item(key="2steps_multi", group="e"), scores=(1.0,)))
    estimate = TASK.metrics["concept_macro"](rows)
    assert estimate.value == pytest.approx((1 / 3 + 1) / 2)
    assert estimate.n == 4


def test_steps_are_scored_apart():
    rows = bits("a", "100") + bits("b", "1111")
    assert value("s1", rows) == 4 / 5
    assert value("s2", rows) == 0.0
    assert value("s3", rows) == 1.0


def test_a_step_without_rows_has_no_value():
    assert value("s3", bits("a", "111")) is None


def test_vlmevalkit_reads_what_the_only_answer_tag_holds() -> None:
    response = Response(item_id="1", text="<think>maybe A or B</think><answer>C</answer>")

    verdict = TASK.scorers["vlmevalkit"].read(item("C"), response)

    assert (verdict.status, verdict.extracted) == (Status.CORRECT, "C")
