"""Captioners of the backend `embedded`: the small network of the package, which knows videos of `shapes` alone."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stiv_model.captioner import files
from tasks.captions.captioner import Said
from tasks.captions.frames import spread
from tasks.captions.settings import EmbeddedSettings
from tasks.storage import stills

if TYPE_CHECKING:
    from stiv_model.captioner.captioner import SmallCaptioner

_AT_ONCE = 64  # clips whose stills are in memory together, for each shard


class Embedded:
    """All stills of a clip together (`video_llm`), or each by itself and then one sentence of all (`frames_llm`).

    Args:
        settings: which of the two.
        shots: folder that stage shots made, with the stills.

    Raises:
        FileNotFoundError, ValueError: the network's files are missing or damaged, or it takes fewer frames.
    """

    columns: Sequence[str] = ()

    def __init__(self, settings: EmbeddedSettings, shots: Path) -> None:
        most = files.read_config(files.EMBEDDED).frames
        if settings.frames > most:
            raise ValueError(
                f"captions.captioners: frames of {settings.name} is {settings.frames}, but the embedded captioner "
                f"takes {most} at most: lower it"
            )
        self.name, self.settings, self._shots = settings.name, settings, shots
        # always the likeliest word: it has no prompt, and nothing is drawn
        self.made_with: Mapping[str, Any] = {
            "model": f"{files.EMBEDDED.name}@{files.sha256_of(files.EMBEDDED)}",
            "frames": settings.frames,
            "temperature": 0.0,
        }

    def caption(self, clips: list[dict[str, Any]]) -> list[Said | None]:
        """Return a sentence about every clip, or the reason why there is none.

        Raises:
            FileNotFoundError, ValueError: there are no stills.
        """
        said: list[Said | None] = []
        waiting = iter([clip["clip"] for clip in clips])
        while some := list(islice(waiting, _AT_ONCE)):
            said += [self._say(pictures) for pictures in stills.read(self._shots, some).values()]
        return said

    def _say(self, pictures: Sequence[bytes]) -> Said:
        network = self._network
        describe = network.describe if self.settings.kind == "video_llm" else network.describe_merged
        try:
            text = describe(spread(pictures, self.settings.frames))
        except ValueError:  # of no still, or one that is no picture
            return Said(None, reason="malformed")
        return Said(text, text, raw=text)

    @cached_property
    def _network(self) -> "SmallCaptioner":
        import torch  # only where a clip is captioned

        from stiv_model.captioner.captioner import load_captioner

        if torch.get_num_threads() != 1:  # as this thread sees it; the last bits of sums depend on it
            torch.set_num_threads(1)
        return load_captioner()
