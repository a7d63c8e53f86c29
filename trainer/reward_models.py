"""Reward models as scorers of open-ended answers: the S of `rewards.relative_reward`.

The paper's is InternLM-XComposer2.5-Reward, on the machine of the training and off the GPU while it has nothing to
score (arXiv:2504.11468, appendix C.1). One interface, `rewards.AnswerScorer`, holds for all of them:

    caption-similarity   a sentence encoder, embedded, for a CPU (trainer.similarity); it does not see the image
    classifier           any AutoModelForSequenceClassification in this process; it does not see the image
    xcomposer            a checkpoint whose own code has `get_score(chat, images, hd_num=9)`, in this process
    classify-server      vLLM's /classify, asked for the logit of one class; sees the image
    judge-server         any chat server, asked for a grade from 0 to 10; sees the image

What is not scored (a failure, a time limit, a number that is not finite) is `None`, so that the completion is masked:
a 0 would teach that the answer was bad. Too many of those stop the run.
"""

import math
import queue
import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol, TypeVar

from ahabench.harness.checkpoint import find_checkpoint
from ahabench.harness.endpoint import one_line
from ahabench.harness.errors import AhabenchError, UsageError
from ahabench.harness.images import decode
from ahabench.harness.report import note
from ahabench.trainer.recipe import RewardModel
from ahabench.trainer.rewards import AnswerScorer, Claim

HD_NUM = 9
"""Tiles into which xcomposer cuts an image, at most: its model card's value."""

_IMAGE_MARK = "<ImageHere>"
_T = TypeVar("_T")


class RewardModelError(AhabenchError):
    """The reward model scores too little for training to go on."""

    exit_code = 5  # an incomplete run


class Failure(NamedTuple):
    """Why an answer has no score."""

    why: str


class Source(Protocol):
    """One way to have answers scored."""

    def ask(self, claims: Sequence[Claim]) -> list[float | Failure]:
        """Return a score or a failure per claim; never raises over a claim."""
        ...


class LocalModel(Protocol):
    """A model in this process."""

    def scores(self, claims: Sequence[Claim]) -> list[float]:
        """Return one score per claim, or raise whatever the model raises."""
        ...

    def move(self, device: str) -> None:
        """Bring the weights to a device."""
        ...


def open_scorer(settings: RewardModel) -> AnswerScorer:
    """Return the scorer that a recipe asks for, its weights on the CPU; servers are not contacted yet.

    Raises:
        UsageError: the model lacks weights for its score, or brings code that is not trusted; or a URL is unusable.
        EngineError: there is no such checkpoint.
    """
    if settings.kind == "caption-similarity":
        from ahabench.trainer.similarity import CaptionSimilarity

        return CaptionSimilarity()
    assert settings.model is not None, "the settings were checked"
    source: Source
    if settings.url is not None:
        from ahabench.trainer.reward_servers import ClassifyServer, JudgeServer, Served

        server = ClassifyServer if settings.kind == "classify-server" else JudgeServer
        source = Served(server(settings), workers=settings.batch)
    else:
        local = Classifier if settings.kind == "classifier" else XComposer
        source = InProcess(
            local(settings), batch=settings.batch, timeout_s=settings.timeout_s, offload=settings.offload
        )
    return WatchedScorer(source, max_failures=settings.max_failures, window=settings.failure_window)


class WatchedScorer:
    """Scores through a source: equal claims once, references once in a run, and failures counted.

    Args:
        source: is asked.
        max_failures: share of the last `window` answers that may be without a score.
        window: answers; a shorter history counts as if the rest had been scored.
    """

    def __init__(self, source: Source, *, max_failures: float, window: int) -> None:
        self._source = source
        self._failures: deque[bool] = deque(maxlen=window)
        self._most = max_failures * window
        self._golds: dict[tuple[str, str], float] = {}

    def score(self, claims: Sequence[Claim]) -> list[float | None]:
        """Return S of each claim, `None` where there is none; the first failure of a call is said on stderr.

        Raises:
            RewardModelError: too many of the last answers have no score.
        """
        wanted = {_key(claim): claim for claim in claims if _key(claim) not in self._golds}
        found: dict[tuple[str, str], float] = {}
        whys: list[str] = []
        for (key, claim), score in zip(wanted.items(), self._source.ask(list(wanted.values())), strict=True):
            if not isinstance(score, Failure) and not math.isfinite(score):
                score = Failure(f"the score is {score}")
            self._failures.append(isinstance(score, Failure))
            if isinstance(score, Failure):
                whys.append(score.why)
                continue
            found[key] = score
            if claim.answer == claim.item.gold:
                self._golds[key] = score
        if whys:
            note(f"reward model: {len(whys)} of {len(wanted)} answers not scored and masked; the first: {whys[0]}")
        self._check(whys)
        scores = self._golds | found
        return [scores.get(_key(claim)) for claim in claims]

    def _check(self, whys: Sequence[str]) -> None:
        failed = sum(self._failures)
        if whys and failed > self._most:
            raise RewardModelError(
                f"{failed} of the last {len(self._failures)} answers could not be scored, wanted at most "
                f"{self._most:g} in {self._failures.maxlen}; the last: {whys[-1]}. Look after the reward model, or "
                "leave open-ended records out with kinds=[digit,mcq,math,iou]"
            )


