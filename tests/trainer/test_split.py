"""The difficulty split: the paper's rule as it stands, no overlap, counts that add up, and hostile records."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from ahabench.harness.errors import AhabenchError, DatasetError, UsageError
from ahabench.trainer.commands import curate
from ahabench.trainer.data import Kind, load_records
from ahabench.trainer.sft_data import load_demonstrations
from ahabench.trainer.split import SplitConfig, split, split_file

PLAIN = "<think>There are two red cubes and one blue cube.</think> **Answer:** 3"
AHA = "<think>There are two cubes. Wait, I miscounted. There are three.</think> **Answer:** 3"
SUBSTRING = "<think>The cube leans against the checkered wall.</think> **Answer:** 3"


def record(name: str, trace: str | None = PLAIN, **values: Any) -> dict[str, Any]:
    row = {"id": name, "image": f"clevr_math/{name}.png", "question": "How many cubes?", "gt": 3, "ds_answer": trace}
    return {**row, **values}


def ids(rows: Any) -> list[str]:
    return [row["id"] for row in rows]


def divided(*rows: dict[str, Any], **settings: Any) -> Any:
    return split(rows, SplitConfig(records=Path("x"), **settings), name="x")


@pytest.mark.parametrize(
    "sentence",
    [
        "Wait.",
        "I count again.",
        "Let me double-check.",
        "Hmm.",
        "A mistake.",
        "Alternatively, add.",
        "I CHECK it.",
        "I should confirm it.",
    ],
)
def test_each_keyword_of_the_paper_sends_a_record_to_rl(sentence: str) -> None:
    found = divided(record("a", f"<think>{sentence}</think> 3"), record("b"))
    assert (ids(found.sft), ids(found.rl)) == (["b"], ["a"])


def test_the_papers_rule_takes_words_inside_words_and_ours_does_not() -> None:
    rows = [record("a", SUBSTRING), record("b", AHA), record("c")]
    assert ids(divided(*rows).rl) == ["a", "b"]
    assert ids(divided(*rows, rule="ahabench").rl) == ["b"]


def test_the_papers_rule_reads_the_answer_after_the_thought_too() -> None:
    trace = "<think>Two and one.</think> Check: three. **Answer:** 3"
    assert ids(divided(record("a", trace)).rl) == ["a"]
    assert ids(divided(record("a", trace), rule="ahabench").rl) == []


def test_the_report_says_how_the_two_rules_agree() -> None:
    found = divided(record("a", SUBSTRING), record("b", AHA), record("c"), record("d"))
    other = found.report["other_rule"]
    assert (other["n"], other["both"], other["only_rule"], other["only_other"]) == (4, 1, 1, 0)
    # Observed 3/4; by chance 1/2 * 1/4 + 1/2 * 3/4 = 1/2; (3/4 - 1/2) / (1/2) = 1/2.
    assert other["kappa"] == pytest.approx(0.5)


def test_no_prompt_stands_on_both_sides() -> None:
    rows = [
        record("a", AHA, image="clevr_math/1.png"),
        record("b", PLAIN, image="clevr_math/./1.png", question="<image>How  many\ncubes?"),
        record("c", PLAIN, image="clevr_math/1.png", question="How many spheres?"),
    ]
    found = divided(*rows)
    assert (ids(found.sft), ids(found.rl)) == (["c"], ["a", "b"])
    assert found.report["drawn_along"] == 1
    by_image = divided(*rows, together="image")
    assert (ids(by_image.sft), ids(by_image.rl)) == ([], ["a", "b", "c"])


def test_a_source_for_rl_alone_needs_no_trace() -> None:
    found = divided(record("g", None, image="geoqa170k/1.png"), record("c"))
    assert (ids(found.sft), ids(found.rl)) == (["c"], ["g"])
    with pytest.raises(DatasetError, match="wanted a text as 'ds_answer', found none"):
        divided(record("g", None, image="geoqa170k/1.png"), rl_only=())


def test_counts_are_by_the_folder_of_the_image() -> None:
    rows = [
        record("a", AHA),
        record("b"),
        record("c", AHA, image="coco/train2017/1.jpg"),
        record("synthesis-2", image=None),
    ]
    assert divided(*rows).report["sources"] == {
        "clevr_math": {"records": 2, "sft": 1, "rl": 1},
        "coco": {"records": 1, "sft": 0, "rl": 1},
        "synthesis": {"records": 1, "sft": 1, "rl": 0},
    }


def test_rl_records_have_no_trace_and_the_reward_of_their_source() -> None:
    rows = [
        record("a", AHA),
        record("b", AHA, image="coco/1.jpg", verifier_type="mcq"),
        record("c", AHA, image="own/1.png"),
        record("d", AHA, image="docvqa/1.png"),
    ]
    found = divided(*rows, verifier_types={"docvqa": "digit"})
    assert not any("ds_answer" in row for row in found.rl)
    assert [row.get("verifier_type") for row in found.rl] == ["digit", "mcq", None, "digit"]
    assert found.report["without_verifier_type"] == 1


def test_a_threshold_asks_for_more_hits() -> None:
    once, twice = record("a", "<think>Wait.</think>"), record("b", "<think>Wait. Wait.</think>")
    assert ids(divided(once, twice, min_hits=2).rl) == ["b"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (record("x", image="../../etc/passwd"), "leaves the image folder"),
        (record("x", image="/etc/passwd"), "leaves the image folder"),
        (record("x", image=[{"a": 1}]), "wanted a path as 'image'"),
        (record("x", image=""), "wanted a path as 'image'"),
        (record("x", ["wait"]), "wanted a text as 'ds_answer'"),  # type: ignore[arg-type]
        (record("x", "  "), "wanted a text as 'ds_answer'"),
        (record("x", question=None), "wanted a text as 'question'"),
        (record("x", gt=float("nan")), "cannot be written as JSON"),
        (record("ok"), "repeats the id 'ok'"),
        ({"question": "?"}, "wanted a text as 'id'"),
    ],
)
def test_a_bad_record_stops_the_split_or_is_left_out_and_counted(bad: dict[str, Any], why: str) -> None:
    with pytest.raises(DatasetError, match=why):
        divided(record("ok"), bad)
    found = divided(record("ok"), bad, skip_bad=True)
    assert ids(found.sft) == ["ok"]
    assert found.rl == ()
    assert found.report["skipped"]["n"] == 1


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(UsageError, match="vlaa_data_split"):
        divided(record("a"), rule="vlaa_data_splt")


# On disk, by the command.


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    (folder / "clevr_math").mkdir(parents=True)
    rows = [record("a", AHA), record("b"), record("c", SUBSTRING), record("d \ud800")]
    for row in rows:
        row["image"] = f"clevr_math/{row['id'][0]}.png"
        Image.new("RGB", (8, 8)).save(folder / row["image"])
    path = folder / "distilled.json"
    path.write_text(json.dumps(rows))
    return path


def run(*arguments: object) -> str:
    app = typer.Typer(add_completion=False)
    app.add_typer(curate, name="curate")
    result = CliRunner().invoke(app, ["curate", "split", *map(str, arguments)])
    if isinstance(result.exception, AhabenchError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_what_is_written_trains(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown = run(source, "--out", out)
    assert shown.splitlines()[-2:] == [str(out / "sft.jsonl"), str(out / "rl.jsonl")]
    rl = load_records(out / "rl.jsonl", images=source.parent).items
    assert [(item.item.id, item.kind, item.gold) for item in rl] == [("a", Kind.DIGIT, "3"), ("c", Kind.DIGIT, "3")]
    sft = load_demonstrations(out / "sft.jsonl", images=source.parent).items
    assert [one.id for one in sft] == ["b", "d \ud800"]
    assert sft[0].completion.endswith("<answer>3</answer>")


def test_the_table_adds_up(source: Path, tmp_path: Path) -> None:
    shown = run(source, "--out", tmp_path / "out")
    assert shown.splitlines()[3].split() == ["all", "4", "2", "2", "50.0"]


def test_the_same_records_give_the_same_bytes(source: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    run(source, "--out", first)
    run(source, "--out", second)
    for name in ("sft.jsonl", "rl.jsonl", "split.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_settings_come_from_a_file_and_flags_win(source: Path, tmp_path: Path) -> None:
    config = tmp_path / "split.yaml"
    config.write_text(f"records: {source}\nrule: ahabench\ntogether: image\n")
    found = json.loads(run(config, "--out", tmp_path / "1", "--json"))
    assert (found["rule"]["name"], found["together"], found["rl"]) == ("ahabench", "image", 1)
    found = json.loads(run(config, "--out", tmp_path / "2", "--json", "--rule", "vlaa_data_split"))
    assert (found["rule"]["name"], found["together"], found["rl"]) == ("vlaa_data_split", "image", 2)


def test_an_unknown_setting_is_refused(source: Path, tmp_path: Path) -> None:
    config = tmp_path / "split.yaml"
    config.write_text(f"records: {source}\nruel: ahabench\n")
    with pytest.raises(UsageError, match="ruel"):
        run(config, "--out", tmp_path / "1")


def test_an_earlier_split_is_not_overwritten(source: Path, tmp_path: Path) -> None:
    run(source, "--out", tmp_path)
    with pytest.raises(UsageError, match="exists already"):
        split_file(SplitConfig(records=source), tmp_path)


def test_a_file_that_is_no_json_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bomb.json"
    path.write_text("[" * 200_000)
    with pytest.raises(DatasetError, match="not JSON"):
        run(path, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
