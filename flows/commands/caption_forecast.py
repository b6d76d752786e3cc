"""The command `stiv captions forecast`: what captioning all clips by a model will take, by asking it about a few."""

import json as jsonlib
import sys
from pathlib import Path

from stiv_model.errors.failures import TryLaterError
from stiv_model.process_exit import STOPPED
from tasks.captions.settings import CaptionSettings


def forecast(
    *,
    probe: int = 64,
    selected: Path = Path("data/clips"),
    shots: Path = Path("data/shots"),
    gpus: int = 1,
    price_per_hour: float | None = None,
    json: bool = False,
    captions: CaptionSettings,
) -> None:
    """Ask each model captioner of params.yaml about a few clips, and say what all clips will take.

    The answers are stored: stage captions does not ask for them again. Clips that have an answer already are not
    counted among those that are left.

    Args:
        probe: Number of clips that each captioner is asked about, drawn at random of those without an answer.
        selected: Folder with the table of clips.
        shots: Folder that stage shots made, with the stills that a model sees.
        gpus: Number of GPUs that the models run on; the price is of all of them.
        price_per_hour: Price of one GPU for one hour, in any currency.
        json: Print JSON instead of text.

    examples:
      stiv captions forecast
      stiv captions forecast --probe 256 --gpus 8 --price-per-hour 2.5 --json

    Raises:
        FileNotFoundError: there are no clips.
        ValueError: no captioner is a model, or an endpoint refuses every request.
        SystemExit: an endpoint is gone, and what it has answered is stored (exit code 75).
    """
    for name, value in (("probe", probe), ("gpus", gpus)):
        if value < 1:
            raise ValueError(f"--{name} is {value}: it starts at 1")
    from tasks.captions import probing

    try:
        found = probing.probe_all(captions, selected, shots, probe)
    except TryLaterError as error:
        print(f"stiv captions forecast: {error}", file=sys.stderr)
        sys.exit(STOPPED)
    told = [probing.costs(one, gpus, price_per_hour) for one in found]
    if json:
        print(jsonlib.dumps(told, indent=2))
    else:
        print("\n".join(probing.lines(told)))
