"""VBench's prompts, and the videos that it wants of them: their names, texts and seeds.

The prompts of T2V are in t2v.json beside this file: 946 entries with 944 distinct prompts, which make 6,220 videos. A
video has the name `PROMPT-NUMBER.mp4`; VBench finds it by that, whatever text it was made from.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from stiv_model.settings_errors import nearest
from tasks.evaluation.vbench.conventions import convention

SUITE = Path(__file__).with_name("t2v.json")
SEEDS = "the first 6 bytes of the sha256 of PROMPT, a newline and NUMBER, as a number with its highest byte first"

_COUNTS = {"temporal_flickering": 25}
"""Videos per prompt; of all others 5. VBench filters those of flicker, and takes five of what is left."""
_COUNT = 5
_NAME_BYTES = 255  # what the usual file systems take


class Entry(NamedTuple):
    """A prompt, and the dimensions that are measured on its videos."""

    prompt: str
    dimensions: tuple[str, ...]


class PlannedVideo(NamedTuple):
    """A video of the suite."""

    name: str
    """Of its file."""
    prompt: str
    """As the suite has it, and the file's name."""
    text: str
    """What the model is given: the prompt, or what it was rewritten to."""
    seed: int
    dimensions: tuple[str, ...]


@cache
def entries() -> tuple[Entry, ...]:
    """Return the entries of T2V in VBench's order, which is that of rewritten prompts too."""
    parts = json.loads(SUITE.read_text(encoding="utf-8"))["parts"]
    return tuple(Entry(prompt, tuple(part["dimensions"])) for part in parts for prompt in part["prompts"])


def planned(texts: Sequence[str] | None = None, dimensions: Collection[str] | None = None) -> list[PlannedVideo]:
    """Return the videos of T2V, those of a prompt together; a prompt that two entries share has its videos once.

    Args:
        texts: what each entry's prompt was rewritten to; of entries that share a prompt the first decides.
        dimensions: only what these are measured on.

    Raises:
        ValueError: there is no such dimension.
    """
    wanted = set(convention("t2v").counted if dimensions is None else dimensions)
    for dimension in sorted(wanted - set(convention("t2v").counted)):
        raise ValueError(f"{dimension} is no dimension of T2V{nearest(dimension, convention('t2v').counted)}")
    given = [entry.prompt for entry in entries()] if texts is None else texts
    text_of: dict[str, str] = {}
    measured: dict[str, list[str]] = {}
    for entry, text in zip(entries(), given, strict=True):
        text_of.setdefault(entry.prompt, text)
        measured.setdefault(entry.prompt, []).extend(entry.dimensions)
    return [
        PlannedVideo(f"{prompt}-{number}.mp4", prompt, text_of[prompt], seed_of(prompt, number), tuple(found))
        for prompt, found in measured.items()
        if wanted & set(found)
        for number in range(max(_COUNTS.get(dimension, _COUNT) for dimension in wanted & set(found)))
    ]


def seed_of(prompt: str, number: int) -> int:
    """Return the seed of a video's noise, as `SEEDS` says: of its name alone, whatever shard or rewriting it is of."""
    return int.from_bytes(sha256(f"{prompt}\n{number}".encode()).digest()[:6], "big")


def read_texts(file: Path) -> list[str]:
    """Return rewritten prompts, a line each, in the order of `entries`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has another number of lines than the suite has entries, or an empty one, or is no UTF-8.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"--prompts {file} is no UTF-8: {error}") from None
    if len(lines) != len(entries()):
        raise ValueError(
            f"--prompts {file} has {len(lines)} lines, and the suite has {len(entries())} entries: one line for each, "
            "in the order of `stiv vbench prompts`"
        )
    for number, (line, entry) in enumerate(zip(lines, entries(), strict=True), 1):
        if not line.strip():
            raise ValueError(f'--prompts {file}: line {number} is empty; it is of "{entry.prompt[:60]}"')
    return lines


def twice_rewritten(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Return the lines, counted from 1, of entries that share a prompt and were rewritten to different texts."""
    first: dict[str, int] = {}
    found = []
    for number, entry in enumerate(entries(), 1):
        earlier = first.setdefault(entry.prompt, number)
        if texts[earlier - 1] != texts[number - 1]:
            found.append((earlier, number))
    return found


def shard(videos: Sequence[PlannedVideo], part: str) -> list[PlannedVideo]:
    """Return every eighth video from the third on, for 3/8.

    Raises:
        ValueError: it is no such part.
    """
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", part)
    if not found or int(found[1]) > int(found[2]):
        raise ValueError(f"--shard {part} is no part of a whole: write 3/8 for the third of eight")
    if not (chosen := list(videos[int(found[1]) - 1 :: int(found[2])])):
        raise ValueError(f"--shard {part}: there are {len(videos)} videos, too few for so many parts")
    return chosen


def check_names(names: Sequence[str], is_case_kept: bool) -> None:
    """Refuse names that a folder cannot hold, or that lead out of it.

    Args:
        is_case_kept: whether the disk tells names apart that differ in case only.

    Raises:
        ValueError: with the first such name.
    """
    for name in names:
        shown = repr(name[:60])
        if "/" in name or ".." in name or name.startswith("."):
            raise ValueError(
                f"the video {shown} would have a name that leads elsewhere: no prompt may have / or .. in it"
            )
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            raise ValueError(f"the video {shown} would have a control character in its name: take it out of the prompt")
        if (size := len(name.encode())) > _NAME_BYTES:
            raise ValueError(
                f"the video {shown} would have a name of {size} bytes, and a file's has {_NAME_BYTES} at most"
            )
    folded = Counter(map(str.casefold, names))
    if not is_case_kept and (same := [name for name in names if folded[name.casefold()] > 1]):
        raise ValueError(
            f"{len(same)} names differ from another in case only, {same[0]!r} the first, and this disk does not tell "
            "them apart: choose another disk"
        )


def keeps_case(folder: Path) -> bool:
    """Say, by trying, whether the disk of a folder tells names apart that differ in case only.

    Raises:
        OSError: nothing can be written there.
    """
    with TemporaryDirectory(prefix=".case-", dir=folder) as tried:
        (Path(tried) / "a").touch()
        return not (Path(tried) / "A").exists()
