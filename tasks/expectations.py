"""What the table of clips must be like, as Great Expectations suites; the result as pages that open offline.

The gate fails closed: nothing but every expectation evaluated and met is success.
"""

import ast
import html
import importlib.util
import logging
import math
import os
import re
import shutil
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

# Great Expectations reads this once, when it is imported, and would report every run to its makers.
os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")

import great_expectations as gx
import great_expectations.expectations as gxe
import pyarrow as pa
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)

from tasks.manifest import CLIPS, STATUSES
from tasks.settings import ClipSettings, Range

log = logging.getLogger(__name__)

Expectations = list[gxe.Expectation]

# What a score can be at all (tasks/measures.py and tasks/scores.py say what each is); null is no limit.
_POSSIBLE: dict[str, tuple[float, float | None]] = {
    "motion": (0, None),
    "aesthetic": (0, 10),
    "text_area": (0, 1),
    "clarity": (0, None),
    "temporal_consistency": (0, 1),
    "height": (1, None),
    "width": (1, None),
    "seconds": (0, None),
}

# What pages would fetch from a CDN: its name in the URL, the installed package that carries it, and where.
_CARRIED = {
    "bootstrap.min.css": ("flask_bootstrap", "static/bootstrap4/css/bootstrap.min.css"),
    "bootstrap.min.js": ("flask_bootstrap", "static/bootstrap4/js/bootstrap.min.js"),
    "jquery-3.7.1.min.js": ("flask_bootstrap", "static/bootstrap4/jquery.min.js"),
    "popper.min.js": ("flask_bootstrap", "static/bootstrap4/umd/popper.min.js"),
    "all.min.css": ("fontawesomefree", "static/fontawesomefree/css/all.min.css"),
}
# The stylesheet of the icons asks for ../webfonts.
_ICON_FONTS = ("fontawesomefree", "static/fontawesomefree/webfonts")


class GateResult(NamedTuple):
    """What came of the gate. `failed` has one sentence per expectation that was not met."""

    success: bool
    evaluated: int
    failed: list[str]


def ranges(settings: ClipSettings) -> dict[str, Range]:
    """Return the scores that have a threshold, in the order in which they are judged."""
    return {name: value for name, value in settings if isinstance(value, Range)}


def kept_suite(settings: ClipSettings, num_judged: int) -> Expectations:
    """Return what must hold for the rows kept, out of `num_judged`."""
    # Fraction(str()) because 0.07 * 100 in floating point is more than 7
    fewest = math.ceil(Fraction(str(settings.gate_min_kept_fraction)) * num_judged)
    suite: Expectations = [
        gxe.ExpectTableRowCountToBeBetween(
            min_value=settings.gate_min_clips,
            description=f"at least {settings.gate_min_clips} clips (params.yaml: clips.gate_min_clips)",
        ),
        gxe.ExpectTableRowCountToBeBetween(
            min_value=fewest,
            description=f"at least {fewest} clips, {settings.gate_min_kept_fraction} of {num_judged} shots "
            "(params.yaml: clips.gate_min_kept_fraction)",
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="orientation",
            value_set=list(settings.orientations),
            description=f"orientation is one of {settings.orientations} (params.yaml: clips.orientations)",
        ),
    ]
    for score, limits in ranges(settings).items():
        suite.append(gxe.ExpectColumnValuesToNotBeNull(column=score, description=f"{score} is measured"))
        if limits.min is not None or limits.max is not None:
            within = _interval(limits.min, limits.max)
            suite.append(
                gxe.ExpectColumnValuesToBeBetween(
                    column=score,
                    min_value=limits.min,
                    max_value=limits.max,
                    description=f"{score} is {within} (params.yaml: clips.{score})",
                )
            )
    return suite


