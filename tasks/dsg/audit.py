"""What people say about the objects that captions name: by that a judge is judged.

Verdicts are a file of lines of JSON that only grows, so that it can be kept in git and two of them can be joined. The
last line about an object of a clip holds. An object that a person has seen, and that the judge affirms, counts for its
specificity; one that a person has not seen, and that the judge denies, for its sensitivity, as a decoy does.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.dsg.correction import Known, add
from tasks.dsg.sequential import rank
from tasks.storage import atomic, queries

FOLDER, FILE = Path("audits"), "captions.jsonl"

Answer = Literal["yes", "no", "unsure", "withdrawn"]
"""Of a person: the object is there; it is not; it cannot be told; forget what was said."""
ANSWERS: tuple[Answer, ...] = get_args(Answer)


class Said(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clip: str
    question: str
    """As the judge was asked, such as "Is there a circle?"."""
    answer: Answer
    who: str
    when: str
    """ISO 8601, UTC."""


class Claim(NamedTuple):
    """An object that captions of a clip name."""

    clip: str
    question: str
    texts: tuple[tuple[str, str], ...]
    """The captions that name it, each with its captioner."""
    verdict: str
    """Of the judge: present, invented or undecided."""


class Audited(NamedTuple):
    """What is known of a judge from what people said."""

    confirmed: Known
    """Objects that are there: how many it affirmed, of how many it decided."""
    denied: Known
    """Objects that are not there: how many it denied, of how many it decided."""


Verdicts = Mapping[tuple[str, str], Said]
"""What holds, by clip and question."""


def read(folder: Path) -> dict[tuple[str, str], Said]:
    """Return what holds; nothing where there is no file. A last line that was cut off by a crash does not count.

    Raises:
        ValueError: a line is none of ours; the message says which.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")
    found: dict[tuple[str, str], Said] = {}
    for number, line in enumerate(lines[:-1], 1):  # a whole line ends with its newline
        if not line.strip():
            continue
        try:
            said = Said.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{path}, line {number}: {first['msg']}: mend the line, or delete it") from None
        found.pop((said.clip, said.question), None)  # the order is that of the last lines
        found[said.clip, said.question] = said
    return {key: said for key, said in found.items() if said.answer != "withdrawn"}


def append(folder: Path, said: Said) -> None:
    """Add a line, whole and on the disk when this returns.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    line = (said.model_dump_json() + "\n").encode()
    descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # of a line that was cut off
            line = b"\n" + line
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def forget(folder: Path, prefix: str) -> int:
    """Delete the lines about clips whose ids begin so, whole or cut off; return how many.

    Raises:
        OSError: the file cannot be written.
    """
    path = folder / FILE
    if not path.exists():
        return 0
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if f'"clip":"{prefix}' not in line.replace(" ", "")]
    if len(kept) < len(lines):
        with atomic.atomic_write(path) as tmp_path:
            tmp_path.write_text("".join(kept), encoding="utf-8")
    return len(lines) - len(kept)


def claims(dsg: Path, evidence: Path, count: int, seed: int) -> list[Claim]:
    """Return the objects that are named of so many clips, drawn at random, clip by clip.

    Args:
        dsg: table of schema DSG.
        evidence: table of schema EVIDENCE.
        count: clips; all where there are fewer.

    Raises:
        FileNotFoundError: no caption has been judged.
    """
    for path in (dsg, evidence):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: run stage dsg first (dvc repro dsg)")
    texts: dict[tuple[str, str], str] = {}
    for batch in queries.read([dsg], ["clip", "captioner", "text", "status"]):
        texts |= {(row["clip"], row["captioner"]): row["text"] for row in batch.to_pylist() if row["status"] == "ok"}
    found: dict[tuple[str, str], Claim] = {}
    for batch in queries.read([evidence], ["clip", "captioner", "role", "kind", "text", "verdict"]):
        for row in batch.to_pylist():
            if (row["role"], row["kind"]) == ("caption", "object") and row["verdict"] != "void":
                _add(found, row, texts.get((row["clip"], row["captioner"]), ""))
    clips = sorted({claim.clip for claim in found.values()}, key=lambda clip: rank(clip, seed))[:count]
    places = {clip: place for place, clip in enumerate(clips)}
    chosen = [claim for claim in found.values() if claim.clip in places]
    return sorted(chosen, key=lambda claim: (places[claim.clip], claim.question))


def _add(found: dict[tuple[str, str], Claim], row: Mapping[str, Any], text: str) -> None:
    key, own = (row["clip"], row["text"]), (row["captioner"], text)
    before = found.get(key)
    if before is None:
        found[key] = Claim(row["clip"], row["text"], (own,), row["verdict"])
    elif own not in before.texts:
        found[key] = before._replace(texts=(*before.texts, own))


def agreement(claims: Iterable[Claim], verdicts: Verdicts) -> Audited:
    """Return how often the judge was right by what people said of these objects."""
    said = [(verdicts[claim.clip, claim.question].answer, claim.verdict) for claim in claims
            if (claim.clip, claim.question) in verdicts]  # fmt: skip
    return _counted(said)


def known_of(row: Mapping[str, Any], verdicts: Verdicts) -> Audited:
    """Return how often the judge was right by what people said of the objects of one caption.

    Args:
        row: of a judged caption, with `clip` and `evidence`.
    """
    said = {}
    for one in row["evidence"]:
        key = (row["clip"], one["text"])
        if (one["role"], one["kind"]) == ("caption", "object") and key in verdicts:
            said[key] = (verdicts[key].answer, one["verdict"])
    return _counted(list(said.values()))


def total(known: Iterable[Audited]) -> Audited:
    """Return what is known by all together."""
    confirmed = denied = Known(0, 0)
    for one in known:
        confirmed, denied = add(confirmed, one.confirmed), add(denied, one.denied)
    return Audited(confirmed, denied)


def _counted(said: Sequence[tuple[str, str]]) -> Audited:
    def count(answer: Answer, verdict: str) -> int:
        return said.count((answer, verdict))

    seen, unseen = count("yes", "present"), count("no", "invented")
    return Audited(Known(seen, seen + count("yes", "invented")), Known(unseen, unseen + count("no", "present")))


def to_json(known: Audited) -> dict[str, Any]:
    """Return it as the report of stage dsg has it."""
    return {
        "confirmed": {"affirmed": known.confirmed.right, "asked": known.confirmed.asked},
        "not_there": {"denied": known.denied.right, "asked": known.denied.asked},
    }
