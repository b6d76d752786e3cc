"""dvc.yaml, params.yaml, prefect.yaml, the README and the code must say the same thing."""

import ast
import inspect
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from flows.__main__ import COMMANDS, FLOWS, load, module_of, split_verb
from flows.command_line import Verb, describe, parser_of, told
from flows.params import load_params, section
from flows.running.code_hash import PACKAGES, is_code

ROOT = Path(__file__).parents[1]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STAGES = PIPELINE | yaml.safe_load((ROOT / "views/stages.yaml").read_text())["stages"]
SOURCE = load_params(ROOT / "params.yaml").source
IMPORTS = grimp.build_graph("flows", "tasks", "stiv_model", cache_dir=None)
TRACKED_BY_VALUE = {name for name in IMPORTS.modules if name.endswith(".settings")}  # through `params`
STARTED_AS_A_PROGRAM = {
    "tasks.sandbox.pool": "tasks.sandbox.worker",
    "tasks.training.launch": "stiv_model.training.train",
}
ROOTS = {name for name in IMPORTS.modules if IMPORTS.find_children(name)}  # folders: their __init__.py are empty
WATCHES = (
    *("stiv_model.monitoring", "stiv_model.pipeline", "tasks.pages", "tasks.lineage"),
    *(
        "tasks.operations.doctor",
        "tasks.operations.task_runs",
        "stiv_model.errors.failures",
        "stiv_model.errors.redaction",
        "stiv_model.fork_server",
    ),
)
"""Rooms that look at what is made and decide about no byte of it, but of what they themselves make: also those that
decide about the words of an error, whether the same is tried again, and how a process starts."""
TELL = (
    *("stiv_model.process_exit", "tasks.training.launch", "tasks.clips.select"),
    "tasks.chat.client",
    "tasks.videos.source_lists",  # takes the signature out of an address that is noted beside a video
)
BORDER: set[tuple[str, str]] = {
    ("stiv_model.training.train", "stiv_model.monitoring.monitor"),
    ("tasks.training.launch", "tasks.operations.task_runs"),
    ("stiv_model.process_exit", "stiv_model.errors.failures"),
    ("tasks.training.launch", "stiv_model.errors.failures"),
    ("tasks.chat.client", "stiv_model.errors.failures"),
    *((by, "stiv_model.fork_server") for by in ("tasks.training.launch", "stiv_model.distributed.local_ranks")),
    *((by, "stiv_model.errors.redaction") for by in TELL),
}
"""Where a deciding module calls one that watches: (by, what).

The protocol Observer hands on no weight, a task run what its task returns.
"""
SHOW = {"comparison", "report", "samples", "evaluate", "views_table"}
"""Stages that make what is looked at: a page; videos, by the pipeline; what is counted in them."""
DECIDE_ABOUT_NO_BYTE = {"engine", "devices", "monitoring"}  # sections of params.yaml
FILE_NAME = re.compile(r"[\w./*-]*\w[\w*-]*\.(parquet|jsonl?|safetensors|tar|html|ya?ml|[tc]sv|txt|mp4|png|svg|lock)")
SPELT_TWICE = {
    # of two kinds of work, and storage imports nothing of ours
    "run.json": {"tasks.storage.atomic", "stiv_model.settings"},
    # of transformers, and of our checkpoints
    "model.safetensors": {"stiv_model.encoders.pinned", "stiv_model.weights.metadata"},
}
"""Names that two modules own, each of files of its own."""
RECORDED_BY_THE_PIPELINE = {".cache/times.json", "reports/training"}


def command(stage: str) -> tuple[str, dict[str, str]]:
    python, dash_m, flows, *words = shlex.split(STAGES[stage]["cmd"].replace("${source}", SOURCE))
    assert (python, dash_m, flows) == ("python", "-m", "flows")
    flow, words = split_verb(words)
    options = words[next(place for place, word in enumerate(words) if word.startswith("--")) :]
    return flow, dict(zip((o.removeprefix("--") for o in options[::2]), options[1::2], strict=True))


