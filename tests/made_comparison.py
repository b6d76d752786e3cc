"""Clips of shapes, and of what no judge of shapes understands, that two captioners can be compared on."""

import base64
import json
from pathlib import Path
from typing import Any

import cv2

from tasks.captions.settings import CaptionSettings
from tasks.comparison.stage import Comparison
from tasks.demo import shapes
from tasks.storage import stage, tables
from tests.fault_server import FaultServer, completion
from tests.made_clips import TEXT, by, model
from tests.made_dsg import SETTINGS
from tests.made_stills import write_stills

STILLS, PIXELS = 4, 48


def jpeg(frame) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes()


def clip_of(number: int) -> str:
    return f"{number:020x}-0-1"


def swapped(text: str) -> str:
    """Return a caption with another shape."""
    shape = shapes.said(text).shape
    return text.replace(shape, shapes.SHAPES[shapes.SHAPES.index(shape) - 1])


class Made:
    """A workspace: clips `shapes/N.mp4` with a true text beside them, and `real/N.mp4`, each frame of another scene.

    Args:
        top: folder.
        shapes_count, real_count: clips of both kinds.
        uris: of some clips, by number.
    """

    def __init__(self, top: Path, shapes_count: int = 16, real_count: int = 8, uris: dict[int, str] | None = None):
        self.top, count = top, shapes_count + real_count
        scenes = [shapes.scene(4, number, held_out=False) for number in range(count)]
        frames = [[jpeg(frame) for frame in shapes.render(scene, PIXELS, STILLS)] for scene in scenes]
        self.texts = {clip_of(number): shapes.caption(scene) for number, scene in enumerate(scenes)}
        self.stills = {clip_of(number): own for number, own in enumerate(frames)}
        for number in range(shapes_count, count):
            self.stills[clip_of(number)] = [frames[(number + ahead) % count][0] for ahead in range(STILLS)]
        self.said = dict(self.texts)  # what the model will say, by clip
        rows = [
            dict.fromkeys(tables.CLIPS.names)
            | {
                "clip": clip_of(number),
                "video": f"{number:064x}",
                "uri": (uris or {}).get(number, f"{'shapes' if number < shapes_count else 'real'}/{number}.mp4"),
                "status": "ok",
                "caption": self.texts[clip_of(number)],
            }
            for number in range(count)
        ]
        self.rows = rows
        (top / "clips").mkdir()
        (top / "shots").mkdir()
        (top / "prompts").mkdir()
        (top / "prompts/test.txt").write_text("These {frames} frames are of one clip. Describe it.")
        write_stills(top / "shots", self.stills)
        tables.write_rows(top / "shots" / tables.SPLIT_TABLE, [], tables.SPLITS)
        self.write_clips()

    def write_clips(self) -> None:
        tables.write_rows(self.top / "clips" / tables.CLIP_TABLE, self.rows, tables.CLIPS)

    def server(self) -> FaultServer:
        """Return a model's server that says of each clip what `said` has."""
        by_picture = {picture: clip for clip, (picture, *_) in self.stills.items()}

        def answer(request: dict[str, Any]) -> dict[str, Any]:
            url = request["messages"][0]["content"][0]["image_url"]["url"]
            text = self.said[by_picture[base64.b64decode(url.partition(",")[2])]]
            return completion(request, json.dumps({"text": text, "short": text}) if text else "")

        return FaultServer(answer)

    def settings(self, url: str) -> CaptionSettings:
        return by("sidecar", compared=[model(url, frames=STILLS)])

    def compare(self, url: str, write_page, names=("video", "sidecar"), out: str = "compared", **changes) -> Path:
        """Run stage comparison; return its folder."""
        folder = self.top / out
        declared = Comparison(
            names,
            self.top / "clips",
            self.top / "shots",
            changes.pop("count", 100),
            self.settings(url),
            SETTINGS.model_copy(update=changes),
            TEXT,
            write_page,
            self.top / "answers.sqlite",
        )
        stage.run(declared, folder, self.top / "report.json", "code", earlier=self.top / "earlier")
        return folder
