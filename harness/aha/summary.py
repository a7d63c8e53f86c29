"""Moments over a run: how many, of what kind and where, and whether they went with right answers."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ahabench.harness.aha.lexicon import MomentClass, Strength, published_rules, version
from ahabench.harness.aha.moments import Reading, read
from ahabench.harness.aha.outcome import Change, Turn, turns
from ahabench.harness.aha.told import Compare, Told
from ahabench.harness.stats import clustered_mean
from ahabench.harness.types import Estimate

DECILES = 10
Values = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadResponse:
    """A response with what was read out of it."""

    told: Told
    reading: Reading
    turns: tuple[Turn, ...]

    @property
    def has_moment(self) -> bool:
        """Whether the response holds any."""
        return bool(self.reading.moments)


def counts(text: str, question: str = "") -> Values:
    """Return what `verdicts.jsonl` keeps of a response under "aha".

    "classes" counts moments by class, "published" the hits of the published rules that have any; "words" and "hedges"
    are those of the thought, "loop_share" is in [0, 1], "lexicon" is the version of our marks.
    """
    reading = read(text, question)
    return {
        "lexicon": version(),
        "moments": len(reading.moments),
        "strong": sum(moment.strength is Strength.STRONG for moment in reading.moments),
        "classes": dict(Counter(moment.kind.value for moment in reading.moments)),
        "uncertainty": len(reading.uncertainty),
        "hedges": reading.hedges,
        "words": reading.words,
        "loop_share": round(reading.loop_share, 4),
        "published": {rule.name: hits for rule in published_rules() if (hits := rule.count(text))},
    }


def read_all(responses: Iterable[Told], compare: Compare | None = None) -> list[ReadResponse]:
    """Return the responses with their moments and what those led to.

    Args:
        responses: of one run.
        compare: settles candidate answers by the gold; without it only the verdict on the response tells.
    """
    out = []
    for told in responses:
        reading = read(told.text, told.question)
        led = turns(told.text, reading.moments, _is_right(told, compare)) if reading.moments else ()
        out.append(ReadResponse(told=told, reading=reading, turns=led))
    return out


def summarise(responses: Sequence[ReadResponse]) -> Values:
    """Return the report of a run as `--json` prints it; shares are fractions, clustered by item."""
    moments = [moment for one in responses for moment in one.reading.moments]
    return {
        "lexicon": version(),
        "n": len(responses),
        "with_moment": _estimate([float(one.has_moment) for one in responses], responses),
        "moments": len(moments),
        "strong": sum(moment.strength is Strength.STRONG for moment in moments),
        "per_1000_tokens": _rate(responses, lambda one: one.told.tokens),
        "per_1000_words": _rate(responses, lambda one: one.reading.words),
        "by_class": _by_class(responses),
        "position": _position(responses),
        "accuracy": accuracy(responses),
        "changes": _changes(responses),
        "uncertainty": sum(len(one.reading.uncertainty) for one in responses),
        "hedges_per_1000_words": _per_thousand(
            sum(one.reading.hedges for one in responses), sum(one.reading.words for one in responses)
        ),
        "with_loop": _estimate([float(bool(one.reading.loops)) for one in responses], responses),
        "truncated": _estimate_known([one.told.truncated for one in responses], responses),
        "published": _published(responses),
    }


def accuracy(responses: Sequence[ReadResponse]) -> Values:
    """Return accuracy with and without a moment, and their difference within the same prompt.

    The difference rests only on prompts that have judged samples of both kinds; it is the mean over those prompts, with
    an interval clustered by item, in [-1, 1]. It takes out that harder prompts draw more moments.
    """
    judged = [one for one in responses if one.told.correct is not None]
    sides: dict[bool, list[ReadResponse]] = {True: [], False: []}
    by_prompt: dict[tuple[str, str, int | None], dict[bool, list[bool]]] = defaultdict(lambda: {True: [], False: []})
    for one in judged:
        sides[one.has_moment].append(one)
        by_prompt[one.told.prompt][one.has_moment].append(bool(one.told.correct))
    both = {prompt: kinds for prompt, kinds in by_prompt.items() if kinds[True] and kinds[False]}
    differences = [_mean(kinds[True]) - _mean(kinds[False]) for kinds in both.values()]
    clusters = {one.told.prompt: one.told.unit for one in judged}
    # The mean of (1 + d) / 2 lies in [0, 1], as `clustered_mean` wants it.
    halved = clustered_mean([(1 + d) / 2 for d in differences], [clusters[prompt] for prompt in both])
    return {
        "with": _estimate([float(bool(one.told.correct)) for one in sides[True]], sides[True]),
        "without": _estimate([float(bool(one.told.correct)) for one in sides[False]], sides[False]),
        "within_prompt": {
            "value": None if halved.value is None else 2 * halved.value - 1,
            "n": halved.n,
            "stderr": None if halved.stderr is None else 2 * halved.stderr,
            "ci95": None if halved.ci95 is None else [2 * bound - 1 for bound in halved.ci95],
        },
    }


def _is_right(told: Told, compare: Compare | None) -> Callable[[str], bool | None]:
    if compare is None:
        return told.is_right
    return lambda candidate: compare(told, candidate)


def _by_class(responses: Sequence[ReadResponse]) -> Values:
    found: Values = {}
    for kind in MomentClass:
        if kind is MomentClass.UNCERTAINTY:
            continue
        numbers = [sum(moment.kind is kind for moment in one.reading.moments) for one in responses]
        share = _estimate([float(number > 0) for number in numbers], responses)
        found[kind.value] = {"moments": sum(numbers), "with_moment": share}
    return found


def _position(responses: Sequence[ReadResponse]) -> Values:
    """Return where moments begin within the thought, as tenths of it."""
    deciles = [0] * DECILES
    first, last = [], []
    for one in responses:
        places = _places(one)
        for place in places:
            deciles[min(DECILES - 1, int(DECILES * place))] += 1
        if places:
            first.append(places[0])
            last.append(places[-1])
    return {"deciles": deciles, "first": _mean(first), "last": _mean(last)}


def _places(one: ReadResponse) -> list[float]:
    length = sum(span.end - span.start for span in one.reading.thought)
    places = []
    for moment in one.reading.moments:
        before = sum(max(0, min(span.end, moment.start) - span.start) for span in one.reading.thought)
        places.append(before / length)
    return places


def _changes(responses: Sequence[ReadResponse]) -> Values:
    made = [turn for one in responses for turn in one.turns]
    tally = Counter(turn.change for turn in made)
    known = [turn for turn in made if turn.change is not Change.UNKNOWN]
    return {
        **{change.value: tally[change] for change in Change},
        "net": tally[Change.WRONG_TO_RIGHT] - tally[Change.RIGHT_TO_WRONG],
        "candidates_found": len(known) / len(made) if made else None,
        "candidates_explicit": sum(turn.explicit for turn in known) / len(known) if known else None,
        "pseudo": sum(turn.pseudo for turn in made),
    }


def _published(responses: Sequence[ReadResponse]) -> Values:
    found: Values = {}
    for rule in published_rules():
        hits = [rule.count(one.told.text) for one in responses]
        share = _estimate([float(hit > 0) for hit in hits], responses)
        found[rule.name] = {"title": rule.title, "hits": sum(hits), "with_hit": share}
    return found


def _rate(responses: Sequence[ReadResponse], size: Callable[[ReadResponse], int | None]) -> float | None:
    sized = [(len(one.reading.moments), size(one)) for one in responses]
    known = [(number, length) for number, length in sized if length is not None]
    return _per_thousand(sum(number for number, _ in known), sum(length for _, length in known))


def _per_thousand(number: int, whole: int) -> float | None:
    return 1_000 * number / whole if whole else None


def _estimate(values: Sequence[float], responses: Sequence[ReadResponse]) -> Values:
    return _row(clustered_mean(values, [one.told.unit for one in responses]))


def _estimate_known(values: Sequence[bool | None], responses: Sequence[ReadResponse]) -> Values:
    known = [(float(value), one) for value, one in zip(values, responses, strict=True) if value is not None]
    return _estimate([value for value, _ in known], [one for _, one in known])


def _row(estimate: Estimate) -> Values:
    row = asdict(estimate)
    row["ci95"] = list(row["ci95"]) if row["ci95"] else None
    return row


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
