"""A gate: Great Expectations suites on a stage's table, before it gets its name, and the result as Data Docs.

It fails closed: nothing but every expectation evaluated and met is success.
"""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

# Great Expectations reads this once, when it is imported, and would report every run to its makers.
os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)

from tasks.gates.data_docs import localise
from tasks.storage import atomic

log = logging.getLogger(__name__)

Expectations = list[gxe.Expectation]
Held = tuple[dict[str, Any], Expectations]
"""Numbers of a table, one each, and what must hold for them (`row_counts.counted` makes both of rows)."""


class GateResult(NamedTuple):
    """What came of a gate. `failed` has one sentence per expectation that was not met."""

    success: bool
    evaluated: int
    failed: list[str]


def check(name: str, tables: Callable[[], dict[str, Held]], docs: Path) -> GateResult:
    """Hold tables to their suites, and write the result as pages to the folder `docs`, over what is there.

    A validator that crashes is a gate that failed: the result says so, and the traceback is in the log.

    Args:
        name: of the stage, for the pages.
        tables: returns what is held to what, by the names of the tables.
    """
    shutil.rmtree(docs, ignore_errors=True)
    context = gx.get_context(mode="ephemeral", project_config=_project(name, docs))
    try:
        result = _validate(context, name, tables())
    except Exception as error:  # whatever the validator dies of, the table was not found good
        log.exception("the validator of %s crashed", name)
        result = GateResult(False, 0, [f"the validator itself crashed: {type(error).__name__}: {error}"])
    context.build_data_docs()
    localise(docs)
    return result


def settle(docs: Path, checked: Callable[[Path], GateResult]) -> tuple[GateResult, Path]:
    """Put the pages of a gate in their place: `docs` where it was passed, else `docs`.failed; return which.

    Args:
        checked: makes the gate's check, and writes its pages to the folder that it is given.
    """
    docs.parent.mkdir(parents=True, exist_ok=True)
    work, failed = (docs.with_name(f"{docs.name}.{state}") for state in ("partial", "failed"))
    result = checked(work)
    if not result.success:
        atomic.finish(work, failed)
        return result, failed
    shutil.rmtree(failed, ignore_errors=True)  # of an earlier attempt
    atomic.finish(work, docs)
    return result, docs


def _validate(context: gx.data_context.EphemeralDataContext, name: str, tables: dict[str, Held]) -> GateResult:
    source = context.data_sources.add_pandas(name)
    evaluated, failed = 0, []
    for table, (numbers, expectations) in tables.items():
        batch = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("rows")
        suite = context.suites.add(gx.ExpectationSuite(name=table, expectations=expectations))
        definition = gx.ValidationDefinition(name=table, data=batch, suite=suite)
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(
                name=table,
                validation_definitions=[context.validation_definitions.add(definition)],
                result_format={"result_format": "COMPLETE", "unexpected_index_column_names": []},
            )
        )
        outcome = checkpoint.run({"dataframe": pd.DataFrame([numbers])}, run_id=RunIdentifier(run_name="gate"))
        results = [result for run in outcome.run_results.values() for result in run.results]
        unmet = [_sentence(table, result) for result in results if result.success is not True]
        if len(results) != len(expectations) or (not outcome.success and not unmet):
            unmet.append(f"{table}: failed, {len(results)} of {len(expectations)} expectations evaluated")
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
    kind = (config.meta or {}).get("of", config.type)
    return f"{table}: expected {config.description} [{kind}], observed {observed}"


def _project(name: str, docs: Path) -> DataContextConfig:
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
        data_docs_sites={name: site},
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
    )