def paths(stage: str, *keys: str) -> set[str]:
    entries = [entry for key in keys for entry in STAGES[stage].get(key, [])]
    names = {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}
    return {name.replace("${source}", SOURCE) for name in names}


def described(verb: str) -> Verb:
    return describe(module_of(verb), verb)


def sections(stage: str) -> set[str]:
    flow, options = command(stage)
    return {options.get(name, name) for name in described(flow).sections}


def module(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")


@pytest.mark.parametrize("stage", STAGES)
def test_stage_declares_the_sections_its_flow_reads(stage):
    assert set(STAGES[stage].get("params", [])) == sections(stage) - DECIDE_ABOUT_NO_BYTE


@pytest.mark.parametrize("stage", STAGES)
def test_every_section_is_in_the_params_file(stage):
    params = load_params(ROOT / "params.yaml")
    for name in sections(stage):
        section(params, name)


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_line_of_a_stage_is_what_its_flow_takes(stage):
    flow, words = split_verb(shlex.split(STAGES[stage]["cmd"].replace("${source}", SOURCE))[3:])
    parser_of(flow, described(flow)).parse_args(words)


@pytest.mark.parametrize("stage", STAGES)
def test_every_path_on_the_command_line_is_a_dep_or_an_out(stage):
    _, options = command(stage)
    known = paths(stage, "deps", "outs", "metrics", "plots") | RECORDED_BY_THE_PIPELINE
    for path in set(options.values()) - sections(stage):
        # a folder of reports is read file by file
        assert path in known or any(name.startswith(f"{path}/") for name in known), path


def is_within(name: str, rooms: Iterable[str]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def named_by(stage: str) -> set[str]:
    """Return the modules that a stage's deps name, one by one or by their room's folder."""
    code = {module(dep) for dep in paths(stage, "deps") if is_code(dep)}
    return {name for name in IMPORTS.modules if is_within(name, code)}


def deciders_of(modules: set[str]) -> set[str]:
    """Return what decides with these modules: all that they import, but for what only watches."""
    found, todo = set(), set(modules)
    while todo:
        name = todo.pop()
        found.add(name)
        imported = IMPORTS.find_modules_directly_imported_by(name) | {STARTED_AS_A_PROGRAM.get(name, name)}
        todo |= {one for one in imported - found if not is_within(one, WATCHES)}
    return found - TRACKED_BY_VALUE


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_every_module_that_decides_the_output(stage):
    named = named_by(stage)
    assert named, "a stage without code"
    missing = deciders_of(named) - named - ROOTS
    assert not missing, f"add to the deps of {stage}: {sorted(missing)}"


def test_what_watches_reaches_no_decision():
    deciding = {name for stage in STAGES if stage not in SHOW for name in deciders_of(named_by(stage))}
    across = {
        (name, imported)
        for name in deciding
        if not is_within(name, WATCHES)
        for imported in IMPORTS.find_modules_directly_imported_by(name)
        if is_within(imported, WATCHES)
    }
    assert across == BORDER


def test_no_stage_but_those_that_show_depends_on_what_watches():
    for stage in STAGES:
        watching = {name for name in named_by(stage) if is_within(name, WATCHES)}
        assert not watching or stage in SHOW, (stage, watching)


def used_modules(function: Any) -> set[str]:
    """Return the modules of ours whose names a flow's body uses."""
    values = [function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__]
    modules = {v.__name__ if inspect.ismodule(v) else getattr(getattr(v, "fn", v), "__module__", "") for v in values}
    return {name for name in modules if name.startswith(("tasks.", "stiv_model."))}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_the_modules_that_the_flow_itself_uses(stage):
    flow, _ = command(stage)
    used = used_modules(inspect.unwrap(load(flow).fn))  # `main` wraps what it runs, in another test of this process
    assert used - {"tasks.storage.tables"}, "the flow does nothing"
    unnamed = {name for name in used - named_by(stage) if stage in SHOW or not is_within(name, WATCHES)}
    assert unnamed <= {"tasks.storage.tables", "tasks.operations.task_runs", *TRACKED_BY_VALUE}, unnamed


def file_names(path: Path) -> set[str]:
    """Return the names of files, or patterns of such, that a module spells out in full, messages left out."""
    tree = ast.parse(path.read_text())
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {Path(text).name for text in texts if FILE_NAME.fullmatch(text)}


def test_the_name_of_a_file_is_spelt_in_the_module_that_owns_it_and_nowhere_else():
    spelt: dict[str, set[str]] = {}
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for name in file_names(path) - {"params.yaml", "dvc.yaml"}:
            spelt.setdefault(name, set()).add(module(str(path.relative_to(ROOT))))
    assert {"latents.parquet", "run.json", "samples.json", "clips.parquet"} <= spelt.keys()
    assert {name: modules for name, modules in spelt.items() if len(modules) > 1} == SPELT_TWICE


@pytest.mark.parametrize("verb", sorted(FLOWS | COMMANDS))
def test_every_verb_says_what_it_does(verb):
    assert described(verb).doc
    assert parser_of(verb, described(verb)).format_help()


@pytest.mark.parametrize("verb", sorted(FLOWS | COMMANDS))
def test_what_is_read_from_the_source_of_a_verb_is_what_python_makes_of_it(verb):
    function = load(verb)
    plain = getattr(function, "fn", function)
    read, made = described(verb), inspect.signature(plain, eval_str=True)
    assert [(a.name, a.kind, a.default, a.annotation) for a in read.arguments] == [
        (a.name, a.kind, a.default, a.annotation) for a in made.parameters.values()
    ]
    assert read.doc == inspect.getdoc(plain)


@pytest.mark.parametrize("verb", sorted(FLOWS | COMMANDS))
def test_every_option_of_every_verb_says_what_it_is(verb):
    actions = parser_of(verb, described(verb))._actions
    assert [action.dest for action in actions if len(re.sub(r"default: .*", "", action.help or "")) < 8] == []


@pytest.mark.parametrize("verb", sorted(FLOWS | COMMANDS))
def test_what_a_verb_says_of_its_options_is_of_options_that_it_has(verb):
    options = {action.dest for action in parser_of(verb, described(verb))._actions}
    assert told(described(verb)).keys() <= options


def test_prefect_yaml_has_the_pipeline_and_every_stage_and_its_schedule_is_off():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert {deployment["name"] for deployment in deployments} == {"full-pipeline", *PIPELINE}
    for deployment in deployments[1:]:
        assert deployment["parameters"]["stages"] == [deployment["name"]]
    (schedule,) = deployments[0]["schedules"]
    assert schedule["active"] is False


def test_ci_calls_what_the_readme_names():
    readme = (ROOT / "README.md").read_text()
    ci = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line.startswith("make")]
    assert ci == ["make test"]
    assert "make test" in readme
    assert "make demo" in readme


def test_every_verb_in_the_readme_exists():
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"`stiv (\w+)", readme))
    assert len(named) > 8
    for verb in named:
        assert verb in {known.split()[0] for known in FLOWS | COMMANDS}, verb


