"""What captioning all clips by a model will take, by asking it about a few: for `stiv captions forecast`."""

import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from tasks.captions.captioner import Asks, Captioner
from tasks.captions.settings import CaptionSettings
from tasks.captions.stage import captioners_of
from tasks.chat.answers import Answer
from tasks.chat.client import closing
from tasks.chat.store import STORE
from tasks.storage import tables

_AT_ONCE, _THREADS = 8, 64  # clips that one thread asks about; how many are under way, `in_flight` says
_SEED = b"stiv captions forecast"


class Probe(NamedTuple):
    """What came of asking one captioner."""

    captioner: str
    model: str
    clips: int
    """All that are to be captioned."""
    answered: int
    """Of these, how many had an answer before."""
    probed: int
    """How many were asked about now."""
    failed: int
    """Of these, how many have no caption for a reason of the model's or of the way to it."""
    seconds: float
    """It took, with requests under way as the stage has them."""
    prompt_tokens: int | None
    """Of the answers that came, together; None where the server does not say, or there is none."""
    completion_tokens: int | None
    answers: int
    """How many came."""


def probe_all(settings: CaptionSettings, selected: Path, shots: Path, count: int, store: Path = STORE) -> list[Probe]:
    """Ask each captioner that is a model, of captioners and compared, about so many clips.

    Args:
        selected: folder with the table of clips.
        shots: folder with the stills.

    Raises:
        FileNotFoundError, ValueError: there are no clips, or no captioner is a model.
        TryLaterError: an endpoint is gone.
    """
    models = settings.model_copy(update={"captioners": (*settings.models, *settings.compared)})
    if not models.captioners:
        raise ValueError(
            "captions.captioners has no model, so that nothing is to be forecast: add one, such as {kind: video_llm, "
            "name: video, backend: endpoint, ...} (docs/captions.md), or name one in captions.compared"
        )
    clips = _clips(selected)
    with closing(*models.endpoints):
        return [_probe(one, clips, count) for one in captioners_of(models, shots, store)]


def _clips(selected: Path) -> dict[str, dict[str, Any]]:
    """Return what captioners read of the clips to be captioned, by id, in an order that says nothing of them."""
    table = selected / tables.CLIP_TABLE
    batches = tables.usable(table, tables.CLIPS, ("clip", "seconds"))
    clips = {row["clip"]: row for batch in batches for row in batch.to_pylist()}
    if not clips:
        raise ValueError(f"{table} has no clip with status ok: nothing is to be captioned")
    return dict(sorted(clips.items(), key=lambda of: hashlib.sha256(_SEED + of[0].encode()).digest()))


def _probe(captioner: Captioner, clips: Mapping[str, dict[str, Any]], count: int) -> Probe:
    known = captioner.answered(list(clips)) if isinstance(captioner, Asks) else {}
    chosen = [clip for clip in clips if clip not in known][:count]
    parts = [chosen[first : first + _AT_ONCE] for first in range(0, len(chosen), _AT_ONCE)]
    failed, begun = 0, time.perf_counter()
    with (
        ThreadPoolExecutor(_THREADS if isinstance(captioner, Asks) else 1) as threads,
        tqdm(total=len(chosen), desc=captioner.name, unit="clip", file=sys.stderr, leave=False) as bar,
    ):
        asked = [threads.submit(captioner.caption, [clips[clip] for clip in some]) for some in parts]
        try:
            for one in as_completed(asked):
                said = one.result()
                failed += sum(answer is None or answer.text is None for answer in said)
                bar.update(len(said))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    seconds = time.perf_counter() - begun
    answers = captioner.answered(chosen) if isinstance(captioner, Asks) else {}
    own = [answer for of_clip in answers.values() for answer in of_clip]
    return Probe(
        captioner=captioner.name,
        model=str(captioner.made_with["model"]),
        clips=len(clips),
        answered=len(known),
        probed=len(chosen),
        failed=failed,
        seconds=seconds,
        prompt_tokens=_sum(own, "prompt_tokens"),
        completion_tokens=_sum(own, "completion_tokens"),
        answers=len(own),
    )


def _sum(answers: Sequence[Answer], name: str) -> int | None:
    counts = [getattr(one, name) for one in answers]
    return None if not counts or None in counts else sum(counts)


def costs(probe: Probe, gpus: int, price_per_hour: float | None) -> dict[str, Any]:
    """Return what a probe comes to for all clips, as JSON has it; null is not known.

    Args:
        gpus: how many the model runs on.
        price_per_hour: of one of them.
    """
    left = probe.clips - probe.answered - probe.probed
    rate = probe.probed / probe.seconds if probe.probed and probe.seconds else None
    hours = left / rate / 3600 if rate else 0.0 if not left else None
    per_clip = {
        f"{name}_per_clip": None if total is None else total / probe.answers
        for name, total in (("prompt_tokens", probe.prompt_tokens), ("completion_tokens", probe.completion_tokens))
    }
    return (
        probe._asdict()
        | per_clip
        | {
            "left": left,
            "clips_per_second": rate,
            "hours": hours,
            "gpu_hours": None if hours is None else hours * gpus,
            "price": None if hours is None or price_per_hour is None else hours * gpus * price_per_hour,
        }
    )


def lines(told: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of what `costs` says, and what else is to be known."""
    head = f"{'captioner':14}{'clips left':>11}{'tokens read':>13}{'written':>9}{'clips/s':>10}{'hours':>9}{'GPU hours':>11}{'price':>10}"  # noqa: E501 (a table)
    rows = [
        f"{one['captioner']:14}{one['left']:11,}{_number(one['prompt_tokens_per_clip'], '.0f'):>13}"
        f"{_number(one['completion_tokens_per_clip'], '.0f'):>9}{_number(one['clips_per_second'], '.2f'):>10}"
        f"{_number(one['hours'], '.2f'):>9}{_number(one['gpu_hours'], '.2f'):>11}{_number(one['price'], ',.2f'):>10}"
        for one in told
    ]
    notes = [
        f"{one['captioner']}: {one['probed']} clips asked about in {one['seconds']:.1f} s, {one['failed']} without a "
        f"caption; {one['answered']:,} of {one['clips']:,} had an answer before"
        for one in told
    ]
    return [head, *rows, *notes, "Tokens are of a clip, in the mean. -: not known."]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
