"""Made-up records of MathVerse."""

from typing import Any


def row(**changes: Any) -> dict[str, Any]:
    """A made-up record as the official files have them."""
    base = {
        "sample_index": "4996",
        "problem_index": "1000",
        "problem_version": "Text Dominant",
        "question": "Find x.\nChoices:\nA:4°\nB:6°",
        "image": "images_version_1-4/image_1000.png",
        "answer": "B",
        "question_type": "multi-choice",
        "metadata": {"split": "testmini", "source": "Made up", "subject": "Plane Geometry", "subfield": "Angle"},
        "query_wo": "",
        "query_cot": "",
    }
    return base | changes
