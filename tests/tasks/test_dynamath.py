import functools
import json
from collections import Counter
from pathlib import Path

import pytest

from ahabench.harness.dataset import Dataset, load
from ahabench.harness.errors import DatasetError
from ahabench.harness.images import ImageFile
from ahabench.harness.types import AnswerType, Item, Response, Status
from ahabench.tasks.dynamath import TASK, to_item

OFFICIAL, KIT = TASK.scorers["official"], TASK.scorers["vlmevalkit"]
TYPES = {"float": AnswerType.FLOAT, "multiple choice": AnswerType.CHOICE, "text": AnswerType.TEXT}


@functools.cache
def loaded(data: Path) -> Dataset:
    return load(TASK, data=data)


def item(answer_type: AnswerType, gold: str) -> Item:
    labels = tuple("ABCDEF") if answer_type is AnswerType.CHOICE else ()
    return Item(id="1_v1", question="What?", gold=gold, answer_type=answer_type, labels=labels, group="1")


def said(text: str) -> Response:
    return Response(item_id="1_v1", text=text)


def short(answer: str) -> Response:
    return said(json.dumps({"solution": "steps", "short answer": answer}, ensure_ascii=False))


# The data


def test_the_folder_has_501_seeds_in_ten_variants_of_constant_type_subject_and_level(data: Path):
    items = loaded(data).items
    assert len(items) == 5010
    kinds: dict[str, set[object]] = {}
    for each in items:
        kinds.setdefault(each.group, set()).add((each.answer_type, each.tags["subject"], each.tags["level"]))
    assert len(kinds) == 501
    assert all(len(kind) == 1 for kind in kinds.values())
    assert Counter(each.answer_type for each in items) == {"float": 2960, "choice": 1740, "text": 310}


def test_the_subjects_and_levels_have_their_published_sizes(data: Path):
    first = [each for each in loaded(data).items if each.id.endswith("_v1")]
    assert Counter(each.tags["level"][0] for each in first) == {
        "high school": 277,
        "undergraduate": 161,
        "elementary school": 63,
    }
    assert Counter(each.tags["subject"][0] for each in first) == {
        "statistics": 125,
        "analytic geometry": 97,
        "plane geometry": 77,
        "algebra": 51,
        "graph theory": 48,
        "scientific figure": 45,
        "arithmetic": 26,
        "puzzle test": 17,
        "solid geometry": 15,
    }


def test_every_multiple_choice_gold_is_a_label_of_its_question(data: Path):
    choice = [each for each in loaded(data).items if each.answer_type is AnswerType.CHOICE]
    assert Counter(each.gold for each in choice) == {"B": 697, "A": 619, "C": 220, "D": 161, "E": 37, "F": 6}
    assert all(each.gold in each.labels for each in choice)
    assert all(len(each.choices) in (0, len(each.labels)) for each in choice)
    assert {each.group for each in choice if not each.choices} == {"127", "139", "140"}  # options in the picture


def test_images_of_the_folder_can_be_read(data: Path):
    first = loaded(data).items[0]
    assert first.id == "1_v1"
    assert first.images[0].read().startswith(b"\x89PNG")


def test_a_row_of_the_hub_gives_the_same_item_as_a_row_of_the_folder():
    folder = {
        "id": "7",
        "variant": 3,
        "question": "Bigger? choice: (A) yes (B) no ",
        "answer": "B",
        "answer_type": "multiple choice",
        "subject": "algebra",
        "level": "high school",
        "images": (),
    }
    hub = {**folder, "hub_split": "sample_variant3", "image": "image/image7.png"}
    del hub["variant"]
    assert to_item(hub) == to_item(folder)
    assert to_item(hub).id == "7_v3"
    assert to_item(hub).choices == ("yes", "no")


