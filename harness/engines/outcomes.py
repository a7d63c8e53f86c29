"""What engines say of a request that got no text."""

from ahabench.harness.types import Request, Response


def failed(request: Request, why: str) -> Response:
    """Return the response of a request that was not answered."""
    return Response(
        item_id=request.item_id, sample_index=request.sample_index, text=None, finish_reason="error", error=why
    )


def named(error: BaseException) -> str:
    """Return an error's type and first line, cut to a readable length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
