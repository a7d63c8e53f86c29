"""The engine that answers with recorded responses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from ahabench.harness.engines import EngineInfo
from ahabench.harness.errors import DatasetError, UsageError
from ahabench.harness.manifest import MANIFEST, EngineRecord, ModelRecord, PixelsRecord, SamplingRecord, read_manifest
from ahabench.harness.prompts import digest
from ahabench.harness.runlog import RESPONSES, Key, parse_response, read_rows
from ahabench.harness.seen import read_digest
from ahabench.harness.types import Request, Response


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recording:
    response: Response
    prompt_sha256: str | None


class ReplayEngine:
    """Answers each request with the response that was recorded for its item and sample.

    A request without a recording gets an error response; so does one whose recording says that it answers another
    prompt or other image bytes, since a response to another question is not a response. Where several benchmarks of a
    run share an item id, the prompt tells them apart. Images are read only where the recording knows which it answers.

    Args:
        source: a run directory, or a JSONL of responses.
        model: whose they are, where the recording does not say.

    Raises:
        UsageError: there are no responses, or one of the files is damaged.
    """

    def __init__(self, source: Path, *, model: str | None = None) -> None:
        """Read all responses into memory."""
        self._source = source
        self._recordings: dict[Key, list[_Recording]] = {}
        for path in _files(source):
            for number, row in read_rows(path):
                response = parse_response(row, path, number)
                prompt = row.get("prompt_sha256")
                recording = _Recording(response=response, prompt_sha256=prompt if isinstance(prompt, str) else None)
                self._recordings.setdefault((response.item_id, response.sample_index), []).append(recording)
        self.info = _info(source, model)

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Yield the recorded responses, in the order of the requests."""
        for request in requests:
            yield self._answer(request)

    def _answer(self, request: Request) -> Response:
        key = (request.item_id, request.sample_index)
        recordings = self._recordings.get(key, [])
        wanted = digest(request.prompt, len(request.images))
        exact = [recording for recording in recordings if recording.prompt_sha256 == wanted]
        fitting = exact or [recording for recording in recordings if recording.prompt_sha256 is None]
        if not fitting:
            others = "only one for another prompt" if recordings else "none"
            return _failure(key, f"no recording of it in {self._source}: {others}")
        if len(fitting) > 1:
            return _failure(key, f"{len(fitting)} recordings of it in {self._source}; replay one benchmark's file")
        recorded = fitting[0].response
        if recorded.text is None:
            return _failure(key, recorded.error or f"recorded without a text in {self._source}")
        if recorded.images_sha256 is not None and request.images:
            try:
                shown = read_digest(request.images)
            except DatasetError as error:
                return _failure(key, str(error))
            if shown != recorded.images_sha256:
                return _failure(key, f"the recording in {self._source} answers another image")
        return replace(recorded, error=None)


def _failure(key: Key, error: str) -> Response:
    return Response(item_id=key[0], sample_index=key[1], text=None, finish_reason="error", error=error)


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UsageError(f"there is nothing to replay at {source}")
    files = [source / RESPONSES] if (source / RESPONSES).is_file() else sorted(source.glob(f"*/{RESPONSES}"))
    if not files:
        raise UsageError(f"{source} has no {RESPONSES} to replay")
    return files


def _info(source: Path, model: str | None) -> EngineInfo:
    """Return what is known of the recording. The responses are the recorded model's, so the record is too."""
    engine = EngineRecord(name="replay", version=version("ahabench"))
    run = source.parent if (source / RESPONSES).is_file() else source
    if not (run / MANIFEST).is_file():
        return EngineInfo(
            model=ModelRecord(name=model), engine=engine, sampling=SamplingRecord(), pixels=PixelsRecord()
        )
    manifest = read_manifest(run)
    return EngineInfo(model=manifest.model, engine=engine, sampling=manifest.sampling, pixels=manifest.pixels)
