"""`ahabench aha` on runs and files, as its users call it."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ahabench.harness.aha_commands import aha
from ahabench.harness.errors import UsageError

TEXT = "So the answer is 5. Wait, I misread the axis. So the answer is 6."
HOSTILE = '</pre><script>alert(1)</script>\nWait, I misread the <img src=x onerror="alert(1)"> axis.'


def run(*arguments: object) -> str:
    app = typer.Typer(add_completion=False)
    app.command("aha")(aha)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def responses(tmp_path: Path) -> Path:
    path = tmp_path / "responses.jsonl"
    rows = [
        {"item_id": "a", "response": TEXT, "question": "How many cubes are there?"},
        {"item_id": "b", "response": HOSTILE, "question": "What?"},
        {"item_id": "c", "response": "I'm not sure. Perhaps 5.", "question": "What?"},
        {"item_id": "d", "response": "Wait, let me check this again. " * 40, "question": "What?"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_json_with_spans_has_the_moments_and_nothing_else(responses: Path):
    found = json.loads(run(responses, "--json", "--spans"))
    assert list(found) == ["summary", "responses"]
    by_id = {row["item_id"]: row["moments"] for row in found["responses"]}
    assert (by_id["c"], by_id["d"]) == ([], [])
    (moment,) = by_id["a"]
    assert moment.keys() == {"class", "strength", "start", "end"}
    assert TEXT[moment["start"] : moment["end"]].startswith("Wait, I misread")
    assert moment["class"] == "correction"


def test_several_runs_are_told_apart(responses: Path, tmp_path: Path):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"item_id": "a", "response": "5", "question": "?"}))
    found = json.loads(run(responses, other, "--json", "--spans"))
    assert {name: summary["n"] for name, summary in found["summary"]["runs"].items()} == {
        str(responses): 4,
        str(other): 1,
    }
    assert {row["run"] for row in found["responses"]} == {str(responses), str(other)}


def test_the_table_names_what_it_counts(responses: Path):
    shown = run(responses)
    assert "with a moment %" in shown
    assert "correction" in shown
    assert "SimpleRL-Zoo" in shown


def test_spans_go_with_json(responses: Path):
    with pytest.raises(UsageError, match="--spans goes with --json"):
        run(responses, "--spans")


class Page(HTMLParser):
    """Collects what a browser would see of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.marked: list[str] = []
        self.styles: list[str] = []
        self.text = ""
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.inside == "mark":
            self.marked.append(data)
        if self.inside == "style":
            self.styles.append(data)


def page_of(*arguments: object, out: Path) -> Page:
    run(*arguments, "--html", out)
    page = Page()
    page.feed(out.read_text(encoding="utf-8"))
    return page


def test_the_report_escapes_what_models_write(responses: Path, tmp_path: Path):
    page = page_of(responses, out=tmp_path / "aha.html")
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags
    assert "img" not in tags
    assert page.marked.count("Wait, I misread") == 2
    assert HOSTILE in page.text
    assert not any(name.startswith("on") or name in {"src", "href"} for _, found in page.tags for name in found)


def test_the_reports_policy_allows_its_own_style_alone(responses: Path, tmp_path: Path):
    from base64 import b64encode
    from hashlib import sha256

    page = page_of(responses, out=tmp_path / "aha.html")
    policy: Any = next(found["content"] for tag, found in page.tags if tag == "meta" and "content" in found)
    (style,) = page.styles
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_a_lone_surrogate_costs_no_report(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"response": "\\ud800 Wait, I misread the axis.", "question": "?"}')
    page = page_of(path, out=tmp_path / "aha.html")
    assert page.marked


def test_a_training_run_shows_its_steps(tmp_path: Path):
    rows = [
        {"item_id": "a", "sample_index": step, "response": TEXT, "step": step, "reward": step / 10, "question": "?"}
        for step in range(4)
    ]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = json.loads(run(tmp_path / "run", "--json"))
    assert [row["step"] for row in found["summary"]["training"]["steps"]] == [0, 1, 2, 3]
    assert found["summary"]["training"]["baseline"]["step"] == 0
    assert "reward" in run(tmp_path / "run")


def test_the_card_is_written_where_it_is_asked_for(tmp_path: Path):
    passages = tmp_path / "p.jsonl"
    rows = [
        {"item_id": "a", "response": "Wait, no.", "moment": True, "class": "interruption", "source": "s#1"},
        {"item_id": "b", "response": "The sum is 3.", "moment": False, "class": "none", "source": "s#2"},
    ]
    passages.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "card.md"
    assert run("--report", passages, "--out", out).strip() == str(out)
    assert out.read_text().startswith("# How well moments are found")


def test_labels_without_outputs_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="--labels and --outputs go together"):
        run("--report", tmp_path / "p.jsonl", "--labels", tmp_path / "l.jsonl")


def test_a_run_is_judged_by_its_gold(shared: Path, tmp_path: Path):
    from ahabench.harness import registry, rescore
    from ahabench.harness.dataset import load

    task = registry.find_task("logicvista")
    item = next(item for item in load(task, data=shared / "data").items if item.gold in item.labels)
    wrong = next(label for label in item.labels if label != item.gold)
    said = f"So the answer is {wrong}. Wait, I misread the figure. So the answer is {item.gold}."
    file = tmp_path / "said.jsonl"
    file.write_text(json.dumps({"item_id": item.id, "response": said}))
    rescore.score_file(
        file,
        task,
        task.default_split,
        scorer="robust",
        data=shared / "data",
        out=tmp_path / "run",
        allow_missing=True,
    )
    found = json.loads(run(tmp_path / "run", "--data", shared / "data", "--json"))["summary"]
    assert found["changes"]["wrong_to_right"] == 1
    assert found["accuracy"]["with"]["value"] == 1.0


def test_data_without_a_manifest_is_refused(responses: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="--data goes with a run directory"):
        run(responses, "--data", tmp_path)


@pytest.fixture
def mini_run(tmp_path: Path) -> Path:
    """A run on LogicVista's built-in split: one response, which copies its question and then corrects itself."""
    from ahabench.harness import registry, rescore
    from ahabench.harness.dataset import load

    task = registry.find_task("logicvista")
    item = next(item for item in load(task, "mini").items if item.gold in item.labels)
    wrong = next(label for label in item.labels if label != item.gold)
    said = f"So the answer is {wrong}. Wait, I misread the figure. So the answer is {item.gold}."
    file = tmp_path / "said.jsonl"
    file.write_text(json.dumps({"item_id": item.id, "response": said}))
    out = tmp_path / "run"
    rescore.score_file(file, task, "mini", scorer="robust", data=None, out=out, allow_missing=True)
    return out


def test_built_in_questions_need_no_data(mini_run: Path, capfd: pytest.CaptureFixture[str]):
    found = json.loads(run(mini_run, "--json"))["summary"]
    # Without the item's gold it would only be "changed".
    assert found["changes"]["wrong_to_right"] == 1
    assert "questions are not known" not in capfd.readouterr().err


def test_built_in_questions_that_have_moved_since_are_not_taken_for_those_of_the_run(mini_run: Path):
    manifest = json.loads((mini_run / "run.json").read_text())
    manifest["tasks"]["logicvista"]["data_digest"] = "0" * 64
    (mini_run / "run.json").write_text(json.dumps(manifest))
    app = typer.Typer(add_completion=False)
    app.command("aha")(aha)
    result = CliRunner().invoke(app, [str(mini_run), "--json"])
    assert result.exit_code == 0
    assert "answered other items of logicvista mini" in result.stderr
    assert "questions are not known" in result.stderr
