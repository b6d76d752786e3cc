"""What captioning will take is told by asking about a few clips, whose answers are not asked for again."""

import json

import pytest

from flows.commands import caption_forecast
from tasks.captions import probing
from tests.fault_server import FaultServer
from tests.made_clips import Workspace, by, model


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path, 30)


def test_the_probe_is_told_for_all_clips_and_its_answers_are_kept(workspace, capsys):
    with FaultServer() as server:
        settings = by(model(server.url), max_failed_fraction=0.5)
        (first,) = probing.probe_all(settings, workspace.top / "clips", workspace.top / "shots", 12)
        assert (first.clips, first.answered, first.probed, first.failed, first.answers) == (30, 0, 12, 0, 12)
        assert (first.prompt_tokens, first.completion_tokens) == (12 * 32, 12 * 12)
        (second,) = probing.probe_all(settings, workspace.top / "clips", workspace.top / "shots", 12)
        assert (second.answered, second.probed, len(server.requests)) == (12, 12, 24)  # others than before
        caption_forecast.forecast(
            probe=4, selected=workspace.top / "clips", shots=workspace.top / "shots", gpus=8, price_per_hour=2.0,
            json=True, captions=settings,
        )  # fmt: skip
        (told,) = json.loads(capsys.readouterr().out)
        assert told["left"] == 2 and (told["prompt_tokens_per_clip"], told["completion_tokens_per_clip"]) == (32, 12)
        assert told["hours"] == pytest.approx(2 * told["seconds"] / 4 / 3600)
        assert told["price"] == pytest.approx(told["hours"] * 8 * 2)
        assert len(server.answered) == len(server.requests) == 28
        (last,) = probing.probe_all(settings, workspace.top / "clips", workspace.top / "shots", 64)
        assert (last.probed, len(server.requests)) == (2, 30)
        (none,) = probing.probe_all(settings, workspace.top / "clips", workspace.top / "shots", 64)
        assert probing.costs(none, 1, 1.0)["hours"] == 0 and probing.costs(none, 1, 1.0)["clips_per_second"] is None
    table = probing.lines([probing.costs(none, 1, None)])
    assert table[1].startswith("video") and "30 of 30 had an answer before" in table[2]


def test_without_a_model_there_is_nothing_to_forecast(workspace):
    with pytest.raises(ValueError, match=r"captions.captioners has no model.*kind: video_llm"):
        probing.probe_all(by("sidecar"), workspace.top / "clips", workspace.top / "shots", 64)


def test_an_endpoint_that_is_gone_ends_it_with_75(workspace, capsys):
    settings = by(model("http://127.0.0.1:9", attempts=1, item_seconds=0.5, request_seconds=0.4))
    with pytest.raises(SystemExit) as ended:
        caption_forecast.forecast(
            probe=30, selected=workspace.top / "clips", shots=workspace.top / "shots", captions=settings
        )
    assert ended.value.code == 75 and "stiv captions forecast: " in capsys.readouterr().err


@pytest.mark.parametrize("option", ["probe", "gpus"])
def test_a_number_below_one_is_refused(option):
    with pytest.raises(ValueError, match=f"--{option} is 0"):
        caption_forecast.forecast(captions=by("sidecar"), **{option: 0})
