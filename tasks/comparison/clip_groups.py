"""Clips by where their videos come from: a judge may be fit for some sources and not for others."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tasks.dsg.sequential import rank

MOST_GROUPS = 8
OTHERS = "other folders"
_WITH, _WITHOUT = "with a text beside the video", "without a text beside the video"


class Source(NamedTuple):
    """Where a clip comes from."""

    clip: str
    uri: str
    """Of its video."""
    has_text: bool
    """Whether a text lies beside the video."""


def group(sources: Iterable[Source]) -> dict[str, list[str]]:
    """Return the clips by the folder of their video, the first below the folder that all share.

    Within a folder, videos with a text beside them and those without are groups of their own: they rarely come from
    one hand. The `MOST_GROUPS` largest groups have names; the others are one together.

    Returns:
        ids by the group's name, the largest group first.
    """
    known = [(one.clip, one.uri.split("/")[:-1], one.has_text) for one in sources]
    shared = _shared([folders for _, folders, _ in known])
    found: dict[tuple[str, bool], list[str]] = {}
    for clip, folders, has_text in known:
        below = folders[shared : shared + 1]
        found.setdefault((f"{below[0]}/" if below else "", has_text), []).append(clip)
    named = {_name(folder, has_text, found): clips for (folder, has_text), clips in found.items()}
    largest = sorted(named, key=lambda name: (-len(named[name]), name))
    groups = {name: named[name] for name in largest[:MOST_GROUPS]}
    if rest := [clip for name in largest[MOST_GROUPS:] for clip in named[name]]:
        groups[OTHERS] = rest
    return groups


def draw(groups: Mapping[str, Sequence[str]], count: int, seed: int) -> dict[str, str]:
    """Return so many clips with their groups, in random order: as many of each group, and all of one that has fewer.

    Args:
        groups: ids by the group's name.
    """
    drawn: dict[str, str] = {}
    left = count
    for place, (name, clips) in enumerate(sorted(groups.items(), key=lambda item: (len(item[1]), item[0]))):
        share = left // (len(groups) - place)
        chosen = sorted(clips, key=lambda clip: rank(clip, seed))[:share]
        drawn |= dict.fromkeys(chosen, name)
        left -= len(chosen)
    return {clip: drawn[clip] for clip in sorted(drawn, key=lambda clip: rank(clip, seed))}


def _shared(folders: Sequence[list[str]]) -> int:
    """Return how many folders, from the top, all have in common."""
    if not folders:
        return 0
    least, most = min(folders), max(folders)
    same = 0
    while same < len(least) and same < len(most) and least[same] == most[same]:
        same += 1
    return same


def _name(folder: str, has_text: bool, found: Mapping[tuple[str, bool], object]) -> str:
    kind = _WITH if has_text else _WITHOUT
    if not folder:
        return kind
    return f"{folder} {kind}" if (folder, not has_text) in found else folder
