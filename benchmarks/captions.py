"""What captioning costs beside the model: the client, the stage around it, and the cleaning and checks of captions.

    python benchmarks/captions.py --clips 2000 --memory-clips 20000 --json captions.json

with the folder of the repository on PYTHONPATH or the package installed. The endpoint costs next to nothing: asyncio on
loopback, in a process of its own, one answer for all. A clip has 4 stills of 9 kB. CPU seconds (user and system, all
threads) are those of the process that is named; of stages and clients after a first run on a few clips. `openai` is
measured where it is installed.
"""

import argparse
import asyncio
import hashlib
import importlib.util
import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from flows.params import load_params
from tasks.captions import cleaning, outcomes
from tasks.captions.endpoint import question_body
from tasks.captions.settings import EndpointCaptionerSettings
from tasks.captions.stage import Captions
from tasks.chat.client import Client, Question
from tasks.chat.store import Answers
from tasks.storage import atomic, parts, shards, stage, stills, tables
from tasks.storage.stage import Joined

ROOT = Path(__file__).parents[1]
MODEL = "zero-cost"
STILLS, STILL_BYTES = 4, 9_000
_SHOTS = 4  # of a video
_WINDOW = 64
_ROUNDS = 5  # others on the machine slow each other's memory: the fastest is the least disturbed
_SAID = (
    "A man in a red jacket rides a bicycle down a wet street while two dogs run beside him. The camera follows from "
    "behind, and the light is soft and grey."
)
DENSE = (
    "The video shows a man in a red jacket who rides a bicycle down a wet street while two dogs run beside him; the "
    "camera follows from behind, and the light is soft and grey. In the background there are parked cars, a bus stop "
    "with an advertisement, and a row of trees whose leaves have turned yellow. He looks back once."
)
PROMPT = f"These {STILLS} frames are from one clip. Describe it."


class Figures(NamedTuple):
    """What asking about some clips costs."""

    clips: int
    clips_per_second: float
    """By the clock: with whatever else the machine does."""
    clips_per_two_cpu_seconds: float
    """Of client and server together: what two free cores could do at most."""
    client_cpu_ms: float
    """Of the process of the client, each clip."""
    server_cpu_ms: float
    """Of the process of the server, each clip."""
    peak_mb: float
    """Resident in the process of the client, imports and all."""


def serve(port: Connection) -> None:
    """Answer every request with the same, until the process is ended; say on which port, and, asked, what it cost."""
    choice = {"index": 0, "message": {"role": "assistant", "content": _SAID}, "finish_reason": "stop"}
    body = json.dumps(
        {"id": "x", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice]}
    ).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(respond, "127.0.0.1", 0, limit=1 << 20)
        port.send(server.sockets[0].getsockname()[1])
        while True:
            await asyncio.to_thread(port.recv)
            port.send(time.process_time())

    asyncio.run(run())