def _key(claim: Claim) -> tuple[str, str]:
    return claim.item.item.id, claim.answer


class InProcess:
    """A model in this process as a source: in batches, each with a time limit, off the GPU in between.

    A batch that raises is repeated claim by claim, so that one bad picture costs one score. A forward pass cannot be
    interrupted: after a time limit the rest of the call fails at once, until the model has come back.

    Args:
        model: the model.
        batch: claims in a forward pass.
        timeout_s: of a batch.
        offload: whether the weights go back to the CPU after every call.
        device: where scoring happens; the current GPU, or the CPU where there is none, if `None`.
    """

    def __init__(
        self, model: LocalModel, *, batch: int, timeout_s: float, offload: bool, device: str | None = None
    ) -> None:
        self._model = model
        self._batch = batch
        self._timeout_s = timeout_s
        self._offload = offload
        self._device = device or _device()
        self._worker = _Worker()

    def ask(self, claims: Sequence[Claim]) -> list[float | Failure]:
        """Return a score or a failure per claim."""
        if not claims:
            return []
        found: list[float | Failure] = []
        moved = self._try(lambda: self._model.move(self._device))
        for start in range(0, len(claims), self._batch):
            chunk = claims[start : start + self._batch]
            found += [moved] * len(chunk) if isinstance(moved, Failure) else self._chunk(chunk)
        if self._offload:
            self._try(lambda: self._model.move("cpu"))
        return found

    def _chunk(self, claims: Sequence[Claim]) -> Sequence[float | Failure]:
        scores = self._try(lambda: self._model.scores(claims))
        if not isinstance(scores, Failure):
            return scores
        if len(claims) == 1 or self._worker.busy:
            return [scores] * len(claims)
        return [score for claim in claims for score in self._chunk([claim])]

    def _try(self, job: Callable[[], _T]) -> _T | Failure:
        if self._worker.busy:
            return Failure("the model is still at work on an earlier batch")
        done = self._worker.start(job)
        try:
            return done.result(self._timeout_s)
        # A model, its code or a picture may raise anything; whatever it is, it concerns these claims only.
        except Exception as error:
            if not done.done():
                return Failure(f"no score within {self._timeout_s:g} s")
            return Failure(one_line(f"{type(error).__name__}: {error}"))


class _Worker:
    """A thread that does one job after the other, and does not keep the process from ending."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._last: Future[Any] | None = None
        threading.Thread(target=self._work, daemon=True, name="reward model").start()

    @property
    def busy(self) -> bool:
        """Whether the last job is not done."""
        return self._last is not None and not self._last.done()

    def start(self, job: Callable[[], _T]) -> "Future[_T]":
        """Hand over a job."""
        done: Future[_T] = Future()
        self._last = done
        self._jobs.put((done, job))
        return done

    def _work(self) -> None:
        while True:
            done, job = self._jobs.get()
            try:
                done.set_result(job())
            except BaseException as error:
                done.set_exception(error)


class Classifier:
    """Any sequence classifier as a reward model: the logit of one class, unbounded, for question and answer as text.

    They are the two turns of a chat where the tokenizer has a chat template, and a pair of texts otherwise.

    Raises:
        UsageError: the checkpoint lacks weights, so that its score would be random; or it has no such class.
    """

    def __init__(self, settings: RewardModel) -> None:
        from transformers import AutoModelForSequenceClassification

        folder = find_checkpoint(str(settings.model)).path
        loader: Any = AutoModelForSequenceClassification
        self._model, self._tokenizer = _load(loader, folder, settings)
        if settings.label >= self._model.config.num_labels:
            raise UsageError(f"{settings.model} has {self._model.config.num_labels} classes, no label {settings.label}")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        # A decoder's class stands at its last token, which it finds by this.
        self._model.config.get_text_config().pad_token_id = self._tokenizer.pad_token_id
        self._marks = re.compile("|".join(map(re.escape, _special(self._tokenizer))) or r"(?!)")
        self._label = settings.label
        self._max_tokens = settings.max_tokens

    def scores(self, claims: Sequence[Claim]) -> list[float]:
        """Return the logit for each claim.

        Raises:
            ValueError: one is too long.
        """
        import torch

        inputs = self._inputs([(self._plain(claim.item.item.question), self._plain(claim.answer)) for claim in claims])
        if inputs["input_ids"].shape[1] > self._max_tokens:
            longest = inputs["input_ids"].shape[1]
            raise ValueError(f"question and answer have {longest} tokens, wanted at most {self._max_tokens}")
        with torch.inference_mode():
            logits = self._model(**inputs.to(self._model.device)).logits  # [N, classes]
        return [float(score) for score in logits[:, self._label]]

    def move(self, device: str) -> None:
        """Bring the weights to a device."""
        self._model.to(device)

    def _inputs(self, pairs: Sequence[tuple[str, str]]) -> Any:
        if not self._tokenizer.chat_template:
            questions, answers = map(list, zip(*pairs, strict=True))
            return self._tokenizer(questions, answers, padding=True, return_tensors="pt")
        chats = [
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            for question, answer in pairs
        ]
        texts = [self._tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
        return self._tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")

    def _plain(self, text: str) -> str:
        """Return a text without the tokenizer's marks, with which a policy could open a turn of its own."""
        while self._marks.search(text):
            text = self._marks.sub("", text)
        return text


