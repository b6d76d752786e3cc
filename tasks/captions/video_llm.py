"""Captioner `video_llm`: stills of a clip to a video-language model, which answers with a dense and a short caption.

The stills of stage shots go into the request as they are, JPEG bytes that were made in the sandbox: nothing is decoded.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tasks.captions import cleaning, outcomes
from tasks.captions.captioner import Said
from tasks.captions.prompts import Prompt, read_prompt
from tasks.captions.settings import VideoLlmSettings
from tasks.chat.answers import Answer, MalformedError, read_object
from tasks.chat.client import Question, client
from tasks.chat.store import Answers, key_of
from tasks.storage import stills

_AT_ONCE = 64  # clips whose stills are in memory together, for each shard
_TEXTS = ("text", "short")
_SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in _TEXTS},
    "required": list(_TEXTS),
    "additionalProperties": False,
}
_FORMAT = {"type": "json_schema", "json_schema": {"name": "caption", "strict": True, "schema": _SCHEMA}}


class VideoLlm:
    """A model behind an endpoint.

    Args:
        settings: which, and how it is asked.
        shots: folder that stage shots made, with the stills.
        store: file of the answers.

    Raises:
        FileNotFoundError, ValueError: the prompt is none (`read_prompt`).
    """

    columns: Sequence[str] = ()

    def __init__(self, settings: VideoLlmSettings, shots: Path, store: Path) -> None:
        self.name, self.settings, self._shots, self._store = settings.name, settings, shots, store
        self._prompt = read_prompt(Path(settings.prompt))
        self._asked = key_of(asked(settings, self._prompt))
        self.made_with: Mapping[str, Any] = {
            "model": settings.endpoint.model,
            "prompt_sha256": self._prompt.sha256,
            "frames": settings.frames,
            "temperature": settings.temperature,
            "seed": settings.seed,
            "max_tokens": settings.max_tokens,
        }

    def caption(self, clips: list[dict[str, Any]]) -> list[Said | None]:
        """Return what the model says of every clip, or the reason why it says nothing.

        Raises:
            TryLaterError: the endpoint is gone.
            ValueError: the endpoint refuses every request, or there are no stills.
        """
        said: list[Said | None] = []
        waiting = iter([clip["clip"] for clip in clips])
        with Answers(self._store) as answers:
            while some := list(islice(waiting, _AT_ONCE)):
                said += self._caption(some, answers)
        return said

    def answered(self, clips: Sequence[str]) -> dict[str, list[Answer]]:
        """Return what the model has answered about these clips already, as `Asks` says."""
        found: dict[str, list[Answer]] = {}
        waiting = iter(clips)
        with Answers(self._store) as answers:
            while some := list(islice(waiting, _AT_ONCE)):
                _, items = self._shown(some)
                known = answers.find(self._asked, list(items.values()))
                found |= {clip: [known[item]] for clip, item in items.items() if item in known}
        return found

    def _shown(self, clips: list[str]) -> tuple[dict[str, list[bytes]], dict[str, str]]:
        """Return what the model sees of each clip, and the name of its answer in the store where that can be shown."""
        pictures = {clip: spread(of, self.settings.frames) for clip, of in stills.read(self._shots, clips).items()}
        broken = {clip for clip, of in pictures.items() if not of or not all(map(is_whole_jpeg, of))}
        return pictures, {clip: f"{clip} {_digest(of)}" for clip, of in pictures.items() if clip not in broken}

    def _caption(self, clips: list[str], answers: Answers) -> Iterator[Said]:
        pictures, items = self._shown(clips)
        known = answers.find(self._asked, list(items.values()))
        questions = [
            Question(item, question_body(self.settings, self._prompt, pictures[clip]))
            for clip, item in items.items()
            if item not in known
        ]
        replies = {}
        if questions:
            asking = client(self.settings.endpoint)
            given = asking.ask(questions, self._asked, answers)
            replies = {question.item: reply for question, reply in zip(questions, given, strict=True)}
        for clip in clips:
            item = items.get(clip)
            if item is None:
                yield Said(None, reason="malformed")
            elif item in known:
                yield said_by(known[item], self.settings.answer)
            else:
                answer, reason = replies[item]
                yield Said(None, reason=reason) if answer is None else said_by(answer, self.settings.answer)


def asked(settings: VideoLlmSettings, prompt: Prompt) -> dict[str, Any]:
    """Return all that decides an answer beside the clip: another of any of these is another question."""
    sampling = {name: getattr(settings, name) for name in ("temperature", "seed", "max_tokens", "answer", "frames")}
    return {"kind": settings.kind, "model": settings.endpoint.model, "prompt": prompt.text, **sampling}


def spread(pictures: Sequence[bytes], count: int) -> list[bytes]:
    """Return `count` of the pictures, in the middle of as many equal parts of them; all, if they are fewer."""
    count = min(count, len(pictures))
    return [pictures[(2 * place + 1) * len(pictures) // (2 * count)] for place in range(count)]


def is_whole_jpeg(picture: bytes) -> bool:
    """Say whether bytes begin and end as a JPEG does. Nothing is decoded."""
    return len(picture) > 4 and picture.startswith(b"\xff\xd8\xff") and picture.endswith(b"\xff\xd9")


def _digest(pictures: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(len(picture).to_bytes(8, "little") + picture)
    return digest.hexdigest()


def question_body(settings: VideoLlmSettings, prompt: Prompt, pictures: Sequence[bytes]) -> bytes:
    """Return the body of a request: Chat Completions, the pictures first, as data URLs."""
    text = {"type": "text", "text": prompt.about(len(pictures))}
    request = {
        "model": settings.endpoint.model,
        "temperature": settings.temperature,
        "seed": settings.seed,
        "max_tokens": settings.max_tokens,
        **({"response_format": _FORMAT} if settings.answer == "json" else {}),
    }
    # base64 needs no escaping: written around it, a megabyte of pictures costs no pass of the JSON encoder
    parts = [
        b'{"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,' + base64.b64encode(picture) + b'"}}'
        for picture in pictures
    ]
    content = b", ".join([*parts, json.dumps(text).encode()])
    return b'{"messages": [{"role": "user", "content": [' + content + b"]}], " + json.dumps(request).encode()[1:]


def said_by(answer: Answer, form: str) -> Said:
    """Return what an answer says, or why it is no caption.

    Args:
        form: "json" for an object with `text` and `short`, "text" for the caption itself.
    """
    content = answer.content
    has_thought = answer.reasoning or cleaning.is_unfinished_thought(content)
    is_blank = not content.strip() or cleaning.is_unfinished_thought(content)
    if answer.refusal or answer.finish_reason == "content_filter":
        return Said(None, raw=content, reason="refused")
    if answer.finish_reason == "length":
        return Said(None, raw=content, reason="thinking_spent_budget" if is_blank and has_thought else "truncated")
    if is_blank:
        return Said(None, raw=content, reason="empty")
    if form == "text":
        return Said(content, raw=content)
    return _read_json(content)


def _read_json(content: str) -> Said:
    """Return the two texts of an answer in JSON, which may stand in a fence of Markdown and after a thought."""
    bare, rules = cleaning.unwrapped(content)
    try:
        found = read_object(bare)
    except MalformedError:
        return Said(None, raw=content, reason="refused" if outcomes.is_refusal(bare) else "malformed", rules=rules)
    if found.keys() != set(_TEXTS) or not all(isinstance(text, str) for text in found.values()):
        return Said(None, raw=content, reason="malformed", rules=rules)
    text, short = (_without_surrogates(found[name]) for name in _TEXTS)
    return Said(text, short, content, rules=rules)


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
