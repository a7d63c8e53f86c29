"""Behaviours named by a judge on a real HTTP server, and the agreement of the lexicon with it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ahabench.harness.aha.behaviours import Behaviour, classify, summary
from ahabench.harness.aha.summary import ReadResponse, read_all
from ahabench.harness.aha.told import Told
from ahabench.harness.aha_commands import aha
from ahabench.harness.errors import AhabenchError, JudgeError, UsageError
from ahabench.harness.judge import Judge

Serve = Callable[..., Any]

CHECKS = "The sum is 5. Let me double-check: 2 + 3 is 5."
MISREAD = "The sum is 5. Wait, I misread the axis. It is 6."
PLAIN = "The sum is 5."
QUIET = "The sum is 5, and 5 less 3 is 2, as it must be."


def read(*texts: str) -> list[ReadResponse]:
    return read_all([Told(item_id=str(i), text=text, question="2 + 3?") for i, text in enumerate(texts)])


def answering(by_text: dict[str, str | None]) -> Callable[[Any], str]:
    return lambda call: json.dumps({"answer": by_text[call.quoted]})


def test_each_response_has_what_the_judge_names(serve: Serve) -> None:
    said = answering({CHECKS: "verification, subgoal_setting", MISREAD: " Backtracking", PLAIN: None})
    with Judge(serve(said).url, "reader") as judge:
        found = classify(judge, read(CHECKS, MISREAD, PLAIN))
    assert [one.behaviours for one in found] == [
        {Behaviour.VERIFICATION, Behaviour.SUBGOAL_SETTING},
        {Behaviour.BACKTRACKING},
        set(),
    ]


def test_the_judge_is_told_the_four_behaviours_and_that_text_is_no_instruction(serve: Serve) -> None:
    server = serve(lambda _: '{"answer": null}')
    with Judge(server.url, "reader") as judge:
        classify(judge, read(PLAIN))
    (call,) = server.readings
    assert all(behaviour.value in call.body["messages"][0]["content"] for behaviour in Behaviour)
    assert "never an instruction" in call.body["messages"][0]["content"]
    assert (call.quoted, call.body["temperature"]) == (PLAIN, 0)
    assert "2 + 3?" in call.body["messages"][1]["content"]


@pytest.mark.parametrize("reply", ['{"answer": "verification, reflection"}', '{"answer": "yes"}', "verification"])
def test_a_reply_that_names_anything_else_is_unreadable_and_not_guessed(serve: Serve, reply: str) -> None:
    with Judge(serve(lambda _: reply).url, "reader") as judge:
        found = classify(judge, read(PLAIN))
        told = summary(judge, found)
    assert found[0].behaviours is None
    assert (told["n"], told["unreadable"], told["failed"]) == (0, 1, 0)


def test_a_judge_that_goes_leaves_responses_unjudged(serve: Serve) -> None:
    with Judge(serve(lambda _: (403, {}, b"closed")).url, "reader") as judge:
        told = summary(judge, classify(judge, read(PLAIN, MISREAD)))
    assert (told["n"], told["failed"], told["behaviours"]["verification"]["with"]["value"]) == (0, 2, None)


def test_a_judge_that_cannot_be_reached_is_refused_before_anything_is_asked() -> None:
    with Judge("http://127.0.0.1:9/v1", "reader", timeout_s=1) as judge, pytest.raises(JudgeError):
        classify(judge, read(PLAIN))


def test_agreement_with_the_lexicon_is_counted(serve: Serve) -> None:
    said = answering({CHECKS: "verification", MISREAD: "verification", PLAIN: None, QUIET: "verification"})
    with Judge(serve(said).url, "reader") as judge:
        told = summary(judge, classify(judge, read(CHECKS, MISREAD, PLAIN, QUIET)))
    # The judge: yes yes no yes; the lexicon's verifications: yes no no no.
    # They agree on 2 of 4; by chance on 3/4 * 1/4 + 1/4 * 3/4 = 3/8; (1/2 - 3/8) / (5/8) = 1/5.
    found = told["agreement"]["verification"]
    assert {key: found[key] for key in ("both", "only_judge", "only_lexicon", "neither")} == {
        "both": 1,
        "only_judge": 2,
        "only_lexicon": 0,
        "neither": 1,
    }
    assert found["kappa"] == pytest.approx(0.2)
    # Any moment: yes yes no no. Agree on 3 of 4; by chance 3/4 * 1/2 + 1/4 * 1/2 = 1/2; 1/2.
    assert told["agreement"]["reflection"]["kappa"] == pytest.approx(0.5)
    assert told["behaviours"]["verification"]["with"]["value"] == 0.75
    assert told["agreement"].keys() == {"verification", "backtracking", "reflection"}


def test_the_cache_remembers_and_keeps_the_two_questions_apart(serve: Serve, tmp_path: Path) -> None:
    from ahabench.harness.types import AnswerType, Item, Response

    server = serve(lambda call: json.dumps({"answer": "5" if "final answer" in call.prompt else "verification"}))
    responses = read(CHECKS)
    for _ in range(2):
        with Judge(server.url, "reader", cache=tmp_path / "judge.sqlite") as judge:
            (one,) = classify(judge, responses)
            item = Item(id="0", question="2 + 3?", gold=None, answer_type=AnswerType.TEXT)
            (answer,) = judge.extract_all([(item, Response(item_id="0", text=CHECKS))])
        assert (one.behaviours, answer.answer) == ({Behaviour.VERIFICATION}, "5")
    assert len(server.readings) == 2


def test_a_limit_draws_the_same_responses_each_time(serve: Serve) -> None:
    server = serve(lambda _: '{"answer": null}')
    responses = read(*(f"The sum is {n}." for n in range(50)))
    with Judge(server.url, "reader") as judge:
        first, second = (classify(judge, responses, limit=5) for _ in range(2))
    drawn = [one.response.told.item_id for one in first]
    assert drawn == [one.response.told.item_id for one in second] == sorted(drawn, key=int)
    assert len(set(drawn)) == 5


# The command.


def run(*arguments: object) -> str:
    app = typer.Typer(add_completion=False)
    app.command("aha")(aha)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, AhabenchError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def responses(tmp_path: Path) -> Path:
    path = tmp_path / "said.jsonl"
    path.write_text("".join(json.dumps({"response": text, "question": "?"}) + "\n" for text in (CHECKS, PLAIN)))
    return path


def test_the_commands_judge_stands_beside_the_lexicon_and_changes_no_count(
    serve: Serve, responses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    server = serve(answering({CHECKS: "backward_chaining", PLAIN: None}))
    asked = ("--judge", server.url, "--judge-model", "reader")
    alone = json.loads(run(responses, "--json"))["summary"]
    found = json.loads(run(responses, "--json", *asked))["summary"]
    told = found.pop("behaviours")
    assert found == alone
    assert told["judge"]["served_model"] == "reader-2026-01-31"
    assert told["behaviours"]["backward_chaining"]["with"]["value"] == 0.5
    table = run(responses, *asked, "--html", tmp_path / "aha.html")
    assert "backward chaining" in table
    assert "Behaviours by reader" in (tmp_path / "aha.html").read_text()


def test_a_judge_needs_its_model(responses: Path) -> None:
    with pytest.raises(UsageError, match="goes with --judge-model"):
        run(responses, "--judge", "http://127.0.0.1:9/v1")
    with pytest.raises(UsageError, match="--judge-limit goes with"):
        run(responses, "--judge-limit", "3")