@contextmanager
def endpoint() -> Iterator[tuple[str, Connection]]:
    """Give the address of a server in a process of its own, and the connection that asks what it has cost."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1", here
    finally:
        process.terminate()
        process.join()


def settings_for(url: str) -> EndpointCaptionerSettings:
    """Return a captioner whose model is the server."""
    limits = {
        "request_seconds": 60,
        "item_seconds": 120,
        "attempts": 3,
        "backoff_seconds": 0.1,
        "max_retry_fraction": 1,
    }
    known = {"urls": [url], "model": MODEL, "answers_as": None, "api_key_variable": None, "in_flight": 32}
    asked = {"prompt": "prompts/video.txt", "answer": "text", "frames": STILLS, "temperature": 0, "seed": 0}
    own = {"kind": "video_llm", "name": "video", "backend": "endpoint", "max_tokens": 200} | asked
    return EndpointCaptionerSettings.model_validate(own | {"endpoint": known | limits | {"max_answer_bytes": 65_536}})


def pictures(number: int) -> list[bytes]:
    """Return the stills of a clip: bytes that no two clips share."""
    seed = hashlib.sha256(b"%d" % number).digest()
    return [
        b"\xff\xd8\xff" + bytes([place]) + seed * (STILL_BYTES // len(seed)) + b"\xff\xd9" for place in range(STILLS)
    ]


def questions(settings: EndpointCaptionerSettings, first: int, count: int) -> list[Question]:
    """Return the questions about some clips, whose bodies are made as the stage makes them."""
    numbers = range(first, first + count)
    return [
        Question(f"clip-{number}", question_body(settings, PROMPT, pictures(number), settings.answer))
        for number in numbers
    ]


def ask(settings: EndpointCaptionerSettings, folder: Path, clips: int, server: Connection) -> Figures:
    """Ask about so many clips, some at a time as a shard does, and store the answers."""
    client = Client(settings.endpoint)
    with Answers(folder / "answers.sqlite") as answers:
        client.ask(questions(settings, 10**9, _WINDOW), "before", answers)
        server.send(None)
        server_before, before, started = server.recv(), time.process_time(), time.monotonic()
        for first in range(0, clips, _WINDOW):
            replies = client.ask(questions(settings, first, min(_WINDOW, clips - first)), "asked", answers)
            assert all(reply.answer is not None and reply.answer.content == _SAID for reply in replies)
        seconds, cpu = time.monotonic() - started, time.process_time() - before
    client.close()
    server.send(None)
    served, peak = server.recv() - server_before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Figures(clips, clips / seconds, 2 * clips / (cpu + served), 1e3 * cpu / clips, 1e3 * served / clips, peak)


class Timed(Captions):
    """Stage captions, which notes the CPU seconds of this process when all clips have their captions."""

    captioned: float

    def join(self, work: shards.Work, product: Path) -> Joined:
        self.captioned = time.process_time()
        return super().join(work, product)


def run_stage(settings: EndpointCaptionerSettings, folder: Path, videos: int) -> dict[str, float]:
    """Run the whole stage in a folder on videos of some shots each, and return what a clip and the gate cost."""
    clips = sorted(
        tables.clip_id(hashlib.sha256(b"%d" % video).hexdigest(), shot, shot + 1)
        for video in range(videos)
        for shot in range(_SHOTS)
    )
    rows = [dict.fromkeys(tables.CLIPS.names) | {"clip": clip, "status": "ok"} for clip in clips]
    (folder / "clips").mkdir()
    tables.write_rows(folder / "clips" / tables.CLIP_TABLE, rows, tables.CLIPS)
    write_stills(folder / "shots" / stills.FOLDER, clips, parts.choose(videos, None))
    tables.write_rows(folder / "shots" / tables.SPLIT_TABLE, [], tables.SPLITS)
    shutil.copytree(ROOT / "prompts", folder / "prompts")
    params = load_params(ROOT / "params.yaml")
    checks = params.captions.checks.model_copy(update={"max_same": len(clips)})
    by_model = params.captions.model_copy(update={"captioners": (settings,), "checks": checks})
    outcomes.reason_against(DENSE, checks)  # the languages are loaded
    with chdir(folder):
        declared = Timed(Path("clips"), Path("shots"), Path("docs"), by_model, params.text, Path("answers.sqlite"))
        before = time.process_time()
        stage.run(declared, Path("captions"), Path("report.json"), "code", earlier=Path("earlier"))
    return {
        "clips": len(clips),
        "CPU ms a clip, up to the gate": 1e3 * (declared.captioned - before) / len(clips),
        "table, gate and Data Docs, CPU s": time.process_time() - declared.captioned,
    }


def write_stills(folder: Path, clips: list[str], count: int) -> None:
    """Write stills of clips in so many parts, as stage shots does."""
    folder.mkdir(parents=True)
    of_parts: dict[int, list[dict[str, Any]]] = {}
    for number, clip in enumerate(clips):
        of_parts.setdefault(parts.number(clip, count), []).append({"clip": clip, "stills": pictures(number)})
    files = [stills.write_part(folder, part, rows) for part, rows in of_parts.items()]
    parts.write(folder, count, {file.name: atomic.sha256_file(file) for file in files})


def ask_by_openai(url: str, settings: EndpointCaptionerSettings, clips: int) -> float:
    """Return the CPU milliseconds a clip of `openai`'s asynchronous client on the same questions, made as dicts."""
    import openai

    async def run() -> float:
        limit = asyncio.Semaphore(settings.endpoint.in_flight)
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

            async def one(number: int) -> None:
                body = json.loads(question_body(settings, PROMPT, pictures(number), settings.answer))
                async with limit:
                    await client.chat.completions.create(**body)

            await asyncio.gather(*map(one, range(_WINDOW)))
            before = time.process_time()
            for first in range(0, clips, _WINDOW):
                await asyncio.gather(*map(one, range(first, min(first + _WINDOW, clips))))
            return time.process_time() - before

    return 1e3 * asyncio.run(run()) / clips


def clean_and_check(captions: int) -> dict[str, float]:
    """Return how many captions, each its own text, a second of CPU cleans, checks, and both: of the best round."""
    settings = load_params(ROOT / "params.yaml").captions
    texts = [f"{DENSE} Number {number} of many." for number in range(captions)]
    outcomes.reason_against(DENSE, settings.checks)  # the languages are loaded
    cleaning_seconds, checking_seconds = [], []
    for _ in range(_ROUNDS):
        started = time.process_time()
        cleaned = [cleaning.clean(text, settings.clean).text for text in texts]
        between = time.process_time()
        reasons = {outcomes.reason_against(text, settings.checks) for text in cleaned}
        checking_seconds.append(time.process_time() - between)
        cleaning_seconds.append(between - started)
        assert reasons == {None}, reasons
    return {
        "cleaned": captions / min(cleaning_seconds),
        "checked": captions / min(checking_seconds),
        "both": captions / (min(cleaning_seconds) + min(checking_seconds)),
        "characters": len(texts[0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2_000)
    parser.add_argument("--videos", type=int, default=500, help="of 4 clips each, that the whole stage captions")
    parser.add_argument("--memory-clips", type=int, default=0, help="clips of a longer run, whose memory is compared")
    parser.add_argument("--captions", type=int, default=2_000, help="texts that are cleaned and checked")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[str, Any] = {}
    with endpoint() as (url, server), tempfile.TemporaryDirectory(prefix="stiv-captions-") as name:
        settings = settings_for(url)
        found["client"] = ask(settings, Path(name), options.clips, server)._asdict()
        if importlib.util.find_spec("openai"):
            found["openai, CPU ms a clip"] = ask_by_openai(url, settings, options.clips)
        else:
            found["openai, CPU ms a clip"] = "not measured: it is not installed"
        if options.videos:
            (Path(name) / "stage").mkdir()
            found["stage"] = run_stage(settings, Path(name) / "stage", options.videos)
        if options.memory_clips:
            (Path(name) / "longer").mkdir()
            found["longer"] = ask(settings, Path(name) / "longer", options.memory_clips, server)._asdict()
    found["captions a second of CPU"] = clean_and_check(options.captions)
    print(text := json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
