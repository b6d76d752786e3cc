"""`stiv caption` with a model behind an endpoint, as a command."""

import json
import logging
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from flows.__main__ import main
from flows.running.server import free_port
from stiv_model.process_exit import STOPPED
from tests.fault_server import FaultServer, completion
from tests.made_clips import Workspace, model

KEY = "sk-caNary7cAnary"
COMMAND = "caption --clips clips --shots shots --out captions --report reports/captions.json --docs reports/docs"


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path, 40)


def write_params(captioner) -> None:
    values = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text())
    values["captions"] |= {"captioners": [captioner.model_dump(mode="json")], "compared": [], "shard_clips": 10}
    Path("params.yaml").write_text(yaml.safe_dump(values))


def test_a_dead_endpoint_ends_the_command_with_75_and_the_same_command_goes_on(workspace, capfd):
    with FaultServer(fault=lambda number: "reset" if number >= 5 else None) as server:
        write_params(model(server.url, attempts=3, in_flight=4, backoff_seconds=0.05))
        before = time.monotonic()
        with pytest.raises(SystemExit) as ended:
            main(COMMAND.split())
        assert time.monotonic() - before < 30
        assert ended.value.code == STOPPED == 75
        assert "the same command goes on there" in capfd.readouterr().err.splitlines()[-1]
        assert not Path("captions").exists() and not Path("reports/captions.json").exists()
        answered = server.answered.copy()
        server.fault = lambda number: None
        main(COMMAND.split())
        assert answered and set(server.answered.values()) == {1}
    assert json.loads(Path("reports/captions.json").read_text())["clips"]["ok"] == 40


def test_a_key_that_a_server_tells_again_is_in_no_row_log_or_page_and_hostile_answers_forge_no_line(
    workspace, monkeypatch, caplog, capfd
):
    monkeypatch.setenv("STIV_TEST_KEY", KEY)
    hostile = f"\x1b[2J\n12:00:00 ERROR forged line {KEY} <script>alert(1)</script> {{{{7*7}}}} \u202e"

    def answer(request):
        if len(server.requests) % 3 == 0:
            return hostile.encode()
        return completion(request, json.dumps({"text": f"A dog {hostile}", "short": hostile}))

    with FaultServer(answer, fault=lambda number: "400" if number == 5 else None) as server:
        write_params(model(server.url, api_key_variable="STIV_TEST_KEY", attempts=8))
        with caplog.at_level(logging.INFO):
            main([*COMMAND.split(), "--set", "captions.max_failed_fraction=0.5", "captions.checks.max_same=40"])
    said = caplog.text + "".join(capfd.readouterr())
    assert "status 400" in said
    assert not [word for word in (KEY, "\x1b", "forged", "\u202e", "<script") if word in said]
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    files = [file for file in Path().rglob("*") if file.is_file()]
    assert len([file for file in files if file.suffix == ".html"]) > 3
    assert not [file for file in files if KEY.encode() in file.read_bytes()]
    rows = pq.read_table("captions/captions.parquet").to_pylist()
    assert "***" in str(rows) and KEY not in str(rows)
    assert not [row for row in rows if row["text"] and not row["text"].isprintable()]


def needed_by(stage: str, stages: dict) -> set[str]:
    """Return the stages whose outputs a stage needs, directly or not."""
    before = {name for name, one in stages.items() if set(one["outs"]) & set(stages[stage]["deps"])}
    return before.union(*(needed_by(name, stages) for name in before))


def test_a_model_that_is_down_for_the_whole_run_leaves_nothing_to_train_on(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Workspace(tmp_path / "data", 40, caption="beside the video", colours=["grey"], brightness=0.5)
    Path("data/prompts").rename("prompts")
    write_params(model(f"http://127.0.0.1:{free_port()}/v1", attempts=2))
    stages = yaml.safe_load((Path(__file__).parents[2] / "dvc.yaml").read_text())["stages"]
    with pytest.raises(SystemExit) as ended:
        main(stages["captions"]["cmd"].partition("flows ")[2].split())
    assert ended.value.code == STOPPED and "20 failures in a row: no connection" in capfd.readouterr().err
    assert not [out for out in stages["captions"]["outs"] if Path(out).exists()]
    assert "captions" in needed_by("latents", stages), "or data/latents would be made without captions"
    rows = [row for path in Path("data").glob("*.partial/**/*.parquet") for row in pq.read_table(path).to_pylist()]
    assert not [row for row in rows if row.get("text")]
