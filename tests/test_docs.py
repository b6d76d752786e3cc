"""The documentation's site builds strictly and offline, and its reference leaves nothing out that the code has."""

import ast
import inspect
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from mkdocs.structure.files import File, Files

from docs.generate import hooks, licences, reason_tables, reference, refusals, score_table
from flows.__main__ import COMMANDS, FLOWS
from flows.params import Params
from tasks.decoding import packets
from tasks.pages.columns import COLUMNS
from tasks.pages.reasons import REASONS, REPAIRS, meaning_of
from tasks.sandbox import answer_schemas
from tasks.storage import tables

ROOT = Path(__file__).parents[1]
CODES = {code for group in REASONS.values() for code in group}
OF_PROOFS = {"exec", "network", "processes", "read", "write"}  # what the sandbox's own examination answers
_CODE = re.compile(r"[a-z]+(_[a-z]+)*")


def texts(node: ast.AST | None) -> set[str]:
    """Return the strings anywhere in an expression that look like a code."""
    found = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)} if node else set()
    return {text for text in found if isinstance(text, str) and _CODE.fullmatch(text)}


def given_as_reason(tree: ast.AST) -> Iterator[str]:
    """Give the strings that a module uses as a reason: after a status, behind a key or in a variable `reason`."""
    for node in ast.walk(tree):
        together = node.args if isinstance(node, ast.Call) else getattr(node, "elts", [])
        for before, after in pairwise(together):
            if isinstance(before, ast.Constant) and before.value in ("rejected", "failed"):
                yield from texts(after if isinstance(after, ast.Constant | ast.IfExp) else None)
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "reason" and isinstance(value, ast.Constant):
                    yield from texts(value)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.IfExp):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if "reason" in names:
                yield from texts(node.value)


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for folder in ("tasks", "flows"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name != "reasons.py":
                yield path, ast.parse(path.read_text())


def test_every_reason_in_the_code_says_what_to_do():
    used = {(code, str(path.relative_to(ROOT))) for path, tree in modules() for code in given_as_reason(tree)}
    assert len({code for code, _ in used}) > 30, "the search finds too little to be believed"
    missing = {(code, path) for code, path in used if code not in CODES | {"ok", "rejected", "failed"}}
    assert not missing, f"add to tasks/pages/reasons.py: {sorted(missing)}"


def test_every_reason_that_the_sandbox_may_answer_says_what_to_do():
    kinds = [answer_schemas.Rejected, answer_schemas.Failed]
    answered = {code for kind in kinds for code in get_args(inspect.get_annotations(kind)["reason"])}
    assert answered - OF_PROOFS <= CODES


def test_every_repair_has_a_sentence_and_may_be_answered():
    answered = get_args(inspect.get_annotations(answer_schemas.Probed)["repairs"])[0]
    assert REPAIRS.keys() == set(packets.REPAIRS) == set(get_args(get_args(answered)[0]))


def test_every_reason_with_a_sentence_is_given_somewhere():
    written = {text for _, tree in modules() for text in texts(tree)}
    assert {code for code in CODES if not code.startswith("SCORE_")} <= written


@pytest.mark.parametrize("code", ["motion_below_min", "text_area_above_max"])
def test_the_reason_of_a_threshold_names_its_score(code):
    score = code.removesuffix("_below_min").removesuffix("_above_max")
    assert f"clips.{score}." in meaning_of(code).remedy


def test_a_reason_that_does_not_exist_has_no_meaning():
    with pytest.raises(KeyError):
        meaning_of("bad_luck")


@pytest.mark.parametrize("table", reference.TABLES)
def test_every_column_of_a_table_has_a_sentence(table):
    assert set(getattr(tables, table).names) <= COLUMNS[table].keys()


def test_every_sentence_is_of_a_column():
    names = {name for table in reference.TABLES for name in getattr(tables, table).names}
    assert {name for columns in COLUMNS.values() for name in columns} <= names


def test_every_table_of_a_stage_is_in_the_reference():
    schemas = {name for name, value in vars(tables).items() if isinstance(value, type(tables.VIDEOS))}
    assert schemas == set(reference.TABLES)


@pytest.mark.docs
def test_the_reference_has_every_key_verb_column_and_reason():
    pages = reference.pages(ROOT)

    def keys(model: Any, place: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            yield f"{place}{name}"
            for kind in reference.settings_in(field.annotation):
                yield from keys(kind, "")

    for key in {key.rpartition(".")[2] for key in keys(Params, "")} - {"min", "max"}:
        assert re.search(rf"[`.]{key}[`,]|^## {key}$", pages["params.md"], re.MULTILINE), key
    for verb in FLOWS | COMMANDS:
        assert f"\n## stiv {verb}\n" in pages["verbs.md"]
    for code in CODES:
        assert f"| `{code}` |" in pages["reasons.md"]
    for code in REPAIRS:
        assert f"| `{code}` |" in pages["reasons.md"]
    for one in refusals.refusals():
        assert f"| `{one.module}` |" in pages["refusals.md"]
    for table in reference.TABLES:
        for column in getattr(tables, table).names:
            assert f"| `{column}` |" in pages["tables.md"]


def test_every_key_of_params_says_what_it_means():
    silent = []
    for name, field in Params.model_fields.items():
        for model in list(reference.settings_in(field.annotation))[:1]:
            silent += [key.name for key in reference.keys_of(model, name, None, None, ROOT) if not key.meaning]
    assert not silent


def test_every_room_has_its_row_and_its_sentence():
    page = (ROOT / "docs/architecture.md").read_text()
    for package in ("flows", "tasks", "stiv_model"):
        for room in sorted((ROOT / package).iterdir()):
            if (room / "__init__.py").exists():
                assert re.search(rf"^\| `{package}/{room.name}/` \| [^|]{{10,}} \|", page, re.MULTILINE), room


def test_the_licence_of_every_installed_package_is_told():
    page = (ROOT / "docs/third_party.md").read_text()
    told = set(re.findall(r"[\w.-]+", page))
    gpu = re.compile(r"nvidia-|cuda-|triton")  # of the CUDA build of torch, told in one line
    missing = {name for name in licences.installed(licences.PROJECT) if name not in told and not gpu.match(name)}
    assert not missing, "run python docs/generate/licences.py"


def test_the_table_of_scores_is_of_today():
    page = score_table.PAGE.read_text()
    assert page == score_table.written(page), "run python docs/generate/score_table.py"


def test_every_reason_stands_in_the_page_on_refusals_with_what_to_do():
    page = reason_tables.PAGE.read_text(encoding="utf-8")
    assert page == reason_tables.written(page), "run python docs/generate/reason_tables.py"
    for code in {**REPAIRS, **{code: one for codes in REASONS.values() for code, one in codes.items()}}:
        assert f"| `{code}` |" in page


def test_what_each_folder_refuses_is_told():
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    _, _, told = page.partition("## What each folder refuses")
    rows = re.findall(r"^\| `((?:flows|tasks|stiv_model)[\w/]*)` \|", told.partition("\n## ")[0], re.MULTILINE)
    assert set(rows) == {one.room for one in refusals.refusals()}
    assert len(rows) == len(set(rows))


def test_every_refusal_is_found_in_the_code(tmp_path):
    for package in refusals.PACKAGES:
        (tmp_path / package).mkdir()
    code = """
_AGAIN = "run the stage that makes it"

def check(path, size):
    if not path:
        raise FileNotFoundError(2, f"{path} does not exist: {_AGAIN}")
    if size > 3:
        raise _error(path, ValueError(
            f"{path} has {size} bytes, " "more than three"
        ))
    assert size, AssertionError("this is only for ourselves")
    raise KeyError("a key that is not there")
"""
    (tmp_path / "tasks" / "made.py").write_text(code)
    assert [(one.room, one.module, one.words) for one in refusals.refusals(tmp_path)] == [
        ("tasks", "made.py", "… does not exist: run the stage that makes it"),
        ("tasks", "made.py", "… has … bytes, more than three"),
    ]
    assert len(refusals.refusals()) > 300


def test_a_link_to_nothing_is_a_warning(caplog):
    files = Files([File(page, "docs", "site", use_directory_urls=False) for page in ("index.md", "demo.md")])
    links = "[a](../README.md#two-commands) [b](../flows/nowhere.py) [c](../Makefile)"
    with caplog.at_level(logging.WARNING, "mkdocs"):
        assert hooks.linked(links, "demo.md", files) == "[a](index.md#two-commands) b c"
    assert [record.args[1] for record in caplog.records] == ["../flows/nowhere.py"]


@pytest.mark.docs
def test_the_site_builds_strictly_and_fetches_nothing(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONWARNINGS": "ignore"}
    ended = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    fetched = re.compile(
        r"<(?:script|img|iframe|source)[^>]*\ssrc=\"(?:https?:)?//|<link[^>]*\shref=\"(?:https?:)?//[^>]*>"
    )
    for page in pages:
        found = [tag for tag in fetched.findall(page.read_text()) if "canonical" not in tag]
        assert not found, page
    model = (tmp_path / "site" / "model.html").read_text()
    assert model.count("<math") > 40
    assert "<mi>&</mi>" not in model, "columns of an equation are not known to the converter"
    text = re.sub(r"<(pre|code|script|style).*?</\1>", "", model, flags=re.DOTALL)
    assert "$" not in text and "\u2063" not in text, "an equation was left as it was typed"


def templates() -> set[str]:
    """Return every text in our code, with … for what is filled in."""
    found: set[str] = set()
    for folder in ("flows", "tasks", "stiv_model"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                    found.add("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                    text = node.value if isinstance(node.value, str) else node.value.decode("utf-8", "replace")
                    found.add(re.sub(r"\{\w+\}", "…", text))
    return found


def test_every_refusal_that_is_explained_is_one_that_the_code_makes():
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    cells = [line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if line.startswith("| ")]
    lines = [
        line for cell in cells for line in re.findall(r"`([^`]*)`", cell) if " " in line and "stiv doctor" not in line
    ]
    assert len(lines) > 20
    known = templates()
    assert [line for line in lines if not _is_ours(line, known)] == []
    assert not _is_ours("a line that no code of ours has", known)


def _is_ours(line: str, known: set[str]) -> bool:
    """Say whether a line, its … standing for anything, is part of a text of ours."""
    pattern = re.compile(".*?".join(map(re.escape, line.strip("…, ").split("…"))))
    return any(pattern.search(text) for text in known)
