"""A run as logs of Inspect, and those with Inspect's own viewer as a folder for any static host."""

import io
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ahabench.harness.errors import DatasetError, UsageError
from ahabench.harness.manifest import Manifest, read_manifest
from ahabench.harness.types import Item
from ahabench.leaderboards.run_items import Answered, answered, chosen_tasks, think_and_answer
from ahabench.leaderboards.runs import model_name

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample
    from inspect_ai.model import Content

SHARD = 200
"""Responses in one log: what a browser loads at a time."""
IMAGE_PIXELS = 768 * 768
"""Larger images are shown smaller."""
BUNDLED = frozenset({"assets", "content-security-policy.json", "index.html", "logs", "robots.txt"})
"""What Inspect's viewer has in its folder."""
EPOCH = "1970-01-01T00:00:00+00:00"
"""Logs want a time of creation; derived files have none."""


def write_logs(
    run: Path,
    out: Path,
    *,
    data: Path | None = None,
    images: bool = True,
    task: str | None = None,
    against: Path | None = None,
) -> list[Path]:
    """Write a run's responses as logs of Inspect, at most `SHARD` in each, and return them.

    Each sample has the rendered prompt with the image, the response with its thought apart, the verdict ("C" or "I")
    and as metadata how it was read, its tags, and where the aha moments stand.

    Args:
        run: a run directory.
        out: folder for the logs, which is made; it must not hold other logs.
        data: where the items are, as for `dataset.load`.
        images: whether the pictures are copied in; a data set's licence may forbid it.
        task: this one; all if `None`.
        against: another run, whose verdicts make the column "flip": "fixed", "broken" or "same".

    Raises:
        UsageError: inspect-ai is not installed, `out` holds something, or a file is damaged.
        DatasetError: the items are not at hand.
    """
    _require()
    from inspect_ai.log import write_eval_log

    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty; give a new folder for the logs")
    out.mkdir(parents=True, exist_ok=True)
    manifest = read_manifest(run)
    written = []
    for name in chosen_tasks(manifest, run, task):
        for number, part in enumerate(_parts(answered(run, manifest, name, data=data, against=against)), start=1):
            path = out / f"{name}-{number:04d}.eval"
            write_eval_log(_log(part, manifest, name, number, images=images), str(path))
            written.append(path)
    return written