def test_options_on_lines_of_their_own_are_read():
    row = {
        "id": "9",
        "variant": 1,
        "question": "What is the union of sets A and B?\nA: [1, 4]\nB: [3]\nC: [1, 3, 4]\n",
        "answer": "C",
        "answer_type": "multiple choice",
        "subject": "arithmetic",
        "level": "high school",
        "images": (),
    }
    assert to_item(row).labels == ("A", "B", "C")
    assert to_item(row).choices == ("[1, 4]", "[3]", "[1, 3, 4]")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"answer_type": "essay"}, "essay"),
        ({"answer": "C"}, "'C' is none of"),
        ({"hub_split": "train"}, "train"),
        ({"answer_type": "float", "answer": "about 3"}, "about 3"),
        ({"question": "no options"}, "none of the options"),
    ],
)
def test_a_row_that_is_not_dynamath_is_refused_with_what_is_wrong(change: dict[str, object], named: str):
    row = {
        "id": "7",
        "hub_split": "sample_variant1",
        "question": "Bigger? (A) yes (B) no",
        "answer": "B",
        "answer_type": "multiple choice",
        "subject": "algebra",
        "level": "high school",
        "images": (),
    }
    with pytest.raises(DatasetError, match=named):
        to_item(row | change)


def test_a_missing_trial_is_named(tmp_path: Path):
    (tmp_path / "10trials" / "trial1").mkdir(parents=True)
    with pytest.raises(DatasetError, match="trial1"):
        list(TASK.read_folder(tmp_path, "sample"))


def test_a_clone_of_the_repository_is_read_as_well(tmp_path: Path):
    record = {
        "question": "How much?",
        "answer": "1.5",
        "image": "image/image1.png",
        "answer_type": "float",
        "subject": "algebra",
        "level": "undergraduate",
    }
    for trial in range(1, 11):
        folder = tmp_path / "samples and result" / "10trials" / f"trial{trial}"
        folder.mkdir(parents=True)
        (folder / "dataset.json").write_text(json.dumps({"1": record}), encoding="utf-8")
    items = list(TASK.items_of(TASK.read_folder(tmp_path, "sample")))
    assert [each.id for each in items] == [f"1_v{variant}" for variant in range(1, 11)]
    assert items[1].images == (
        ImageFile(tmp_path / "samples and result" / "10trials" / "trial2" / "image" / "image1.png"),
    )
    assert items[0].tolerance == 0.001


def test_an_image_path_cannot_lead_out_of_the_folder(tmp_path: Path):
    record = {"question": "?", "answer": "1", "image": "../../../../etc/passwd", "answer_type": "float"}
    folder = tmp_path / "10trials" / "trial1"
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps({"1": record}), encoding="utf-8")
    row = next(iter(TASK.read_folder(tmp_path, "sample")))
    assert row["images"] == (ImageFile(folder / "image" / "passwd"),)


def test_bad_items_are_items(data: Path):
    assert set(TASK.bad_items) <= {each.id for each in loaded(data).items}


# The prompts


def test_the_official_prompt_asks_for_json_and_a_float():
    text = TASK.prompts["official"].render(item(AnswerType.FLOAT, "1")).text
    assert text.startswith("## Question\nWhat?Please answer in a floating-point number.\n## Answer Instruction Please")
    assert "should adhere \nto the following JSON format" in text
    assert text.endswith('format:\n\n{\n    "solution": "[Detailed step-by-step explanation]",\n'
                         '    "short answer": "[Concise Answer]"\n}')  # fmt: skip


def test_the_official_prompt_has_no_float_hint_for_a_choice():
    text = TASK.prompts["official"].render(item(AnswerType.CHOICE, "A")).text
    assert text.startswith("## Question\nWhat?\n## Answer Instruction")


@pytest.mark.parametrize(
    ("answer_type", "instruction"),
    [
        (AnswerType.CHOICE, "a concise response. Provide the corresponing choice option in the 'short answer' key,"),
        (AnswerType.FLOAT, "a concise response. Format the answer as a three-digit floating-point number and provide"),
        (AnswerType.TEXT, "a concise response. Float numbers in the answer should be formatted as three-digit"),
    ],
)
def test_the_vlmevalkit_prompt_instructs_by_type(answer_type: AnswerType, instruction: str):
    text = TASK.prompts["vlmevalkit"].render(item(answer_type, "1")).text
    assert text.startswith("## Question\n What?\n## Answer Instruction Please provide")
    assert instruction in text
    assert "adhere to the following JSON format" in text


