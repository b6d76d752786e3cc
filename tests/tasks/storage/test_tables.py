import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.storage import tables


def row(name: str, status: str = "ok", reason: str | None = None) -> dict:
    return {"clip": name, "status": status, "reason": reason}


@given(st.lists(st.sampled_from(["ok", "rejected", "failed"]), min_size=1))
def test_an_account_counts_every_row_once(statuses):
    rows = [row(str(i), status, None if status == "ok" else "why") for i, status in enumerate(statuses)]
    account = tables.reconcile("clips", [r["clip"] for r in rows], rows, "clip")
    assert account.given == account.ok + account.rejected + account.failed == len(rows)
    assert account.reasons.get("why", 0) == account.rejected + account.failed


@given(st.sets(st.text(min_size=1), min_size=1), st.data())
def test_a_lost_row_a_double_row_and_a_foreign_row_are_all_found(names, data):
    rows = [row(name) for name in sorted(names)]
    victim = data.draw(st.sampled_from(rows))
    others = [r for r in rows if r is not victim]
    for wrong in (others, [*rows, victim], [*others, row(victim["clip"] + "x")]):
        with pytest.raises(AssertionError, match="does not balance"):
            tables.reconcile("clips", names, wrong, "clip")


@pytest.mark.parametrize("wrong", [row("a", "rejected"), row("a", "ok", "why"), row("a", "lost", "why")])
def test_a_row_without_a_reason_or_with_an_unknown_status_is_no_account(wrong):
    with pytest.raises(AssertionError):
        tables.reconcile("clips", ["a"], [wrong], "clip")


def test_names_given_as_a_mapping_are_names_and_not_counts():
    assert tables.reconcile("clips", {"a": {}, "b": {}}, [row("a"), row("b")], "clip").given == 2


def test_too_many_failures_stop_a_stage_and_name_the_setting():
    account = tables.reconcile("clips", "abcd", [row("a"), *(row(name, "failed", "timeout") for name in "bcd")], "clip")
    with pytest.raises(ValueError, match=r"\b3 of 4 clips .*timeout 3\b.*latents\.max_failed_fraction = 0\.5"):
        tables.check_failures(account, 0.5, "latents.max_failed_fraction")


def test_what_stops_a_stage_is_named_a_few_of_each_reason():
    rows = [row("a"), row("z", "rejected", "too_short")]
    rows += [row(name, "failed", "timeout") for name in "bcdef"] + [row("g", "failed", "memory")]
    account = tables.reconcile("clips", "abcdefgz", rows, "clip")
    with pytest.raises(ValueError, match=r"timeout: 'b', 'c', 'd' \.\.\.; memory: 'g'") as told:
        tables.check_failures(account, 0.5, "latents.max_failed_fraction", rows, "clip")
    assert "'z'" not in str(told.value)


def test_nothing_usable_is_an_error_and_not_an_empty_table():
    account = tables.reconcile("clips", ["a"], [row("a", "rejected", "too_short")], "clip")
    with pytest.raises(ValueError, match=r"\b1 clips .*\btoo_short 1\b"):
        tables.check_failures(account, 1.0, "anything")


def test_a_column_that_the_schema_has_not_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"captions\.parquet: .*\bcolour\b"):
        tables.write_rows(tmp_path / "captions.parquet", [row("a") | {"colour": "red"}], tables.CAPTIONS)


def test_rows_read_as_they_were_written(tmp_path):
    rows = [dict.fromkeys(tables.CAPTIONS.names) | row("a") | {"text": "a red circle"}]
    tables.write_rows(tmp_path / "captions.parquet", rows, tables.CAPTIONS)
    assert tables.read_rows(tmp_path / "captions.parquet", tables.CAPTIONS) == rows
    with pytest.raises(ValueError, match=r"captions\.parquet has columns .*\bcaptioner\b.*\bsize_bytes\b"):
        tables.read_rows(tmp_path / "captions.parquet", tables.VIDEOS)
    with pytest.raises(FileNotFoundError, match=r"clips\.parquet .*dvc repro"):
        tables.read_rows(tmp_path / "clips.parquet", tables.CLIPS)


def test_a_table_of_an_earlier_version_is_refused_with_both_names_of_a_column(tmp_path):
    table = tmp_path / "clips.parquet"
    tables.write_rows(table, [{"clip": "a"}], tables.CLIPS)
    for old, new in tables.RENAMED.items():
        names = [old if name == new else name for name in tables.CLIPS.names]
        earlier = tmp_path / f"{old}.parquet"
        pq.write_table(pq.read_table(table).rename_columns(names), earlier)
        with pytest.raises(ValueError, match=rf"{earlier} .*\b{old} .*\b{new}\b"):
            tables.read_rows(earlier, tables.CLIPS)
