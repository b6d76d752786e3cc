"""VBench's prompts, and the videos that it wants of them: their names, texts and seeds.

The prompts of T2V are in t2v.json beside this file: 946 entries with 944 distinct prompts, which make 6,220 videos. A
video has the name `PROMPT-NUMBER.mp4`; VBench finds it by that, whatever text it was made from. A suite of image to
video is read from the user's copy.
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
    image: str | None = None
    """Name of the file that is the first frame, of a suite of image to video."""


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
    image: str | None


@cache
def entries() -> tuple[Entry, ...]:
    """Return the entries of T2V in VBench's order, which is that of rewritten prompts too."""
    parts = json.loads(SUITE.read_text(encoding="utf-8"))["parts"]
    return tuple(Entry(prompt, tuple(part["dimensions"])) for part in parts for prompt in part["prompts"])


def read_suite(file: Path) -> tuple[Entry, ...]:
    """Return the entries of a suite file of VBench's form, such as vbench2_i2v_full_info.json, in its order.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file, or some entries have an image and others none, or one prompt has two.
    """
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
        found = tuple(Entry(row["prompt_en"], tuple(row["dimension"]), row.get("image_name")) for row in rows)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} is no list of prompt_en and dimension: {type(error).__name__}: {error}") from None
    texts = [value for entry in found for value in (entry.prompt, *entry.dimensions, entry.image or "")]
    if not found or not all(isinstance(text, str) for text in texts) or not all(entry.dimensions for entry in found):
        raise ValueError(f"{file} is no list of prompts, each with the names of its dimensions")
    bare = [entry.prompt for entry in found if not entry.image]
    if bare and len(bare) < len(found):
        raise ValueError(f"{file}: {len(bare)} of {len(found)} entries have no image_name, {bare[0]!r} the first")
    image_of: dict[str, str | None] = {}
    for entry in found:
        if image_of.setdefault(entry.prompt, entry.image) != entry.image:
            raise ValueError(f"{file}: {entry.prompt!r} has two images, and its videos one name: take one out")
    return found


def planned(
    texts: Sequence[str] | None = None, dimensions: Collection[str] | None = None, of: Sequence[Entry] | None = None
) -> list[PlannedVideo]:
    """Return the videos of a suite, those of a prompt together; a prompt that two entries share has its videos once.

    Args:
        texts: what each entry's prompt was rewritten to; of entries that share a prompt the first decides.
        dimensions: only what these are measured on.
        of: the suite; T2V where it is None.

    Raises:
        ValueError: the suite has no such dimension.
    """
    suite = entries() if of is None else of
    known = {dimension for entry in suite for dimension in entry.dimensions}
    wanted = known if dimensions is None else set(dimensions)
    for dimension in sorted(wanted - known):
        raise ValueError(f"{dimension} is no dimension of the suite{nearest(dimension, known)}")
    text_of: dict[str, str] = {}
    measured: dict[str, list[str]] = {}
    for entry, text in zip(suite, texts or [entry.prompt for entry in suite], strict=True):
        text_of.setdefault(entry.prompt, text)
        measured.setdefault(entry.prompt, []).extend(entry.dimensions)
    image_of = {entry.prompt: entry.image for entry in suite}
    return [
        PlannedVideo(
            f"{prompt}-{number}.mp4", prompt, text_of[prompt], seed_of(prompt, number), tuple(found), image_of[prompt]
        )
        for prompt, found in measured.items()
        if wanted & set(found)
        for number in range(max(_COUNTS.get(dimension, _COUNT) for dimension in wanted & set(found)))
    ]


def seed_of(prompt: str, number: int) -> int:
    """Return the seed of a video's noise, as `SEEDS` says: of its name alone, whatever shard or rewriting it is of."""
    return int.from_bytes(sha256(f"{prompt}\n{number}".encode()).digest()[:6], "big")


def read_texts(file: Path, of: Sequence[Entry]) -> list[str]:
    """Return rewritten prompts, a line each, in the order of a suite.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has another number of lines than the suite has entries, or an empty one, or is no UTF-8.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"--prompts {file} is no UTF-8: {error}") from None
    if len(lines) != len(of):
        raise ValueError(
            f"--prompts {file} has {len(lines)} lines, and the suite has {len(of)} entries: one line for each, "
            "in its order (`stiv vbench prompts` prints that of text to video)"
        )
    for number, (line, entry) in enumerate(zip(lines, of, strict=True), 1):
        if not line.strip():
            raise ValueError(f'--prompts {file}: line {number} is empty; it is of "{entry.prompt[:60]}"')
    return lines


def twice_rewritten(texts: Sequence[str], of: Sequence[Entry]) -> list[tuple[int, int]]:
    """Return the lines, counted from 1, of entries that share a prompt and were rewritten to different texts."""
    first: dict[str, int] = {}
    found = []
    for number, entry in enumerate(of, 1):
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
