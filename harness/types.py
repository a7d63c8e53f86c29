"""The words of ahabench: items, tasks, responses, verdicts and estimates."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

Row = Mapping[str, Any]
"""One raw record of a data set. Only a task's `to_item` reads it."""


class AnswerType(StrEnum):
    """How an item's gold is to be compared."""

    CHOICE = "choice"
    """One option; gold is its label from `Item.labels`."""
    CHOICES = "choices"
    """A set of options; gold is labels joined by ", "."""
    INTEGER = "integer"
    FLOAT = "float"
    TEXT = "text"
    LIST = "list"
    EXPRESSION = "expression"
    """A number or a formula, perhaps in LaTeX."""


class Status(StrEnum):
    """What became of one response. Everything but `ERROR` has a score."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    """Nothing could be read out of the response: counts as wrong, shown apart."""
    TRUNCATED = "truncated"
    """Cut off before an answer: counts as wrong, shown apart."""
    TIMEOUT = "timeout"
    """The verifier gave up: counts as wrong, shown apart."""
    ERROR = "error"
    """Never generated: no score at all, the run is incomplete."""


class ImageSource(Protocol):
    """An image that is read only when a model needs it."""

    def read(self) -> bytes:
        """Return the encoded bytes of the file.

        Raises:
            DatasetError: the file is not there.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One benchmark question with its gold."""

    id: str
    question: str
    gold: str | None
    """The reference answer; `None` where the authors withhold it."""
    answer_type: AnswerType
    images: tuple[ImageSource, ...] = ()
    choices: tuple[str, ...] = ()
    """The options' texts; empty where the options stand only in the picture."""
    labels: tuple[str, ...] = ()
    """The options' labels, such as ("A", "B", "C", "D"); as long as `choices` unless that is empty."""
    precision: int | None = None
    """Decimal places of a FLOAT gold, where the benchmark compares at that precision."""
    tolerance: float | None = None
    """Largest absolute difference that still counts as equal, where the benchmark names one."""
    unit: str | None = None
    group: str = ""
    """The cluster: items that stand or fall together. Empty means the item is its own cluster."""
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Values by dimension for breakdowns, such as {"subject": ("algebra",)}."""

    @property
    def cluster(self) -> str:
        """The unit of the statistics."""
        return self.group or self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """Text that an engine returned, or that somebody saved."""

    item_id: str
    sample_index: int = 0
    text: str | None
    """`None`: never generated."""
    finish_reason: str | None = None
    """"stop", "length", "error"; `None` where it is not known."""
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    """Of the prompt as the model read it: with its images' tokens, without padding."""
    image_sizes: tuple[tuple[int, int], ...] | None = None
    """(width, height) in pixels of each image as the model saw it, after all resizing; () where none was sent."""
    images_sha256: str | None = None
    """From `seen.images_digest`: which image bytes were asked about. The runner fills it in, engines need not."""
    error: str | None = None
    """Why there is no text."""
    extraction: str | None = None
    """An answer that somebody else (usually an official judge) read out of the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome for one response."""

    status: Status
    extracted: str | None = None
    """The answer as it was read."""
    rule: str
    """The rule that decided, such as "boxed/choice-label": extractor, then comparison."""

    @property
    def correct(self) -> bool:
        """Whether it counts as right."""
        return self.status is Status.CORRECT


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One item with the scores of its samples: what metrics aggregate."""

    item: Item
    scores: tuple[float, ...]
    """One per sample, in [0, 1], ordered by `sample_index`."""
    answers: tuple[str | None, ...] = ()
    """The extracted answer of each sample, for majority votes; `None` abstains."""

    @property
    def mean(self) -> float:
        """The average over the samples."""
        return sum(self.scores) / len(self.scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its uncertainty. All fields are fractions but `n`."""

    value: float | None
    """`None` where the quantity is undefined, such as a rate over nothing."""
    n: int
    """The items, or clusters where the metric is defined on clusters, that it rests on."""
    stderr: float | None
    """Standard error, clustered by `Item.cluster`; `None` with fewer than two clusters."""
    ci95: tuple[float, float] | None
    """Two-sided 95 % interval, inside [0, 1]."""


Metric = Callable[[Sequence[Result]], Estimate]
"""Aggregates results. Raises `IncompleteRunError` where it is defined on whole clusters and one has a hole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a model is asked, beside the images."""

    text: str
    system: str | None = None
    image_last: bool = False
    """Whether the images follow the text; they precede it otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptStyle:
    """A named, versioned way to ask. A style's version moves when any rendered prompt changes."""

    version: int
    render: Callable[[Item], Prompt]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """A named, versioned set of rules. Its version moves when any verdict can change.

    `read` takes an answer out of a response and compares it; `None` says that the rules need an extraction that
    somebody else (a judge) made. `compare` settles such an extraction. Where `read` finds nothing it says NO_ANSWER.
    """

    version: int
    read: Callable[[Item, Response], Verdict] | None
    compare: Callable[[Item, str], Verdict]
    excluded: frozenset[str] = frozenset()
    """Items that this scorer leaves out, by id; the task's `bad_items` says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubDataset:
    """Where a split stands on the Hugging Face hub."""

    repo: str
    splits: tuple[str, ...]
    """The hub's splits, concatenated; each row carries its own under the key "hub_split"."""
    config: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """The hub's column names that differ from the official files': {hub: official}."""
    image_column: str = "image"
    where: Mapping[str, str] = field(default_factory=dict)
    """Keep the rows that have these values, by official column name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One part of a benchmark with its asserted size."""

    n_items: int
    hub: HubDataset | None
    n_clusters: int | None = None
    """How many clusters its items are in; `None` where each item is its own."""
    answers_public: bool = True
    rows: Callable[[], Iterable[Row]] | None = None
    """Makes the rows in this process, in the official folder's keys; `None` where they are read from somewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One benchmark: a declaration plus the functions that it cannot share."""

    name: str
    title: str
    version: int
    """Moves when items, gold or metrics change."""
    paper: str
    licence: str
    splits: Mapping[str, Split]
    default_split: str
    read_folder: Callable[[Path, str], Iterable[Row]]
    """The rows of a split in the official folder layout; "images" holds the row's image sources.

    Raises:
        DatasetError: a file is missing or not what the layout says.
    """
    to_item: Callable[[Row], Item]
    prompts: Mapping[str, PromptStyle]
    scorers: Mapping[str, Scorer]
    metrics: Mapping[str, Metric]
    headline: str
    """The metric that a table shows when it shows one."""
    counts_clusters: bool = False
    """Whether the headline is a share of clusters, such as seeds that are right in all variants, and not of items."""
    breakdowns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Metrics to repeat within each value of a tag: {"subject": ("accuracy",)}."""
    bad_items: Mapping[str, str] = field(default_factory=dict)
    """Known defects of the data, by item id."""

    def items_of(self, rows: Iterable[Row]) -> Iterator[Item]:
        """Yield the items of raw rows."""
        return map(self.to_item, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One generation that an engine owes."""

    item_id: str
    sample_index: int
    prompt: Prompt
    images: tuple[ImageSource, ...]


class Engine(Protocol):
    """Turns requests into responses, as they finish, in any order, each with its request's key."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Yield one response per request.

        Raises:
            EngineError: nothing further can be generated.
        """
        ...
