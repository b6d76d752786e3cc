"""The captioner that comes with the package: it writes sentences about stills of `shapes`, as any model does.

It knows no other world: of a video of something else it says what is likely in its own.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stiv_model.captioner.files import EMBEDDED, WEIGHTS, read_config, sha256_of
from stiv_model.captioner.network import CaptionerNetwork
from stiv_model.encoders import pinned


class SmallCaptioner:
    """Stills to a sentence. Greedy, and each clip by itself: what it says of one depends on no other.

    Args:
        network: with its weights.
        sha256: of the files that it was loaded from.
    """

    def __init__(self, network: CaptionerNetwork, sha256: str) -> None:
        self.network, self.sha256, self.config = network.eval(), sha256, network.config

    @torch.inference_mode()
    def describe(self, stills: Sequence[bytes]) -> str:
        """Return a sentence about a clip, from all of its stills seen together.

        Args:
            stills: JPEG bytes, in order of time, as stage shots made them: `config.frames` at most.

        Raises:
            ValueError: there is none, or more than that, or one is no whole picture.
        """
        tokens_FQD = self._see(stills)
        return _sentence(self.network.say(self.network.relate(tokens_FQD[None]))[0])

    @torch.inference_mode()
    def describe_each(self, stills: Sequence[bytes]) -> list[str]:
        """Return a sentence about each still, seen by itself.

        Raises:
            ValueError: as `describe`.
        """
        tokens_FQD = self._see(stills)
        return [_sentence(words) for words in self.network.say(self.network.relate(tokens_FQD[:, None]))]

    def describe_merged(self, stills: Sequence[bytes]) -> str:
        """Return one sentence made of `describe_each`'s: what a captioner of single pictures makes of a clip.

        Raises:
            ValueError: as `describe`.
        """
        return merge(self.describe_each(stills), self.config.kinds.values())

    def _see(self, stills: Sequence[bytes]) -> Tensor:
        if not 1 <= len(stills) <= self.config.frames:
            raise ValueError(f"{len(stills)} stills of a clip: the captioner takes 1 to {self.config.frames}")
        return self.network.see(torch.stack([to_picture(still, self.config.pixels) for still in stills]))


def to_picture(still: bytes, pixels: int) -> Tensor:
    """Return a still as the network sees it: RGB, 0 to 1, (3, pixels, pixels), whatever shape it had.

    Raises:
        ValueError: it is no whole JPEG.
    """
    # a decoder makes up what is missing at the end
    if not still.startswith(b"\xff\xd8\xff") or not still.endswith(b"\xff\xd9"):
        raise ValueError(f"a still of {len(still)} bytes is no whole JPEG: run stage shots again")
    decoded = cv2.imdecode(np.frombuffer(still, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError(f"a still of {len(still)} bytes is no picture: run stage shots again")
    small = cv2.resize(decoded, (pixels, pixels), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(np.ascontiguousarray(small[..., ::-1])).permute(2, 0, 1).float() / 255


def merge(sentences: Sequence[str], kinds: Iterable[Sequence[str]]) -> str:
    """Return the first sentence with, of each kind, the word that most sentences have, of equals the earliest.

    Where the sentences contradict one another, one of them is believed: a merged caption cannot ask the clip.

    Args:
        sentences: about frames of one clip, one at least, in order of time.
        kinds: words of which a sentence has one at most, of each kind.
    """
    if len(sentences) == 1:
        return sentences[0]
    words = [sentence.replace(",", " ,").split() for sentence in sentences]
    merged = words[0]
    for kind in kinds:
        votes = Counter(word for one in words for word in dict.fromkeys(one) if word in kind)
        if votes:
            chosen = votes.most_common(1)[0][0]
            merged = [chosen if word in kind else word for word in merged]
    return _sentence(merged)


def _sentence(words: Sequence[str]) -> str:
    return " ".join(words).replace(" ,", ",")


def save_captioner(network: CaptionerNetwork, folder: Path) -> None:
    """Write config and weights into a folder that is there."""
    (folder / pinned.CONFIG).write_text(network.config.model_dump_json(indent=2) + "\n")
    save_file({name: weights.contiguous() for name, weights in network.state_dict().items()}, folder / WEIGHTS)


def load_captioner(folder: Path = EMBEDDED) -> SmallCaptioner:
    """Return the captioner in a folder.

    Raises:
        FileNotFoundError, ValueError: as `files.read_config`, or the files do not belong together.
    """
    # not on the device meta: its first use imports sympy and what compiles, 1.5 s; what is drawn here is replaced
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        network = CaptionerNetwork(read_config(folder))
    weights, expected = load_file(folder / WEIGHTS), network.state_dict()
    pinned.check_names(folder / WEIGHTS, expected.keys() - weights.keys(), weights.keys() - expected.keys())
    if wrong := [name for name, values in expected.items() if values.shape != weights[name].shape]:
        raise ValueError(
            f"{folder / WEIGHTS} has {wrong[0]} of shape {tuple(weights[wrong[0]].shape)}, but by {pinned.CONFIG} "
            f"beside it it has {tuple(expected[wrong[0]].shape)}: name the folder they were saved to"
        )
    network.load_state_dict(weights, assign=True)
    return SmallCaptioner(network, sha256_of(folder))