def test_the_think_prompt_is_the_bare_question_under_a_system_prompt():
    prompt = TASK.prompts["think"].render(item(AnswerType.FLOAT, "1"))
    assert prompt.text == "What?"
    assert prompt.system is not None
    assert "<think>" in prompt.system


# The scorers


def test_every_published_case_comes_out_as_in_both_reference_scorers(metric_examples: Path):
    cases = json.loads((metric_examples / "dynamath_item_rules.json").read_text(encoding="utf-8"))["cases"]
    assert len(cases) == 24
    for case in cases:
        asked, wanted = case["input"], case["expected"]
        one = item(TYPES[asked["answer_type"]], asked["answer"])
        verdict = OFFICIAL.read(one, said(asked["response"]))
        assert verdict.correct == wanted["official_github"]["correct"], case
        answer = wanted["official_github"]["short_answer"]
        assert (verdict.extracted or "") == ("" if answer is None else str(answer)), case
        verdict, wanted = KIT.read(one, said(asked["response"])), wanted["vlmevalkit"]
        assert (verdict.status is Status.NO_ANSWER) == wanted.get("needs_judge", False), case
        if "needs_judge" not in wanted:
            assert verdict.correct == wanted["correct"], case
            assert verdict.extracted == str(wanted["extracted"]), case


def test_every_gold_is_right_under_the_official_rules(data: Path):
    wrong = [each.id for each in loaded(data).items if not OFFICIAL.read(each, short(each.gold or "")).correct]
    assert wrong == []


def test_every_gold_alone_is_right_under_vlmevalkits_rules(data: Path):
    for each in loaded(data).items:
        assert KIT.read(each, short(each.gold or "")).correct, each.id
        assert KIT.compare(each, each.gold or "").correct, each.id


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("0.5009", Status.CORRECT),
        ("0.4991", Status.CORRECT),
        ("0.501", Status.WRONG),  # as floats, 0.501 - 0.5 > 0.001
        ("0.5 metres", Status.CORRECT),
        ("metres: 0.5", Status.WRONG),
        ("1/2", Status.WRONG),
        ("50%", Status.WRONG),
        ("5e-1", Status.CORRECT),
        ("nan", Status.WRONG),
        ("inf", Status.WRONG),
        ("½", Status.WRONG),
        ("²", Status.WRONG),
        ("", Status.NO_ANSWER),
    ],
)
def test_official_numbers_count_within_a_thousandth(answer: str, status: Status):
    assert OFFICIAL.read(item(AnswerType.FLOAT, "0.5"), short(answer)).status is status


def test_official_pi_multiplies_the_number_before_it():
    # 1.5 * 3.14159... = 4.71238..., what follows π is dropped
    assert OFFICIAL.read(item(AnswerType.FLOAT, "4.7124"), short("1.5π/7 rad")).correct


def test_official_letters_are_sought_in_three_characters_with_their_case():
    gold_b = item(AnswerType.CHOICE, "B")
    assert OFFICIAL.read(gold_b, short("(B) no")).correct
    assert not OFFICIAL.read(gold_b, short("b")).correct
    assert not OFFICIAL.read(gold_b, short("is B")).correct


def test_official_text_contains_the_gold_and_vlmevalkits_is_part_of_it():
    gold = item(AnswerType.TEXT, "Sep")
    assert OFFICIAL.read(gold, short("September")).correct
    assert not OFFICIAL.read(gold, short("september")).correct
    assert not KIT.read(gold, short("September")).correct
    assert KIT.read(gold, short("sep")).correct


