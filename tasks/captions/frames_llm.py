"""Captioner `frames_llm`: each frame of a clip by itself to a model, which then makes one caption of their captions.

The paper's rejected baseline (section 5): whoever merges has not seen the clip, so that what lies between frames is
lost, and what two captions contradict each other in is made up.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.captions import frames
from tasks.captions.answers import said_in
from tasks.captions.backends import Asker, Backend, Question
from tasks.captions.captioner import Said
from tasks.captions.frames import Frames
from tasks.captions.settings import AskedSettings
from tasks.chat.answers import Answer
from tasks.chat.client import Reply
from tasks.chat.prompts import read_prompt
from tasks.chat.store import Answers

_PLACES = {"captions": "the frames' captions, one in a line", "frames": "the number of frames"}
_PLAIN = str.maketrans("<>[]{}", "()()()")
"""What templates of chats and prompts use as marks: in a caption they are parentheses."""


class FramesLlm:
    """One question for each frame, and one that merges the answers.

    Args:
        settings: what the model is asked.
        backend: where it runs.
        shots: folder that stage shots made, with the stills.
        store: file of the answers.
        judge: cleans a caption, or says why it is none.

    Raises:
        FileNotFoundError, ValueError: a prompt is none (`read_prompt`).
    """

    columns: Sequence[str] = ()

    def __init__(
        self, settings: AskedSettings, backend: Backend, shots: Path, store: Path, judge: Callable[[Said], Said]
    ) -> None:
        assert settings.merge_prompt is not None, "the settings refuse frames_llm without one"
        self.name, self.settings, self._shots, self._store = settings.name, settings, shots, store
        self._judge = judge
        self._prompt = read_prompt(Path(settings.prompt), {})
        self._merge_prompt = read_prompt(Path(settings.merge_prompt), _PLACES)
        self._of_frames = Asker(backend, "text", {"kind": "frame", "prompt": self._prompt.text})
        merging = {"kind": "merge", "answer": settings.answer}  # the prompt is in the question itself
        self._of_clips = Asker(backend, settings.answer, merging)
        both = hashlib.sha256(f"{self._prompt.sha256} {self._merge_prompt.sha256}".encode()).hexdigest()
        self.made_with: Mapping[str, Any] = {
            **backend.made_with,
            "prompt_sha256": both,
            "frames": settings.frames,
        }

    def caption(self, clips: list[dict[str, Any]]) -> list[Said | None]:
        """Return the merged caption of every clip, or the reason why there is none.

        A clip one of whose frames has no caption has none: nothing is merged from fewer.

        Raises:
            TryLaterError: the endpoint is gone.
            ValueError: the model can answer nothing, or there are no stills.
        """
        said: list[Said | None] = []
        with Answers(self._store) as answers:
            for shown in frames.shown(self._shots, [clip["clip"] for clip in clips], self.settings.frames):
                said += self._caption(shown, answers)
        return said

    def answered(self, clips: Sequence[str]) -> dict[str, list[Answer]]:
        """Return what the model has answered about these clips already, as `Asks` says: all of it, or nothing."""
        found: dict[str, list[Answer]] = {}
        with Answers(self._store) as answers:
            for shown in frames.shown(self._shots, clips, self.settings.frames):
                asked = {clip: self._describe(clip, of) for clip, of in shown.items() if of is not None}
                known = self._of_frames.known([question.item for of in asked.values() for question in of], answers)
                replies = {item: Reply(answer, None) for item, answer in known.items()}
                whole = {clip: of for clip, of in asked.items() if all(question.item in known for question in of)}
                merges, _ = self._merges(whole, replies)
                merged = self._of_clips.known([question.item for question in merges.values()], answers)
                for clip, of in whole.items():
                    own = [known[question.item] for question in of]
                    if clip not in merges:
                        found[clip] = own
                    elif merges[clip].item in merged:
                        found[clip] = [*own, merged[merges[clip].item]]
        return found

    def _caption(self, shown: Mapping[str, Frames | None], answers: Answers) -> Iterator[Said]:
        asked = {clip: self._describe(clip, of) for clip, of in shown.items() if of is not None}
        replies = self._of_frames.ask([question for of in asked.values() for question in of], answers)
        merges, failed = self._merges(asked, replies)
        merged = self._of_clips.ask(list(merges.values()), answers)
        for clip, of in shown.items():
            if of is None:
                yield Said(None, reason="malformed")
            else:
                yield failed[clip] if clip in failed else said_in(merged[merges[clip].item], self.settings.answer)

    def _merges(
        self, asked: Mapping[str, Sequence[Question]], replies: Mapping[str, Reply]
    ) -> tuple[dict[str, Question], dict[str, Said]]:
        """Return the question that merges, by clip, or what the first frame without a caption has for a reason."""
        merges: dict[str, Question] = {}
        failed: dict[str, Said] = {}
        for clip, of in asked.items():
            captions = [self._judged(said_in(replies[question.item], "text")) for question in of]
            bad = next((said for said in captions if said.text is None), None)
            if bad is not None:
                failed[clip] = bad
            else:
                merges[clip] = self._merge(clip, [said.text or "" for said in captions])
        return merges, failed

    def _describe(self, clip: str, of: Frames) -> list[Question]:
        text = self._prompt.about(len(of.pictures))
        return [Question(f"{clip} {frames.digest([picture])}", text, [picture]) for picture in of.pictures]

    def _judged(self, said: Said) -> Said:
        """Return a frame's caption, cleaned, with what came kept beside where it is none."""
        return self._judge(said)._replace(raw=said.raw)

    def _merge(self, clip: str, captions: Sequence[str]) -> Question:
        lines = [f"{number}. {caption.translate(_PLAIN)}" for number, caption in enumerate(captions, 1)]
        text = self._merge_prompt.filled({"captions": "\n".join(lines), "frames": len(captions)})
        return Question(f"{clip} {hashlib.sha256(text.encode()).hexdigest()}", text)