def judged_suite() -> Expectations:
    """Return what must hold for every shot judged, kept or not: that the table can be true at all."""
    return [
        gxe.ExpectTableColumnsToMatchOrderedList(column_list=CLIPS.names, description="the columns are those of CLIPS"),
        gxe.ExpectTableRowCountToBeBetween(min_value=1, description="at least one shot was judged"),
        gxe.ExpectColumnValuesToNotBeNull(column="shot", description="every row names its shot"),
        gxe.ExpectColumnValuesToBeUnique(column="shot", description="no shot is there twice"),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="end_pts", column_B="start_pts", description="every shot ends after it starts"
        ),
        gxe.ExpectColumnValuesToNotBeNull(column="status", description="every row has a status"),
        gxe.ExpectColumnValuesToBeInSet(
            column="status", value_set=list(STATUSES), description=f"status is one of {list(STATUSES)}"
        ),
        gxe.ExpectColumnValuesToMatchRegex(
            column="reason", regex="^[a-z]+(?:_[a-z]+)*$", description="a reason is a short fixed code"
        ),
        *(
            gxe.ExpectColumnValuesToBeBetween(
                column=score,
                min_value=least,
                max_value=most,
                description=f"{score} is {_interval(least, most)}, or it was measured wrongly (stage scores)",
            )
            for score, (least, most) in _POSSIBLE.items()
        ),
    ]


def check(judged: pa.Table, settings: ClipSettings, docs: Path) -> GateResult:
    """Hold the table of shots judged (schema CLIPS), and the clips among them, to the suites.

    Writes the result as pages to the folder `docs`, over what is there. A validator that crashes is a gate
    that failed: the result says so, and the traceback is in the log.
    """
    shutil.rmtree(docs, ignore_errors=True)
    context = gx.get_context(mode="ephemeral", project_config=_project(docs))
    try:
        result = _validate(context, judged, settings)
    except Exception as error:  # whatever the validator dies of, the table was not found good
        log.exception("the validator of clips crashed")
        result = GateResult(False, 0, [f"the validator itself crashed: {type(error).__name__}: {error}"])
    context.build_data_docs()
    localise(docs)
    return result


def localise(docs: Path) -> None:
    """Make the pages below `docs` open whole without a network.

    Installed packages' files take the place of CDN addresses. What no package carries goes (the logo,
    sorting of tables); rows that a script would have drawn are written into the page.

    Raises:
        FileNotFoundError: a package that carries the files is not installed.
    """
    assets = docs / "assets"
    for name, source in _CARRIED.items():
        target = assets / ("css" if name.endswith(".css") else "js") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_carried(*source), target)
    (assets / "webfonts").mkdir()
    for font in sorted(_carried(*_ICON_FONTS).glob("*.woff2")):
        shutil.copyfile(font, assets / "webfonts" / font.name)
    for page in sorted(docs.rglob("*.html")):
        up = "../" * (len(page.relative_to(docs).parts) - 1)
        page.write_text(_localise_page(page.read_text(), f"{up}assets"))
    shutil.rmtree(docs / "static")  # fonts and pictures for the documentation of Great Expectations


def _validate(context: gx.data_context.EphemeralDataContext, judged: pa.Table, settings: ClipSettings) -> GateResult:
    shots = judged.to_pandas()
    tables = {
        "kept": (shots[shots["status"] == "ok"], kept_suite(settings, len(shots))),
        "judged": (shots, judged_suite()),
    }
    source = context.data_sources.add_pandas("clips")
    evaluated, failed = 0, []
    for name, (table, expectations) in tables.items():
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("rows")
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
        definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(
                name=name,
                validation_definitions=[context.validation_definitions.add(definition)],
                result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["shot"]},
            )
        )
        outcome = checkpoint.run({"dataframe": table}, run_id=RunIdentifier(run_name="gate"))
        results = [result for run in outcome.run_results.values() for result in run.results]
        unmet = [_sentence(name, result) for result in results if result.success is not True]
        if len(results) != len(expectations) or (not outcome.success and not unmet):
            unmet.append(f"{name}: failed, {len(results)} of {len(expectations)} expectations evaluated")
        evaluated += len(results)
        failed += unmet
    return GateResult(not failed, evaluated, failed)