def test_every_folder_in_the_tree_of_the_readme_exists():
    readme = (ROOT / "README.md").read_text()
    named = re.findall(r"^[├└]── ([\w./]+)", readme, re.MULTILINE)
    assert len(named) > 8
    for name in named:
        assert (ROOT / name).exists(), name


def test_every_code_file_that_a_page_names_exists():
    folders = ("flows", "tasks", "stiv_model", "docs", "infra", "tests", "benchmarks")
    of_a_user = {"wandb_tracker.py", "infra/hostfile"}
    names = {path.name for folder in folders for path in (ROOT / folder).rglob("*.py")}
    pages = [path for path in ROOT.glob("*.md")] + sorted(
        path for folder in folders for path in (ROOT / folder).glob("*.md")
    )
    words = [(page.name, word) for page in pages for word in re.findall(r"`([\w./-]+)`", page.read_text())]
    named = {
        (page, word)
        for page, word in words
        if (word.endswith(".py") or (word.split("/")[0] in folders and "/" in word)) and not re.search("[A-Z]{3}", word)
    }
    assert len(named) > 100, "the search finds too little to be believed"
    assert not {
        (page, word) for page, word in named if not ((ROOT / word).exists() or word in names or word in of_a_user)
    }


AXIS = r"(?:\.\.\.|\w+(?: (?:[+*/]|or) \w+)?)"
"""Of a shape as a docstring writes it: its size by a letter, a number, a name or an expression; or all others."""
SHAPE = re.compile(rf"\((?=[^()]*(?:\b[A-Z]\b|\d|\.\.\.|,\))){AXIS}(?:, {AXIS})*,?\)|\bshapes?\b")
TENSOR = re.compile(r"\b(Tensor|ndarray)\b")


