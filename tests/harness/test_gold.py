"""Every gold of every data set at hand is right on itself, as people write answers down."""

from pathlib import Path

import pytest

from ahabench.harness import registry
from ahabench.harness.dataset import load, without_images
from ahabench.harness.score import judge_one
from ahabench.harness.types import Item, Response, Status

SPLITS = [
    ("mathvista", "testmini"),
    ("mathvision", "test"),
    ("mathverse", "vision_only"),
    ("mathverse", "text_only"),
    ("dynamath", "sample"),
    ("wemath", "testmini"),
    ("logicvista", "test"),
]
FORMS = {
    "bare": "{}",
    "tag": "<think>Let me see.</think><answer>{}</answer>",
    "boxed": "So the result is \\boxed{{{}}}.",
    "sentence": "The answer is {}.",
}
OFFICIAL_REFUSES = {
    # Only the response is normalised, so what stands raw in these golds can never be met.
    "mathvision": {"2804", "2828", "2833", "2866", "2875", "2877"},
    # Golds whose option's text holds letters in brackets, which the authors' rule reads as labels.
    "mathvista": {"168", "849"},
    # Not annotated: no gold.
    "logicvista": {"v1_382"},
}
"""Items whose gold the authors' own rules refuse, with the reason."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_robust_accepts_every_gold(data: Path, name: str, split: str, form: str) -> None:
    task = registry.find_task(name)
    scorer = task.scorers["robust"]
    items = [item for item in load(task, split, data=data).items if item.id not in scorer.excluded]

    refused = [
        (item.id, item.gold, verdict.rule)
        for item in without_images(items)
        if not (verdict := judge_one(scorer, item, _written(item, FORMS[form]))).correct
    ]

    assert refused == []


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_official_accepts_every_gold_but_the_listed(data: Path, name: str, split: str) -> None:
    task = registry.find_task(name)
    scorer = task.scorers["official"]
    items = without_images(load(task, split, data=data).items)

    refused = {
        item.id for item in items if judge_one(scorer, item, _official_answer(name, item)).status is not Status.CORRECT
    }

    assert refused - OFFICIAL_REFUSES.get(name, set()) == set()


def _written(item: Item, form: str) -> Response:
    return Response(item_id=item.id, text=form.format(item.gold))


def _official_answer(name: str, item: Item) -> Response:
    texts = {"wemath": f"<Answer>: <<{item.gold}>>", "dynamath": f'{{"short answer": "{item.gold}"}}'}
    text = texts.get(name, item.gold)
    return Response(item_id=item.id, text=text, extraction=item.gold)


CONTENT_FORMS = {name: form for name, form in FORMS.items() if name != "bare"} | {
    "final line": "Step 1: Look.\nStep 2: Think.\n†Answer: {}",
    "letter too": "The answer is ({label}) {}.",
}
CONTENT_MISREAD = {
    # Two sentences, of which the first alone is another option's beginning.
    "mathvision": {"491", "2516"},
    # The option is an asterisk, which is markup in a sentence.
    "dynamath": {"500_v1", "501_v1", "500_v4", "501_v8", "501_v9"},
}
"""Items whose option's content, given for the letter, is not read, with the reason."""


@pytest.mark.parametrize("form", CONTENT_FORMS)
@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_robust_accepts_the_right_options_content_for_its_letter(data: Path, name: str, split: str, form: str) -> None:
    task = registry.find_task(name)
    items = [item for item in without_images(load(task, split, data=data).items) if item.choices and item.gold]

    refused = {
        item.id
        for item in items
        if item.gold in item.labels and not _names_a_label(content := _content(item), item)
        if not judge_one(
            task.scorers["robust"],
            item,
            Response(item_id=item.id, text=CONTENT_FORMS[form].format(content, label=item.gold)),
        ).correct
    }

    assert refused - CONTENT_MISREAD.get(name, set()) == set()


def _content(item: Item) -> str:
    return item.choices[item.labels.index(item.gold or "")]


def _names_a_label(content: str, item: Item) -> bool:
    """Whether the content is itself an option's label: then it means that option."""
    return content.strip("() ").upper() in item.labels