def _sentence(table: str, result: gx.core.ExpectationValidationResult) -> str:
    config = result.expectation_config
    assert config is not None, "a result of no expectation"
    found = result.result
    if "observed_value" in found:
        observed = str(found["observed_value"])
    elif "unexpected_count" in found:
        examples = found["partial_unexpected_list"][:3]
        observed = f"{found['unexpected_count']} of {found['element_count']} rows, such as {examples}"
    else:  # the expectation could not be evaluated, for want of a column for example
        info = result.exception_info
        errors = [info] if "exception_message" in info else list(info.values())
        observed = "; ".join(sorted({str(error["exception_message"]) for error in errors}))
    return f"{table}: expected {config.description} [{config.type}], observed {observed}"


def _interval(least: float | None, most: float | None) -> str:
    limits = [f"at least {least}"] * (least is not None) + [f"at most {most}"] * (most is not None)
    return " and ".join(limits)


def _project(docs: Path) -> DataContextConfig:
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(docs.absolute()),
        },
    }
    return DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        data_docs_sites={"clips": site},
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
    )


def _carried(package: str, path: str) -> Path:
    found = importlib.util.find_spec(package)  # finds without importing: flask is not needed for its files
    for folder in (found and found.submodule_search_locations) or []:
        if (Path(folder) / path).exists():
            return Path(folder) / path
    raise FileNotFoundError(f"package {package} with {path} is not installed: run make setup")


def _localise_page(page: str, assets: str) -> str:
    def resource(tag: re.Match) -> str:
        name = PurePosixPath(urlsplit(tag["url"]).path).name
        if name not in _CARRIED:
            return ""
        if name.endswith(".css"):
            return f'<link rel="stylesheet" href="{assets}/css/{name}">'
        return f'<script src="{assets}/js/{name}"></script>'

    page = re.sub(r'<script\b[^>]*\bsrc="(?P<url>[^"]*)"[^>]*>\s*</script>', resource, page)
    page = re.sub(r'<link\b[^>]*\bhref="(?P<url>[^"]*)"[^>]*>', resource, page)
    page = re.sub(r"<img\b[^>]*>", "Data Docs", page)  # the logo, within the link to the first page
    page = re.sub(r"<footer\b.*?</footer>", "", page, flags=re.DOTALL)  # an invitation to a newsletter
    page = re.sub(r'<button\b[^>]*onclick="clearTableFilters.*?</button>', "", page, flags=re.DOTALL)
    for script in re.findall(r"<script>.*?</script>", page, flags=re.DOTALL):
        if drawn := re.search(r"\$\('#(\S+?)'\)\.bootstrapTable\(", script):
            page = page.replace(script, "")
            empty = re.search(rf'<table\s+id="{drawn[1]}"[^>]*>', page)
            assert empty is not None, f"no table {drawn[1]} to draw"
            page = page[: empty.end()] + _rows(script) + page[empty.end() :]
        elif "bootstrapTable" in script or "vegaEmbed" in script:
            page = page.replace(script, "")
    return page


def _rows(script: str) -> str:
    """Return what a call of bootstrapTable would draw; columns and data are Python literals there."""
    columns, data = map(ast.literal_eval, re.findall(r"^\s*(?:columns|data): (\[.*\]),?$", script, flags=re.MULTILINE))
    lines = ["".join(f"<th>{html.escape(column['title'])}</th>" for column in columns)]
    for row in data:
        cells = [row.get(column["field"], "") for column in columns]
        link = row["_table_row_link_path"]
        cells = [cell if "<a " in cell else f'<a href="{link}">{cell}</a>' for cell in cells]
        lines.append("".join(f"<td>{cell}</td>" for cell in cells))
    return "".join(f"<tr>{line}</tr>" for line in lines)
