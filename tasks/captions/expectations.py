"""What the table of captions must be like, as Great Expectations suites (tasks/gates/gate.py)."""

from pathlib import Path
from typing import Any

import duckdb
import great_expectations.expectations as gxe
from great_expectations.expectations.row_conditions import Column

from tasks.captions.outcomes import REASONS
from tasks.captions.settings import CaptionSettings, name_of
from tasks.gates import gate
from tasks.gates.gate import Expectations, GateResult, Held
from tasks.gates.row_counts import counted
from tasks.storage.tables import CAPTIONS, Account

_VISIBLE = r"^[^\x00-\x1f\x7f-\x9f\x{200e}\x{200f}\x{202a}-\x{202e}\x{2066}-\x{2069}]+$"
_MADE_WITH = {
    "endpoint": ("raw", "model", "prompt_sha256", "frames", "temperature", "seed", "max_tokens"),
    "transformers": ("raw", "model", "prompt_sha256", "frames", "temperature", "max_tokens"),
    "embedded": ("raw", "model", "frames", "temperature"),
}
"""Columns that a row by a model has, by its backend."""


def ok_suite(settings: CaptionSettings) -> Expectations:
    """Return what must hold for the captions that are handed on."""
    names = [name_of(captioner) for captioner in settings.captioners]
    suite: Expectations = [
        gxe.ExpectTableRowCountToBeBetween(min_value=1, description="at least one clip has a caption"),
        gxe.ExpectColumnValuesToNotBeNull(column="captioner", description="every caption names who wrote it"),
        gxe.ExpectColumnValuesToBeInSet(
            column="captioner", value_set=names, description=f"captioner is one of {names} (params.yaml: captions)"
        ),
    ]
    for column in ("text", "short"):
        suite += [
            gxe.ExpectColumnValuesToNotBeNull(column=column, description=f"every caption has its {column}"),
            gxe.ExpectColumnValuesToMatchRegex(
                column=column, regex=_VISIBLE, description=f"{column} is one line without signs that nobody sees"
            ),
        ]
    suite += [
        gxe.ExpectColumnValuesToNotBeNull(
            column=column,
            row_condition=Column("captioner") == model.name,
            description=f"every caption by {model.name} has its {column}",
        )
        for model in settings.models
        for column in _MADE_WITH[model.backend]
    ]
    return suite


def all_suite() -> Expectations:
    """Return what must hold for every row: that the table can be true at all."""
    return [
        gxe.ExpectTableColumnsToMatchOrderedList(
            column_list=CAPTIONS.names, description="the columns are those of CAPTIONS"
        ),
        gxe.ExpectColumnValuesToNotBeNull(column="clip", description="every row names its clip"),
        gxe.ExpectColumnValuesToBeUnique(column="clip", description="no clip is there twice"),
        gxe.ExpectColumnValuesToNotBeNull(column="status", description="every row has a status"),
        gxe.ExpectColumnValuesToBeInSet(
            column="status", value_set=["ok", "failed"], description="status is ok or failed"
        ),
        gxe.ExpectColumnValuesToNotBeNull(
            column="reason", row_condition=Column("status") == "failed", description="every failed clip has its reason"
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="reason", value_set=list(REASONS), description="a reason is one of those of docs/captions.md"
        ),
    ]


def whole_suite(settings: CaptionSettings, tokens: dict[str, Any]) -> Expectations:
    """Return what must hold for the shares of the table."""
    most, most_cut = settings.max_failed_fraction, settings.max_cut_fraction
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="share_failed",
            max_value=most,
            description=f"at most {most} of the clips have no caption (params.yaml: captions.max_failed_fraction)",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="share_cut",
            max_value=most_cut,
            description=f"at most {most_cut} of the captions have more than {tokens['tokens']} tokens, and are cut "
            f"(params.yaml: captions.max_cut_fraction); text.tokens: {tokens['cut_none']} would cut none",
        ),
    ]


def check(
    connection: duckdb.DuckDBPyConnection,
    table: Path,
    settings: CaptionSettings,
    account: Account,
    tokens: dict[str, Any],
    docs: Path,
) -> GateResult:
    """Hold a table of captions to the suites, and write the result as pages to the folder `docs`.

    Args:
        account: of the table.
        tokens: `token_lengths.cut` of it.
    """

    def tables() -> dict[str, Held]:
        shares = {"share_failed": account.failed / max(1, account.given), "share_cut": tokens["cut"]}
        return {
            "whole": (shares, whole_suite(settings, tokens)),
            "ok": counted(connection, table, "status = 'ok'", ok_suite(settings)),
            "all": counted(connection, table, "true", all_suite()),
        }

    return gate.check("captions", tables, docs)