def public_definitions(package: str) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Yield the public functions, classes and methods of a package, by dotted name."""

    def within(node: ast.AST, name: str) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.FunctionDef | ast.ClassDef) and not inner.name.startswith("_"):
                yield f"{name}.{inner.name}", inner
                if isinstance(inner, ast.ClassDef):
                    yield from within(inner, f"{name}.{inner.name}")

    for path in sorted((ROOT / package).rglob("*.py")):
        yield from within(ast.parse(path.read_text()), module(str(path.relative_to(ROOT))))


def names_its_shapes(function: ast.FunctionDef) -> bool:
    """Say whether every tensor that a function takes, or else returns, has a shape in its name or in the docstring."""

    def is_tensor(annotation: ast.expr | None) -> bool:
        text = ast.unparse(annotation) if annotation else ""
        return bool(TENSOR.search(text)) and "Callable" not in text

    taken = [one.arg for one in (*function.args.args, *function.args.kwonlyargs) if is_tensor(one.annotation)]
    if taken and all(re.search(r"_[A-Z]+$", name) for name in taken):
        return True
    return not (taken or is_tensor(function.returns)) or bool(SHAPE.search(ast.get_docstring(function) or ""))


def test_every_public_definition_of_the_model_says_what_it_is():
    assert [name for name, node in public_definitions("stiv_model") if not ast.get_docstring(node)] == []


def test_every_public_function_of_the_model_names_the_shapes_of_its_tensors():
    functions = [(name, node) for name, node in public_definitions("stiv_model") if isinstance(node, ast.FunctionDef)]
    assert [name for name, function in functions if not names_its_shapes(function)] == []


@pytest.mark.parametrize(
    ("source", "is_named"),
    [
        ("def f(x_BFCHW: Tensor) -> Tensor: ...", True),
        ("def f(x: Tensor) -> Tensor: ...", False),
        ('def f(x: Tensor) -> Tensor:\n    "Return (B, T) of it."', True),
        ('def f(x: Tensor) -> Tensor:\n    "Return it (paper, section 2.1)."', False),
        ('def f(x: Tensor) -> Tensor:\n    "Return it (of all)."', False),
        ('def f() -> Iterator[Tensor]:\n    "Yield times (steps + 1,)."', True),
        ("def f() -> np.ndarray: ...", False),
        ("def f(x: int) -> int: ...", True),
    ],
)
def test_a_shape_is_found_in_a_name_or_a_docstring(source, is_named):
    (function,) = ast.parse(source).body
    assert names_its_shapes(function) is is_named


def test_what_a_task_of_prefect_raises_is_redacted_before_it_is_stored():
    tasks = dict[str, set[str]]()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                marks = [ast.unparse(mark) for mark in getattr(node, "decorator_list", [])]
                if any(mark.partition("(")[0] in ("task", "prefect.task") for mark in marks):
                    tasks[f"{path.relative_to(ROOT)}: {node.name}"] = {mark.rpartition(".")[2] for mark in marks}
    assert len(tasks) >= 7
    assert [task for task, marks in tasks.items() if "redacted" not in marks] == []
