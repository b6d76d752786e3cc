"""The listing of a source as a point of benchmarks/scale.py: a bucket, one with texts, and a list of objects.

The pages of the store are made up as they are asked for, at boto3's client; all else is what stage videos runs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.scale_points import Run

_PAGE = 1000
_FOLDER = 1000  # objects in one folder


class Store:
    """A store's client that has so many objects, every second one a text if `texts`."""

    def __init__(self, objects: int, texts: bool) -> None:
        self.objects, self.texts = objects, texts

    def get_paginator(self, _: str) -> "Store":
        return self

    def paginate(self, **_: Any) -> Iterator[dict[str, Any]]:
        for first in range(0, self.objects, _PAGE):
            yield self._page(first)

    def list_objects_v2(self, StartAfter: str = "", **_: Any) -> dict[str, Any]:  # noqa: N803 (boto3's)
        number = StartAfter.rpartition("_")[2].partition(".")[0]
        return self._page(int(number) if number else 0)

    def _page(self, first: int) -> dict[str, Any]:
        numbers = range(first, min(self.objects, first + _PAGE))
        entries = [{"Key": self.key(one), "Size": 10**6 + one, "ETag": f'"{one:032x}"'} for one in numbers]
        return {"Contents": entries, "IsTruncated": first + _PAGE < self.objects}

    def key(self, number: int) -> str:
        if self.texts:
            return f"raw/{number // _FOLDER:06}/video_{number // 2:09}.{'txt' if number % 2 else 'mp4'}"
        return f"raw/{number // _FOLDER:06}/video_{number:09}.mp4"


def make(folder: Path, rows: int) -> None:
    """Write down how many there are, and a list of them."""
    (folder / "rows").write_text(str(rows))
    store = Store(rows, texts=False)
    with (folder / "list.csv").open("w") as file:
        file.write("uri,caption\n")
        file.writelines(f"s3://bucket/{store.key(number)},caption {number}\n" for number in range(rows))


def listing(kind: str) -> "Run":
    """Return the function that lists a bucket, one with `texts`, or a `list`."""
    from tasks.videos import buckets, sources

    def run(folder: Path) -> None:
        rows = int((folder / "rows").read_text())
        store = Store(rows, kind == "texts")
        buckets.client = lambda: store  # type: ignore[assignment]
        source = str(folder / "list.csv") if kind == "list" else "s3://bucket/raw"
        sources.write_listing(source, folder / "listing")

    return run