def refuse_foreign(out: Path) -> None:
    """Raise where a bundle may not stand, before hours go into its logs: whatever stands there is deleted.

    Raises:
        UsageError: the folder holds what is no part of an earlier bundle.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"{out} is no folder; give a new one")
    entries = sorted(out.iterdir()) if out.exists() else []
    logs = sorted((out / "logs").iterdir()) if out / "logs" in entries else []
    foreign = [path for path in entries if path.name not in BUNDLED]
    foreign += [path for path in logs if path.suffix != ".eval" and path.name != "listing.json"]
    if foreign or (entries and not logs):
        what = foreign[0].relative_to(out) if foreign else "no logs"
        raise UsageError(f"{out} holds {what}, so it is no earlier bundle and is not replaced; give a new folder")


def bundle(logs: Path, out: Path) -> None:
    """Write a folder of logs with Inspect's viewer into a folder.

    Args:
        logs: from `write_logs`.
        out: the folder; an earlier bundle there is replaced.

    Raises:
        UsageError: as `refuse_foreign`.
    """
    from inspect_ai.log import bundle_log_dir

    refuse_foreign(out)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "site"
        # It tells stdout where it works, which is the command's.
        with redirect_stdout(io.StringIO()):
            bundle_log_dir(str(logs), str(made))
        if out.exists():
            shutil.rmtree(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, out)


def _require() -> None:
    try:
        import inspect_ai  # noqa: F401
    except ImportError as error:
        raise UsageError("the item browser needs Inspect's viewer: pip install 'ahabench[view]'") from error


def _parts(rows: Iterable[Answered]) -> Iterator[list[Answered]]:
    iterator = iter(rows)
    while part := list(islice(iterator, SHARD)):
        yield part


def _log(part: Sequence[Answered], manifest: Manifest, task: str, number: int, *, images: bool) -> "EvalLog":
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalMetric, EvalResults, EvalScore, EvalSpec, EvalStats

    samples = [_sample(one, images=images) for one in part]
    right = sum(one.verdict is not None and one.verdict["status"] == "correct" for one in part)
    judged = sum(one.verdict is not None and one.verdict["status"] != "error" for one in part)
    record = manifest.tasks[task]
    ids = list(dict.fromkeys(one.item.id for one in part))
    spec = EvalSpec(
        eval_id=f"{task}-{number:04d}",
        run_id=task,
        created=EPOCH,
        task=f"{task} {record.split} {number:04d}",
        task_id=f"{task}-{number:04d}",
        model=model_name(manifest) or "unknown",
        dataset=EvalDataset(name=f"{task} {record.split}", samples=len(samples), sample_ids=[*ids], shuffled=False),
        config=EvalConfig(epochs=max(one.response.sample_index for one in part) + 1),
        packages={name: version for name, version in manifest.packages.items() if name == "ahabench"},
        metadata={
            "prompt": f"{record.prompt.style}@{record.prompt.version}" if record.prompt else "unknown",
            "weights": manifest.model.weights_digest or "unknown",
            "data_digest": record.data_digest or "unknown",
        },
    )
    share = EvalMetric(name="accuracy of this part", value=right / judged if judged else 0.0)
    results = EvalResults(
        total_samples=len(samples),
        completed_samples=len(samples),
        scores=[EvalScore(name="verdict", scorer="verdict", metrics={"accuracy": share} if judged else {})],
    )
    stats = EvalStats(started_at=EPOCH, completed_at=EPOCH)
    return EvalLog(status="success", eval=spec, results=results, stats=stats, samples=samples)


def _sample(one: Answered, *, images: bool) -> "EvalSample":
    from inspect_ai.log import EvalSample
    from inspect_ai.model import (
        ChatCompletionChoice,
        ChatMessage,
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageUser,
        ModelOutput,
        ModelUsage,
    )

    key = f"{one.task}-{one.item.id}-{one.response.sample_index}"
    asked: list[ChatMessage] = []
    if one.prompt is not None and one.prompt.system:
        asked.append(ChatMessageSystem(id=f"{key}-system", content=one.prompt.system))
    asked.append(ChatMessageUser(id=f"{key}-user", content=_asked(one, images=images)))
    said = ChatMessageAssistant(id=f"{key}-assistant", content=_said(one.response.text))
    counts = one.response.prompt_tokens or 0, one.response.completion_tokens or 0
    usage = ModelUsage(input_tokens=counts[0], output_tokens=counts[1], total_tokens=sum(counts))
    return EvalSample(
        id=one.item.id,
        epoch=one.response.sample_index + 1,
        uuid=key,
        # What the list of samples shows; the messages have all that was asked.
        input=one.item.question,
        choices=list(one.item.choices) or None,
        target=one.item.gold or "",
        messages=[*asked, said],
        output=ModelOutput(
            model="",
            choices=[ChatCompletionChoice(message=said, stop_reason=_stop(one.response.finish_reason))],
            usage=usage,
        ),
        model_usage={"model": usage},
        scores=_scores(one),
        metadata=_metadata(one),
    )


def _asked(one: Answered, *, images: bool) -> "list[Content]":
    from inspect_ai.model import ContentText

    text = one.prompt.text if one.prompt is not None else one.item.question
    words: list[Content] = [ContentText(text=text)]
    pictures = _pictures(one.item) if images else [ContentText(text=f"[{len(one.item.images)} image(s) left out]")]
    if not one.item.images:
        return words
    return [*words, *pictures] if one.prompt is not None and one.prompt.image_last else [*pictures, *words]


def _pictures(item: Item) -> "list[Content]":
    from inspect_ai.model import ContentImage, ContentText

    from ahabench.harness.engines.data_uri import data_uri

    found: list[Content] = []
    for number, image in enumerate(item.images, start=1):
        try:
            sent = data_uri(image.read(), name=f"{number} of {item.id}", min_pixels=None, max_pixels=IMAGE_PIXELS)
            found.append(ContentImage(image=sent.uri))
        except DatasetError as error:
            found.append(ContentText(text=f"[image {number}: {error}]"))
    return found


def _said(text: str | None) -> "str | list[Content]":
    from inspect_ai.model import ContentReasoning, ContentText

    if text is None:
        return "[never generated]"
    thought, rest = think_and_answer(text)
    return text if thought is None else [ContentReasoning(reasoning=thought), ContentText(text=rest)]


def _stop(reason: str | None) -> Any:
    return {"stop": "stop", "length": "max_tokens"}.get(reason or "", "unknown")


def _scores(one: Answered) -> dict[str, Any] | None:
    from inspect_ai.scorer import Score

    if one.verdict is None:
        return None
    status = one.verdict["status"]
    value = "C" if status == "correct" else "I"
    how = f"{status}: {one.verdict.get('rule')}"
    verdict = Score(value=value, answer=one.verdict.get("extracted"), explanation=how)
    # Columns of their own, because the viewer filters and sorts by scores.
    found = {"verdict": verdict, "status": Score(value=status), "aha": Score(value=len(_moments(one)))}
    return found if one.flip is None else {**found, "flip": Score(value=one.flip)}


def _metadata(one: Answered) -> dict[str, Any]:
    verdict: Mapping[str, Any] = one.verdict or {}
    return {
        "status": verdict.get("status", "not scored"),
        "rule": verdict.get("rule"),
        "extracted": verdict.get("extracted"),
        "gold": one.item.gold,
        "cluster": one.item.cluster,
        "finish_reason": one.response.finish_reason,
        "completion_tokens": one.response.completion_tokens,
        "image_sizes": [list(size) for size in one.response.image_sizes or ()],
        # Text, which the viewer filters by: metadata.tags.grade == "college".
        "tags": {name: ", ".join(values) for name, values in one.item.tags.items()},
        "aha": _moments(one),
        "response": one.response.text,
    }


def _moments(one: Answered) -> list[dict[str, object]]:
    from ahabench.harness.aha.moments import moments

    text = one.response.text
    if text is None:
        return []
    return [{**moment.as_row(), "text": text[moment.start : moment.end]} for moment in moments(text, one.item.question)]
