"""A stage is added by the steps of docs/architecture.md, and by nothing else: they are followed here, and it runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.storage import tables

ROOT = Path(__file__).parents[2]
TEXTS = ["a red circle moves left", "one", None]

SETTINGS = '''"""Settings of the stage words. Values live in params.yaml, types here."""

from pydantic import PositiveInt

from stiv_model.settings import Settings


class WordSettings(Settings):
    min_words: PositiveInt
    """Captions of fewer words are rejected."""
    shard_captions: PositiveInt
    """Captions in one shard of work."""
'''
SECTION = "\nwords:\n  min_words: 2\n  shard_captions: 2\n"
STAGE = '''"""Stage words: how many words each caption has."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.storage import atomic, queries, shards, tables
from tasks.storage.stage import Joined, Stage, alone
from tasks.words.settings import WordSettings

WORDS = pa.schema([("clip", pa.string()), ("status", pa.string()), ("reason", pa.string()), ("words", pa.int32())])


def count_words(caption: dict[str, Any], settings: WordSettings) -> dict[str, Any]:
    """Return the row of one caption."""
    words = len(caption["text"].split())
    status, reason = ("ok", None) if words >= settings.min_words else ("rejected", "too_few_words")
    return {"clip": caption["clip"], "status": status, "reason": reason, "words": words}


def count_shard(shard: shards.Shard, settings: WordSettings) -> None:
    """Count the words of one shard of captions."""
    shard.write([count_words(caption, settings) for caption in shard.read()], WORDS)


class Words(Stage):
    """One row of WORDS per caption."""

    name, verb, unit = "words", "count", "captions"
    schema = pa.schema([tables.CAPTIONS.field(name) for name in ("clip", "text")])

    def __init__(self, captions: Path, settings: WordSettings) -> None:
        self.table, self.settings = captions / tables.CAPTION_TABLE, settings

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        return tables.usable(self.table, tables.CAPTIONS, self.schema.names)

    def decides(self) -> dict[str, Any]:
        return {"words": self.settings.model_dump()}

    def inputs(self) -> dict[str, Any]:
        return {"captions": atomic.sha256_file(self.table)}

    def shard_size(self) -> float:
        return self.settings.shard_captions

    def worker(self, product: Path, reusable: Path) -> AbstractContextManager[Callable[[shards.Shard], None]]:
        return alone(partial(count_shard, settings=self.settings))

    def join(self, work: shards.Work, product: Path) -> Joined:
        table = product / "words.parquet"
        queries.write(table, shards.joined(work, WORDS), WORDS)
        return Joined((queries.settle("captions", work.keys("clip"), queries.outcomes(table, "clip"), "clip"),))
'''
FLOW = '''"""The flow behind stage words."""

from pathlib import Path

from prefect import flow

from flows.running.run_stage import run_stage
from flows.running.settings import EngineSettings
from tasks.words.settings import WordSettings
from tasks.words.stage import Words


@flow
def count(captions: Path, out: Path, report: Path, words: WordSettings, engine: EngineSettings) -> None:
    """Count the words of every caption.

    Args:
        captions: Folder with the table of captions.
        out: Folder for the table of words.
        report: File for the account of the stage (JSON): how many were given, ok, rejected and failed, and why.
    """
    run_stage(Words(captions, words), out, report, engine)
'''
STANZA = """
  words:
    cmd: python -m flows count --captions data/captions --out data/words --report reports/words.json
    deps: [data/captions, tasks/words, tasks/storage]
    params: [words]
    outs: [data/words]
    metrics:
      - reports/words.json: {cache: false}

"""
DEPLOYMENT = (
    '  - {<<: *common, name: words, description: "Only stage words.", parameters: {stages: [words], force: false}}\n'
)
ROWS = {
    "| latents | encode |": "| words | count | `tasks/words/stage.py` | words | `data/words`: words per caption |\n",
    "| `tasks/latents/` |": "| `tasks/words/` | stage words: one count per caption | |\n",
}
TESTS = '''"""The words of a caption."""

from tasks.words.settings import WordSettings
from tasks.words.stage import count_words


def test_words_are_counted():
    row = count_words({"clip": "a", "text": "a red circle"}, WordSettings(min_words=4, shard_captions=1))
    assert row == {"clip": "a", "status": "rejected", "reason": "too_few_words", "words": 3}
