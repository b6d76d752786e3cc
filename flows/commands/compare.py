"""`stiv compare`: two score cards side by side, or why they cannot be compared."""

import sys
from pathlib import Path

from tasks.evaluation import compare as comparing
from tasks.evaluation import sealing


def compare(first: Path, second: Path, /, anyway: bool = False, json: bool = False) -> None:
    """Put two score cards side by side: figures with intervals, and what the two differ by.

    Cards that were not made by the same test (prompts, suite, n, frames, fps, size, codec or source of pixels,
    convention, protocol of a figure) are refused: the fields are named with both values, and the exit code is 1.

    Args:
        first: A card, as stiv evaluate wrote it.
        second: Another.
        anyway: Print both although they are unlike, with the warning in the table; the exit code is 0.
        json: Print JSON, for programs.

    examples:
      stiv compare cards/before/card.json cards/after/card.json
      stiv compare a.json b.json --anyway

    Raises:
        OSError: a card cannot be read.
        ValueError: one is no card, of another schema, or was changed; or the two are unlike.
    """
    secret = sealing.key()
    found = comparing.compare(sealing.read(first, secret), sealing.read(second, secret))
    if found.unlike and not anyway:
        print("\n".join(map(str, found.unlike)), file=sys.stderr)
        fields = ", ".join(one.field for one in found.unlike)
        raise ValueError(
            f"{first} and {second} are not of the same test: {fields} differ; make both by one suite and protocol, or "
            "print them beside each other by --anyway"
        )
    names = (str(first), str(second))
    print(comparing.as_json(found, names) if json else comparing.table(found, names))
