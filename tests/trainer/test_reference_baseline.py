"""The base as it comes and forced to think."""

from pathlib import Path

import pytest

from ahabench.harness.errors import UsageError
from ahabench.trainer.baseline import force_careful
from ahabench.trainer.reference import make_reference


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reference(tmp_path_factory.mktemp("reference") / "base", steps=0)


def test_the_forced_model_differs_in_its_template_only(base: Path, tmp_path: Path) -> None:
    forced = force_careful(base, tmp_path / "forced")
    names = {path.name for path in base.iterdir()}
    assert {path.name for path in forced.iterdir()} == names
    changed = {name for name in names if (base / name).read_bytes() != (forced / name).read_bytes()}
    assert changed == {"chat_template.jinja"}


def test_the_forced_model_thinks_first(base: Path, tmp_path: Path) -> None:
    from transformers import AutoProcessor

    forced = force_careful(base, tmp_path / "forced")
    messages = [{"role": "user", "content": [{"type": "text", "text": "What?"}]}]
    plain, careful = (
        AutoProcessor.from_pretrained(folder).apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        for folder in (base, forced)
    )
    assert careful == plain + "<think>"


def test_a_past_turn_is_written_the_same_when_forced(base: Path, tmp_path: Path) -> None:
    from transformers import AutoProcessor

    forced = force_careful(base, tmp_path / "forced")
    messages = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "<answer> 3</answer>"}]
    plain, careful = (
        AutoProcessor.from_pretrained(folder).apply_chat_template(messages, tokenize=False) for folder in (base, forced)
    )
    assert careful == plain


def test_a_forced_model_is_not_forced_again(base: Path, tmp_path: Path) -> None:
    forced = force_careful(base, tmp_path / "forced")
    with pytest.raises(UsageError, match="is no reference checkpoint"):
        force_careful(forced, tmp_path / "twice")


def test_another_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "chat_template.jinja").write_text("{{ messages }}")
    for folder in ("other", "absent"):
        with pytest.raises(UsageError, match=f"{folder} is no reference checkpoint"):
            force_careful(tmp_path / folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
