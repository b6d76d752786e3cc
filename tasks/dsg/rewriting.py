"""Captions that invent something, written again by the model that wrote them, and judged again."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tasks.captions.accept import judge
from tasks.captions.answers import said_by
from tasks.captions.endpoint import FORMAT
from tasks.captions.frames import is_whole_jpeg, spread
from tasks.captions.settings import CaptionSettings, EndpointCaptionerSettings
from tasks.chat.prompted import PromptedModel
from tasks.chat.settings import PromptedSettings
from tasks.chat.store import STORE, Answers
from tasks.dsg.captions import Caption
from tasks.dsg.judging import Judging

_PLACES = {
    "caption": "the caption",
    "objects": "the objects that it invents",
    "frames": "the number of frames",
}


class Rewriting:
    """Judges captions; of those that invent something, `kept_text` is what their model writes instead.

    It is judged by the same judge, and where it still invents it loses those sentences. Where the model has no answer
    that may be trained on, or no model wrote the caption, sentences are taken out of the caption itself.

    Args:
        judging: who judges.
        captioning: settings of the captioners.
        prompt: file by which they are asked.
        store: file of the answers.

    Raises:
        FileNotFoundError, ValueError: the prompt is none, or no captioner is a model behind an endpoint.
    """

    def __init__(self, judging: Judging, captioning: CaptionSettings, prompt: str, store: Path = STORE) -> None:
        self._judging, self._captioning, self._store = judging, captioning, store
        writers = {one.name: one for one in captioning.models if isinstance(one, EndpointCaptionerSettings)}
        if not writers:
            raise ValueError(
                "dsg.repair is rewrite, but captions.captioners has no model behind an endpoint that could write a "
                "caption again: use repair: drop, or such a captioner"
            )
        self._writers = {name: (one, _model(one, prompt)) for name, one in writers.items()}
        prompts = {name: model.prompt.sha256 for name, (_, model) in self._writers.items()}
        self.made_with: Mapping[str, Any] = {**judging.made_with, "rewrite": prompts}

    def objects(self, captions: Sequence[Caption]) -> list[int]:
        """Return how many objects each caption names."""
        return self._judging.objects(captions)

    def judge(self, captions: Sequence[Caption]) -> list[dict[str, Any]]:
        """Return what was counted in each caption as it was, and what it becomes.

        Raises:
            TryLaterError, ValueError: an endpoint is gone, or refuses every request; what it has answered is stored.
        """
        rows = list(self._judging.judge(captions))
        texts = self._rewrite(captions, rows)
        again = [caption._replace(text=texts[at], others=()) for at, caption in enumerate(captions) if at in texts]
        for at, new in zip(texts, self._judging.judge(again), strict=True):
            if new.get("status") != "failed" and new["kept_text"]:
                still = bool(new["invented"])
                evidence = [one | {"role": "rewrite"} for one in new["evidence"]]
                rows[at] |= {
                    "kept_text": new["kept_text"] if still else texts[at],
                    "repaired_by": "rewrite_drop" if still else "rewrite",
                    "evidence": rows[at]["evidence"] + evidence,
                }
        return rows

    def _rewrite(self, captions: Sequence[Caption], rows: Sequence[dict[str, Any]]) -> dict[int, str]:
        """Return what is written instead of those captions that invent something, by their place."""
        found: dict[int, str] = {}
        with Answers(self._store) as answers:
            for name, (settings, model) in self._writers.items():
                items, bodies = {}, {}
                for at, (caption, row) in enumerate(zip(captions, rows, strict=True)):
                    if caption.captioner == name and row.get("invented") and all(map(is_whole_jpeg, caption.stills)):
                        shown = spread(caption.stills, settings.frames)
                        objects = ", ".join(invented_of(row))
                        values = {"caption": caption.text, "objects": objects, "frames": len(shown)}
                        items[at] = f"{caption.clip} {_digest(caption.text, objects, shown)}"
                        bodies[items[at]] = partial(model.body, values, shown)
                given = model.ask(bodies.items(), answers)
                for at, item in items.items():
                    if (answer := given[item].answer) is not None:
                        said = judge(said_by(answer, settings.answer), self._captioning)
                        found |= {at: said.text} if said.text else {}
        return found


def _model(settings: EndpointCaptionerSettings, prompt: str) -> PromptedModel:
    sampling = {name: getattr(settings, name) for name in ("endpoint", "temperature", "seed", "max_tokens")}
    form = FORMAT if settings.answer == "json" else None
    return PromptedModel(
        PromptedSettings(**sampling, prompt=prompt), "dsg rewrite", _PLACES, "dsg.rewrite_prompt", form
    )


def invented_of(row: dict[str, Any]) -> list[str]:
    """Return the names of the objects that a judged caption invents."""
    of_objects = {
        one["question"]: one["verdict"]
        for one in row["evidence"]
        if one["role"] == "caption" and one["kind"] == "object"
    }
    return [key for key, verdict in zip(row["keys"], of_objects.values(), strict=True) if verdict == "invented"]


def _digest(text: str, objects: str, pictures: Sequence[bytes]) -> str:
    parts = [text.encode(), objects.encode(), *(hashlib.sha256(picture).digest() for picture in pictures)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
