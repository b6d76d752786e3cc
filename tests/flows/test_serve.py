"""`stiv caption` against a real server, `transformers serve`, which fails in every way and dies on the way."""

import base64
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from flows.__main__ import main
from flows.running.server import free_port
from stiv_model.process_exit import STOPPED
from tests import tiny_vlm
from tests.fault_server import FaultProxy, by_chance
from tests.made_clips import Workspace, model

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

CLIPS, FRAMES, KILLED_AT = 300, 2, 150
FAULTS = ("429", "429 Retry-After=0.05", "500", "reset", "stall=10", "truncated", "html")
COMMAND = "caption --clips clips --shots pictures --report reports/captions.json --docs reports/docs --out"

_WORD = re.compile("Ġ?[A-Za-z]+")


def talkative(folder: Path) -> Path:
    """Make a model that says a dozen pieces of words and ends: what random weights say by themselves has no end."""
    from transformers import AutoTokenizer

    tiny_vlm.make("llava", folder)
    said = json.loads((folder / "generation_config.json").read_text())
    words = {
        number for piece, number in AutoTokenizer.from_pretrained(folder).get_vocab().items() if _WORD.fullmatch(piece)
    }
    others = set(range(tiny_vlm._VOCABULARY)) - words - {said["eos_token_id"]}
    said |= {"suppress_tokens": sorted(others), "exponential_decay_length_penalty": [12, 1.5]}
    (folder / "generation_config.json").write_text(json.dumps(said))
    return folder


def picture(number: int) -> bytes:
    """Return a JPEG of coloured patches, others for each number."""
    patches = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(patches).save(file := io.BytesIO(), "JPEG")
    return file.getvalue()


@contextmanager
def serve(folder: Path, port: int) -> Iterator[subprocess.Popen]:
    """Run `transformers serve` on a model while the block lasts, from when it is ready on."""
    command = [Path(sys.executable).parent / "transformers", "serve", folder, "--port", str(port), "--device", "cpu"]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1,localhost"}
    with Path("serve.log").open("a") as log:
        process = subprocess.Popen([*map(str, command), "--host", "127.0.0.1"], env=env, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < until:
            with suppress(URLError, ConnectionError), urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.2)
        else:
            pytest.fail(Path("serve.log").read_text()[-3000:])
        yield process
    finally:
        process.kill()
        process.wait()


def stored() -> set[str]:
    """Return the clips whose answers are stored."""
    if not Path(".cache/answers.sqlite").exists():
        return set()
    with sqlite3.connect(".cache/answers.sqlite") as connection:
        return {item.split()[0] for (item,) in connection.execute("SELECT item FROM answers")}


def rows_of(out: str) -> list[dict]:
    return pq.read_table(Path(out) / "captions.parquet").to_pylist()


def write_params(folder: Path, url: str) -> None:
    """Write params.yaml with the model as its captioner, and with checks that noise passes."""
    limits = {"request_seconds": 8, "item_seconds": 100, "attempts": 9, "backoff_seconds": 0.01, "in_flight": 4}
    named = {"model": str(folder), "answers_as": f"{folder}@main"}
    captioner = model(url, answer="text", frames=FRAMES, max_tokens=64, **limits, **named)
    values = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text())
    values["captions"] |= {"captioners": [captioner.model_dump(mode="json")], "compared": [], "shard_clips": 50}
    values["captions"]["checks"] |= {"min_letters": 1, "max_repeated": 1, "max_same": CLIPS, "other_languages": []}
    Path("params.yaml").write_text(yaml.safe_dump(values))


def test_a_real_server_that_fails_and_dies_gives_the_rows_of_one_that_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workspace = Workspace(tmp_path, CLIPS)
    workspace.stills = {
        clip: [picture(FRAMES * number + at) for at in range(FRAMES)] for number, clip in enumerate(workspace.clips)
    }
    workspace.write_stills("pictures")
    clip_of = {base64.b64encode(of[0]).decode(): clip for clip, of in workspace.stills.items()}
    folder, port = talkative(tmp_path / "llava"), free_port()
    write_params(folder, f"http://127.0.0.1:{(door := free_port())}/v1")
    chance, killed, asked_again = by_chance(0.3, 7, FAULTS), [], []

    def fault(number: int) -> str | None:
        url = proxy.requests[-1]["messages"][0]["content"][0]["image_url"]["url"]
        asked_again.extend({clip_of[url.partition(",")[2]]} & stored())
        if number == KILLED_AT and not killed:
            server.send_signal(signal.SIGKILL)
            killed.append(time.monotonic())
        return chance(number)

    with serve(folder, port) as server:
        with FaultProxy(f"http://127.0.0.1:{port}/v1", port=door) as proxy:
            main([*COMMAND.split(), "plain"])
            assert proxy.answered.total() == CLIPS
        Path(".cache/answers.sqlite").unlink()
        with FaultProxy(f"http://127.0.0.1:{port}/v1", fault, door) as proxy, pytest.raises(SystemExit) as ended:
            main([*COMMAND.split(), "captions"])
    assert ended.value.code == STOPPED == 75 and time.monotonic() - killed[0] < 30
    known = stored()
    assert 0 < len(known) < CLIPS and not Path("captions").exists()
    with serve(folder, port), FaultProxy(f"http://127.0.0.1:{port}/v1", fault, door) as proxy:
        main([*COMMAND.split(), "captions"])
    rows = rows_of("captions")
    assert [row["clip"] for row in rows] == workspace.clips
    assert rows == rows_of("plain") and {row["status"] for row in rows} == {"ok"}
    assert len({row["text"] for row in rows}) > CLIPS / 10, "a model that says the same of all shows nothing"
    assert not asked_again
