"""Captioner `video_llm`: frames of a clip to a video-language model, which answers with a dense and a short caption."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.captions import frames
from tasks.captions.answers import said_in
from tasks.captions.backends import Asker, Backend, Question
from tasks.captions.captioner import Said
from tasks.captions.frames import Frames
from tasks.captions.settings import AskedSettings
from tasks.chat.answers import Answer
from tasks.chat.prompts import read_prompt
from tasks.chat.store import Answers


class VideoLlm:
    """All frames of a clip in one question.

    Args:
        settings: what the model is asked.
        backend: where it runs.
        shots: folder that stage shots made, with the stills.
        store: file of the answers.

    Raises:
        FileNotFoundError, ValueError: the prompt is none (`read_prompt`).
    """

    def __init__(self, settings: AskedSettings, backend: Backend, shots: Path, store: Path) -> None:
        self.name, self.settings, self._shots, self._store = settings.name, settings, shots, store
        self._prompt = read_prompt(Path(settings.prompt))
        decides = {"kind": settings.kind, "prompt": self._prompt.text}
        self._asker = Asker(backend, settings.answer, decides | {"answer": settings.answer, "frames": settings.frames})
        self._shows_videos = backend.shows_videos
        self.columns: Sequence[str] = ("seconds",) if backend.shows_videos else ()
        own = {"prompt_sha256": self._prompt.sha256, "frames": settings.frames}
        self.made_with: Mapping[str, Any] = {**backend.made_with, **own}

    def caption(self, clips: list[dict[str, Any]]) -> list[Said | None]:
        """Return what the model says of every clip, or the reason why it says nothing.

        Raises:
            TryLaterError: the endpoint is gone.
            ValueError: the model can answer nothing, or there are no stills.
        """
        seconds = {clip["clip"]: clip["seconds"] for clip in clips} if self._shows_videos else {}
        said: list[Said | None] = []
        with Answers(self._store) as answers:
            for shown in frames.shown(self._shots, [clip["clip"] for clip in clips], self.settings.frames):
                said += self._caption(shown, seconds, answers)
        return said

    def answered(self, clips: Sequence[str]) -> dict[str, list[Answer]]:
        """Return what the model has answered about these clips already, as `Asks` says."""
        found: dict[str, list[Answer]] = {}
        with Answers(self._store) as answers:
            for shown in frames.shown(self._shots, clips, self.settings.frames):
                items = {clip: _item(clip, of) for clip, of in shown.items() if of is not None}
                known = self._asker.known(list(items.values()), answers)
                found |= {clip: [known[item]] for clip, item in items.items() if item in known}
        return found

    def _caption(
        self, shown: Mapping[str, Frames | None], seconds: Mapping[str, float], answers: Answers
    ) -> Iterator[Said]:
        questions = {clip: self._question(clip, of, seconds) for clip, of in shown.items() if of is not None}
        replies = self._asker.ask(list(questions.values()), answers)
        for clip in shown:
            question = questions.get(clip)
            if question is None:
                yield Said(None, reason="malformed")
            else:
                yield said_in(replies[question.item], self.settings.answer)

    def _question(self, clip: str, of: Frames, seconds: Mapping[str, float]) -> Question:
        text = self._prompt.about(len(of.pictures))
        question = Question(_item(clip, of), text, of.pictures)
        if not self._shows_videos:
            return question
        times = [place * seconds[clip] for place in of.places]
        return question._replace(times=times, seconds=seconds[clip])


def _item(clip: str, of: Frames) -> str:
    return f"{clip} {frames.digest(of.pictures)}"