'''


def put_before(path: Path, mark: str, text: str) -> None:
    before, found, after = path.read_text().partition(mark)
    assert found, f"{path} has no {mark!r}"
    path.write_text(before + text + found + after)


def create(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def declare_settings(top: Path) -> None:
    create(top / "tasks/words/settings.py", SETTINGS)
    put_before(top / "flows/params.py", "\nPARAMS =", "from tasks.words.settings import WordSettings\n")
    put_before(top / "flows/params.py", "    vae: VaeSettings\n", "    words: WordSettings\n")
    for path in [top / "params.yaml", top / "tests/params.yaml", *(top / "infra/params").glob("*.yaml")]:
        path.write_text(path.read_text() + SECTION)


def write_work(top: Path) -> None:
    create(top / "tasks/words/stage.py", STAGE)
    create(top / "tasks/words/__init__.py", "")


def write_flow(top: Path) -> None:
    create(top / "flows/count.py", FLOW)
    put_before(top / "flows/__main__.py", '    "pipeline": "flows.pipeline"', '    "count": "flows.count",\n')


def place_in_layers(top: Path) -> None:
    put_before(top / "pyproject.toml", "caption : curate", "count : ")
    put_before(top / "pyproject.toml", "captions | clips", "words | ")


def declare_stage(top: Path) -> None:
    put_before(top / "dvc.yaml", "\nplots:\n", STANZA.rstrip("\n") + "\n")
    put_before(top / "dvc.yaml", "reports/latents.json,\n      reports/card.json", "reports/words.json, ")
    put_before(top / "prefect.yaml", "  - {<<: *common, name: latents", DEPLOYMENT)


def tell_and_test(top: Path) -> None:
    for mark, row in ROWS.items():
        put_before(top / "docs/architecture.md", mark, row)
    create(top / "tests/tasks/words/test_stage.py", TESTS)


STEPS = (declare_settings, write_work, write_flow, place_in_layers, declare_stage, tell_and_test)


def steps_told() -> list[str]:
    told = (ROOT / "docs/architecture.md").read_text().split("## To add a stage\n")[1].split("\n## ")[0]
    return re.split(r"^\d\. ", told, flags=re.MULTILINE)[1:]


def run(top: Path, environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, cwd=top, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """That of a shell in a checkout of its own, whose modules come before those that are installed here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "DVC", "GIT"))}
    top, binaries = tmp_path / "checkout", Path(sys.executable).parent
    return kept | {
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "PYTHONPATH": str(top),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "DVC_NO_ANALYTICS": "1",
    }


@pytest.fixture
def checkout(tmp_path: Path, environment: dict[str, str]) -> Path:
    """A copy of the working tree, committed, with what stage captions would have made.

    What a pipeline that ran here has recorded stays behind: it tells of data that the copy has not.
    """
    top = tmp_path / "checkout"
    listed = run(ROOT, environment, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if name != "dvc.lock" and (ROOT / name).is_file():  # it may be deleted, and still known to Git
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, top / name)
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    run(top, environment, "git", "init", "-q")
    run(top, environment, "git", "add", "-A")
    run(top, environment, "git", *who, "commit", "-qm", "Before")
    states = [("ok", None) if text else ("failed", "no_caption") for text in TEXTS]
    rows = [
        {"clip": f"clip-{number}", "status": status, "reason": reason, "captioner": text and "sidecar", "text": text}
        for number, (text, (status, reason)) in enumerate(zip(TEXTS, states, strict=True))
    ]
    (top / "data/captions").mkdir(parents=True)
    tables.write_rows(top / "data/captions" / tables.CAPTION_TABLE, rows, tables.CAPTIONS)
    return top


def follow(checkout: Path, environment: dict[str, str]) -> None:
    """Follow the steps, and look whether each changes only what it tells of."""
    told = steps_told()
    assert len(told) == len(STEPS)
    for step, text in zip(STEPS, told, strict=True):
        run(checkout, environment, "git", "add", "-A")
        step(checkout)
        changed = run(checkout, environment, "git", "diff", "--name-only").split()
        changed += run(checkout, environment, "git", "ls-files", "--others", "--exclude-standard").split()
        named = {name.replace("ROOM", "words").replace("VERB", "count") for name in re.findall(r"`([\w./*]+)`", text)}
        assert changed
        untold = [path for path in changed if not any(Path(path).match(name) for name in named)]
        assert not untold, (step.__name__, untold)


def assert_counted(checkout: Path) -> None:
    counted = pq.read_table(checkout / "data/words/words.parquet").to_pylist()
    assert [(row["clip"], row["status"], row["words"]) for row in counted] == [
        ("clip-0", "ok", 5),
        ("clip-1", "rejected", 1),
    ]
    account = json.loads((checkout / "reports/words.json").read_text())["captions"]
    assert account == {"given": 2, "ok": 1, "rejected": 1, "failed": 0, "reasons": {"too_few_words": 1}}


WORK = """from pathlib import Path
from flows.running.code_hash import code_of
from flows.params import load_params
from tasks.storage.stage import run
from tasks.words.stage import Words
run(Words(Path("data/captions"), load_params().words), Path("data/words"), Path("reports/words.json"), code_of("words"))
"""


def test_a_stage_is_added_by_the_steps_that_the_page_tells_and_by_no_other_file(checkout, environment):
    follow(checkout, environment)
    (checkout / "reports").mkdir(exist_ok=True)
    run(checkout, environment, sys.executable, "-c", WORK)
    assert_counted(checkout)
    assert re.search(r"\bcount\b", run(checkout, environment, sys.executable, "-m", "flows", "--help").splitlines()[-2])


@pytest.mark.long  # the pipeline, the linter and the checks of the repository, in the checkout
def test_the_pipeline_runs_a_stage_that_was_added_and_the_repositorys_checks_know_it(checkout, environment):
    follow(checkout, environment)
    python = (sys.executable, "-m")
    run(checkout, environment, *python, "flows", "pipeline", "--stages", "words")
    assert_counted(checkout)
    assert "words" in json.loads((checkout / ".cache/times.json").read_text())["stages"]
    ordered = run(checkout, environment, sys.executable, "-c", "from flows import stages; print(*stages.in_order())")
    assert ordered.split().index("captions") < ordered.split().index("words")
    run(checkout, environment, str(Path(sys.executable).with_name("lint-imports")), "--no-cache")
    files = ("tests/test_repository.py", "tests/flows/running/test_stage_names.py", "tests/tasks/words")
    chosen = ("-k", "words or prefect_yaml or stage_names")
    run(checkout, environment, *python, "pytest", "-q", "-p", "no:cacheprovider", *files, *chosen)
