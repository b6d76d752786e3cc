"""Clips with stills, as the stages before captions make them, and captioners whose model is a server of a test."""

import hashlib
import os
from pathlib import Path

import pyarrow.parquet as pq

from flows.params import load_params
from tasks.captions.settings import CaptionSettings, EndpointCaptionerSettings
from tasks.captions.stage import Captions, caption_clips, captioners_of
from tasks.chat.client import closing
from tasks.storage import stage, tables
from tests.fault_server import MODEL
from tests.made_stills import write_stills

SETTINGS = load_params(Path(__file__).parent / "params.yaml")
PARAMS, TEXT = SETTINGS.captions, SETTINGS.text
FRAME_PROMPT, MERGE_PROMPT = "One frame. Describe it.", "Of {frames} frames:\n{captions}\nMake one {{text}} of them."
PROMPT = "These {frames} frames are of one clip. Describe it."


def endpoint(url: str, **changes) -> dict:
    known = {"urls": [url], "model": MODEL, "answers_as": None, "api_key_variable": None, "in_flight": 8}
    limits = {"request_seconds": 0.4, "item_seconds": 20, "attempts": 12, "backoff_seconds": 0.002}
    return known | limits | {"max_retry_fraction": 3, "max_answer_bytes": 100_000} | changes


def model(url: str, **changes) -> EndpointCaptionerSettings:
    own = {key: changes.pop(key) for key in list(changes) if key in EndpointCaptionerSettings.model_fields}
    known = {"kind": "video_llm", "name": "video", "backend": "endpoint", "endpoint": endpoint(url, **changes)}
    known |= {
        "prompt": "prompts/test.txt",
        "answer": "json",
        "frames": 3,
        "temperature": 0,
        "seed": 5,
        "max_tokens": 99,
    }
    return EndpointCaptionerSettings.model_validate(known | own)


def by(*captioners, **changes) -> CaptionSettings:
    return CaptionSettings.model_validate(
        PARAMS.model_dump() | {"captioners": captioners, "compared": (), "shard_clips": 5} | changes
    )


def jpeg(words: str) -> bytes:
    return b"\xff\xd8\xff\xe0" + words.encode() + b"\xff\xd9"


class Workspace:
    """Clips with stills, as the stages before captions make them."""

    def __init__(self, top: Path, count: int = 12, **columns) -> None:
        self.top = top
        self.clips = [tables.clip_id(hashlib.sha256(b"%d" % number).hexdigest(), 0, 1) for number in range(count)]
        rows = [dict.fromkeys(tables.CLIPS.names) | {"clip": clip, "status": "ok", **columns} for clip in self.clips]
        (top / "clips").mkdir()
        tables.write_rows(top / "clips" / tables.CLIP_TABLE, rows, tables.CLIPS)
        self.stills = {clip: [jpeg(f"{clip} {at}") for at in range(4)] for clip in self.clips}
        self.write_stills("shots")
        (top / "prompts").mkdir()
        (top / "prompts/test.txt").write_text(PROMPT)
        (top / "prompts/frame.txt").write_text(FRAME_PROMPT)
        (top / "prompts/merge.txt").write_text(MERGE_PROMPT)

    def write_stills(self, name: str) -> None:
        write_stills(self.top / name, self.stills)
        tables.write_rows(self.top / name / tables.SPLIT_TABLE, [], tables.SPLITS)

    def run_there(self, settings: CaptionSettings) -> None:
        """Run the stage in the folder of the workspace, wherever this process was started."""
        os.chdir(self.top)
        self.run(settings)

    def run(self, settings: CaptionSettings, out: str = "captions", shots: str = "shots") -> list[dict]:
        declared = Captions(Path("clips"), Path(shots), Path("docs"), settings, TEXT, Path("answers.sqlite"))
        stage.run(declared, Path(out), Path("report.json"), "code", earlier=Path("earlier"))
        return pq.read_table(Path(out) / tables.CAPTION_TABLE).to_pylist()

    def caption(self, settings: CaptionSettings, shots: str = "shots") -> list[dict]:
        """Caption the clips as one shard is: without the stage's table and gate."""
        with closing(*settings.endpoints):
            captioners = captioners_of(settings, Path(shots), Path("answers.sqlite"))
            return caption_clips([{"clip": clip, "seconds": 2.0} for clip in self.clips], captioners, settings)
