"""Which folders an evaluation may replace: those that an evaluation made, and no other."""

from collections.abc import Mapping, Sequence
from pathlib import Path


def refuse(out: Path, made_by: Sequence[str], inputs: Mapping[str, Path | str | None]) -> None:
    """Refuse to replace a folder that is not an earlier evaluation's, or that something is read from.

    Args:
        out: the folder.
        made_by: files that an evaluation writes into such a folder, each of them.
        inputs: by option, the files and folders that are read; what is not there is none.

    Raises:
        ValueError: the folder is an input, or holds one; it has files and not those; or it is a file.
    """
    whole = out.resolve()
    for option, place in inputs.items():
        if place is not None and Path(place).exists() and Path(place).resolve().is_relative_to(whole):
            raise ValueError(
                f"{out} would be replaced by what is made, and --{option} {place} is in it: name an --out of its own"
            )
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, and a folder is made there: name another --out")
    product = out.with_name(f"{out.name}.partial") / "product"  # of one that was killed while it replaced `out`
    is_ours = any(all((folder / name).is_file() for name in made_by) for folder in (out, product))
    if out.exists() and any(out.iterdir()) and not is_ours:
        raise ValueError(
            f"{out} would be replaced by what is made, and has files and no {made_by[0]} among them: name an --out of "
            "its own"
        )
