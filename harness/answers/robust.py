"""The judge-free scorer."""

from ahabench.harness.types import Item, Response, Scorer, Status, Verdict


def read(item: Item, response: Response) -> Verdict:
    """Return the verdict on a response."""
    return compare(item, response.text or "")


def compare(item: Item, extracted: str) -> Verdict:
    """Return the verdict on an extracted answer."""
    status = Status.CORRECT if extracted.strip() == item.gold else Status.WRONG
    return Verdict(status=status, extracted=extracted, rule="exact")


ROBUST = Scorer(version=1, read=read, compare=compare)