class XComposer:
    """A reward model of InternLM-XComposer2.5-Reward's interface, which is Python code of the checkpoint's.

    That code was written for transformers 4 and was not tried with 5; where it does not run, a server is the way.
    Images are handed over as files, as it wants them.
    """

    def __init__(self, settings: RewardModel) -> None:
        from transformers import AutoModel

        if not settings.trust_remote_code:
            raise UsageError(f"{settings.model} brings its own code; read it, then set reward_model.trust_remote_code")
        loader: Any = AutoModel
        self._model, self._tokenizer = _load(loader, find_checkpoint(str(settings.model)).path, settings)
        if not callable(getattr(self._model, "get_score", None)):
            raise UsageError(f"the code of {settings.model} has no get_score; kind=classifier may fit")
        self._model.tokenizer = self._tokenizer

    def scores(self, claims: Sequence[Claim]) -> list[float]:
        """Return `get_score` of each claim."""
        import torch

        with torch.inference_mode(), TemporaryDirectory(prefix="ahabench-") as folder:
            return [self._score(claim, Path(folder)) for claim in claims]

    def move(self, device: str) -> None:
        """Bring the weights to a device."""
        self._model.to(device)

    def _score(self, claim: Claim, folder: Path) -> float:
        item = claim.item.item
        paths = [str(folder / f"{number}.png") for number in range(len(item.images))]
        for image, path in zip(item.images, paths, strict=True):
            decode(image.read(), name=item.id).save(path)
        question, answer = (text.replace(_IMAGE_MARK, "") for text in (item.question, claim.answer))
        chat = [
            {"role": "user", "content": _IMAGE_MARK * len(paths) + question},
            {"role": "assistant", "content": answer},
        ]
        return float(self._model.get_score(chat, paths, hd_num=HD_NUM))


def _load(loader: Any, folder: Path, settings: RewardModel) -> tuple[Any, Any]:
    """Return a model on the CPU, in evaluation mode, and its tokenizer."""
    import torch
    from transformers import AutoTokenizer

    tokenizers: Any = AutoTokenizer
    trust = settings.trust_remote_code
    dtype = "auto" if torch.cuda.is_available() else torch.float32
    try:
        model, report = loader.from_pretrained(folder, dtype=dtype, trust_remote_code=trust, output_loading_info=True)
        tokenizer = tokenizers.from_pretrained(folder, trust_remote_code=trust)
    except (OSError, ValueError, ImportError, AttributeError, RuntimeError) as error:
        if "trust_remote_code" in str(error):
            raise UsageError(
                f"{settings.model} brings its own code, which runs with your rights; read it, then set "
                "reward_model.trust_remote_code=true"
            ) from error
        raise UsageError(
            f"the reward model {settings.model} cannot be loaded: {one_line(f'{type(error).__name__}: {error}')}"
        ) from error
    if absent := sorted(map(str, report["missing_keys"])):
        raise UsageError(
            f"{settings.model} lacks weights that a score needs, such as {absent[0]}: it is no reward model, and these "
            "would be random"
        )
    return model.eval().requires_grad_(False), tokenizer


def _special(tokenizer: Any) -> list[str]:
    # The longest first, or one that begins with another would leave its end.
    return sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}, key=len, reverse=True)


def _device() -> str:
    import torch

    return f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
