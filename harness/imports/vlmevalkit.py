"""Read the result tables of VLMEvalKit: <model>_<dataset>.xlsx, .tsv or .json, whose "prediction" is the response.

The columns are those that its own scorers read (vlmeval/dataset/*.py@e8e78f0): "index", "question", "answer",
"prediction", and by data set "answer_option" (MathVista), "qid" and "varid" (DynaMath), "ID" and "key" (We-Math),
"problem_version" and "question_for_eval" (MathVerse). What a run was made with is not in it, but for the names. Where
reasoning was split off into a column "thinking" (SPLIT_THINK), it stays there: VLMEvalKit scores what remains.
"""

from collections.abc import Mapping
from pathlib import Path

from ahabench.harness.errors import UsageError
from ahabench.harness.imports.logs import IMPORTED, Log, LogRow, Said
from ahabench.harness.imports.sheets import EXCEL_CELL, read_table
from ahabench.harness.manifest import EngineRecord, ModelRecord
from ahabench.harness.report import note

TOOL = "vlmevalkit"

DATASETS: Mapping[str, str] = {
    "DynaMath": "dynamath:sample",
    "DynaMath_noprompt": "dynamath:sample",
    "LogicVista": "logicvista:test",
    "MathVerse_MINI": "mathverse:testmini",
    "MathVerse_MINI_Text_Dominant": "mathverse:text_dominant",
    "MathVerse_MINI_Text_Lite": "mathverse:text_lite",
    "MathVerse_MINI_Vision_Dominant": "mathverse:vision_dominant",
    "MathVerse_MINI_Vision_Intensive": "mathverse:vision_intensive",
    "MathVerse_MINI_Vision_Only": "mathverse:vision_only",
    "MathVerse_MINI_Vision_Only_cot": "mathverse:vision_only",
    "MathVision": "mathvision:test",
    "MathVision_MINI": "mathvision:testmini",
    "MathVista_MINI": "mathvista:testmini",
    "WeMath": "wemath:testmini",
    "WeMath_COT": "wemath:testmini",
}
"""VLMEvalKit's data sets (e8e78f0) and the splits of ours that they ask."""

FAILED = "Failed to obtain answer"
"""How what stands in place of a response begins: "... via API." of a server, "...: <error>" of a model that was skipped
(vlmeval/inference.py)."""

_GOLDS = ("answer", "answer_option")
_QUESTIONS = ("question_for_eval", "question")
_SUFFIXES = (".xlsx", ".tsv", ".json")


def read_logs(path: Path) -> list[Log]:
    """Return the logs in a result table, or in every <model>_<dataset> table below a folder.

    Raises:
        UsageError: there is none, two are of one data set, or a table is not what VLMEvalKit writes.
    """
    files = _files(path) if path.is_dir() else [path]
    logs = [_log(file) for file in files]
    seen: dict[str, Path] = {}
    for log in logs:
        if (first := seen.setdefault(log.foreign, log.source)) is not log.source:
            raise UsageError(f"{path} holds two tables of {log.foreign}: {first} and {log.source}; give one file")
    return logs


def _files(folder: Path) -> list[Path]:
    """Return the tables of responses, without those of scores and judges' replies beside them."""
    found = [file for file in sorted(folder.rglob("*")) if file.suffix in _SUFFIXES and _name(file)[1] in DATASETS]
    # It links the tables of the last evaluation into the model's folder.
    files = list({file.resolve(): file for file in found}.values())
    if not files:
        pickles = sum(1 for _ in folder.rglob("*.pkl"))
        hint = f"; its {pickles} pickles are not read, since they can run any code" if pickles else ""
        raise UsageError(f"{folder} holds no <model>_<dataset>.xlsx, .tsv or .json of a data set that is known{hint}")
    return files


def _name(file: Path) -> tuple[str | None, str]:
    """Return the model and the data set that a file is named by; the whole name where it ends with no data set."""
    for dataset in sorted(DATASETS, key=len, reverse=True):
        if file.stem.endswith(f"_{dataset}"):
            return file.stem.removesuffix(f"_{dataset}"), dataset
    return None, file.stem


def _log(file: Path) -> Log:
    rows: list[LogRow] = []
    cut = 0
    for number, cells in read_table(file):
        if not rows and "prediction" not in cells:
            raise UsageError(f"{file} has no column 'prediction'; its columns are {', '.join(map(repr, cells))}")
        rows.append(_row(cells, f"{file}:{number}"))
        cut += file.suffix == ".xlsx" and len(cells["prediction"] or "") >= EXCEL_CELL
    if not rows:
        raise UsageError(f"{file} has no rows")
    if cut:
        note(f"{file.name}: {cut:,} responses fill a cell of Excel's ({EXCEL_CELL:,} characters): their ends are lost")
    model, dataset = _name(file)
    return Log(
        source=file,
        tool=TOOL,
        foreign=dataset,
        answers=DATASETS.get(dataset),
        rows=tuple(rows),
        model=ModelRecord(name=model),
        engine=EngineRecord(name=TOOL, options={IMPORTED: TOOL, "dataset": dataset}),
    )


def _row(cells: Mapping[str, str | None], place: str) -> LogRow:
    index = cells.get("index") or ""
    questions = [text for name in _QUESTIONS if (text := cells.get(name))]
    return LogRow(
        place=place,
        number=int(index) if index.isdecimal() and len(index) < 10 else None,
        # "id" is MathVision's name in its authors' files; here other data sets have one of their own making.
        fields={name: value for name, value in cells.items() if value and name != "id"},
        question="\n".join(questions) or None,
        golds=tuple(value for name in _GOLDS if (value := cells.get(name))),
        said=(_said(cells.get("prediction")),),
    )


def _said(prediction: str | None) -> Said:
    if prediction is None:
        return Said(text=None, error="the table has no prediction")
    if prediction.startswith(FAILED) or f"{FAILED} via API." in prediction:
        return Said(text=None, error=prediction.strip()[:300])
    return Said(text=prediction)