def test_official_without_json_takes_the_last_line_but_its_last_character():
    gold = item(AnswerType.FLOAT, "2.5")
    assert OFFICIAL.read(gold, said("So:\n2.5.")).correct
    assert not OFFICIAL.read(gold, said("So:\n2.5")).correct  # "2."


def test_backslashes_go_where_there_are_braces():
    answer = said('{"solution": "\\frac{1}{2}", "short answer": "\\(0.5"}')
    # The answer becomes "(0.5", no number for the authors; for VLMEvalKit neither, and it asks its judge.
    assert OFFICIAL.read(item(AnswerType.FLOAT, "0.5"), answer).extracted == "(0.5"
    assert KIT.read(item(AnswerType.FLOAT, "0.5"), answer).status is Status.NO_ANSWER


def test_official_compare_settles_a_judges_extraction_by_the_same_rules():
    assert OFFICIAL.compare(item(AnswerType.CHOICE, "B"), "(B)").correct
    assert OFFICIAL.compare(item(AnswerType.FLOAT, "2"), "x = 2").status is Status.WRONG
    assert OFFICIAL.compare(item(AnswerType.TEXT, "Sep"), "").status is Status.NO_ANSWER


def test_vlmevalkit_reads_the_one_letter_up_to_e_that_occurs_anywhere():
    assert KIT.read(item(AnswerType.CHOICE, "B"), said("so it is b!")).correct
    assert KIT.read(item(AnswerType.CHOICE, "B"), said("the ninth")).extracted == "E"
    assert KIT.read(item(AnswerType.CHOICE, "B"), said("A or B")).status is Status.NO_ANSWER


def test_vlmevalkit_compare_leaves_an_unreadable_judge_without_an_answer():
    assert KIT.compare(item(AnswerType.FLOAT, "2"), "2.0005 m").correct
    assert KIT.compare(item(AnswerType.FLOAT, "2"), "two").status is Status.NO_ANSWER
    assert KIT.compare(item(AnswerType.TEXT, "Sep"), "Dec").status is Status.WRONG


HOSTILE = {
    "nested lists": '{"short answer": ' + "[" * 100_000,
    "closed nested lists": '{"short answer": ' + "[" * 3_000 + "]" * 3_000 + "}",
    "half the recursion limit": '{"short answer": ' + "[" * 700 + "]" * 700 + "}",
    "nested objects": '{"k":' * 100_000 + "}" * 100_000,
    "a number of many digits": '{"short answer": ' + "9" * 10_000 + "}",
    "a string of many digits": json.dumps({"short answer": "9" * 1_000_000}),
    "an exponent": '{"short answer": 1e999999999}',
    "not a number": '{"short answer": NaN}',
    "a list": '["short answer"]',
    "an object as answer": '{"short answer": {"a": 1}}',
    "true": '{"short answer": true}',
    "braces": "{" * 500_000 + "}" * 500_000,
    "backslashes": "{" + "\\" * 500_000 + "}",
    "nul and surrogates": '{"short answer": "\x00\ud800"}',
    "one brace": "{",
    "other brace": "}",
    "pi": '{"short answer": "ππ"}',
    "digits elsewhere": '{"short answer": "٣"}',
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(("answer_type", "gold"), [("float", "1.5"), ("multiple choice", "A"), ("text", "Sep")])
def test_hostile_text_is_neither_right_nor_an_error(name: str, answer_type: str, gold: str):
    one = item(TYPES[answer_type], gold)
    for scorer in (OFFICIAL, KIT):
        assert not scorer.read(one, said(HOSTILE[name])).correct
        assert not scorer.compare(one, HOSTILE[name]).correct


def test_an_empty_text_is_part_of_every_gold_for_vlmevalkit():
    assert KIT.read(item(AnswerType.TEXT, "Sep"), said("")).correct


def test_a_response_that_was_never_generated_is_no_answer():
    assert OFFICIAL.read(item(AnswerType.FLOAT, "1"), Response(item_id="1_v1", text=None)).status is Status.NO_ANSWER
