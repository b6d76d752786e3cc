"""The text features of the validation prompts.

`python -m stiv_model.monitoring.prompt_features WORK` makes them for the run that WORK/run.json describes, unless they
are there, in a process of its own: the memory of the text encoder is given back before the ranks start. They are kept
in the workspace for its next trainings, which show the same prompts and need not load the encoder again.
"""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

from safetensors import safe_open

from stiv_model.encoders import provenance
from stiv_model.process_exit import die_with_parent, noting_failure
from stiv_model.settings import RUN_FILE, Run, TextSettings
from stiv_model.weights import durable

FILE = "prompts.safetensors"
"""Beside run.json."""
KEPT = Path(".cache/prompts")
"""In the workspace: a file per text encoder and prompts, named by the hash of what decides the features."""


def is_made(path: Path, prompts: tuple[str, ...]) -> bool:
    """Say whether the features are in this file, and of these prompts."""
    if not path.exists():
        return False
    with safe_open(path, "numpy") as file:
        return file.metadata() == _metadata(prompts)


def make(work: Path) -> None:
    """Encode the prompts with the text encoder that made the latents, unless the features are there or kept.

    Raises:
        FileNotFoundError: the latents do not say which that was, or it is not there.
        ValueError: it is another one, or a prompt has more tokens than captions may have.
    """
    run = Run.model_validate_json((work / RUN_FILE).read_bytes())
    prompts = run.training.validation_prompts
    if is_made(work / FILE, prompts):
        return
    _, settings = provenance.read(Path(run.latents), batch=len(prompts))
    kept = kept_at(settings, prompts)
    if not is_made(kept, prompts):
        _encode(settings, prompts, kept)
    tmp_path = work / f"{FILE}.tmp"
    shutil.copyfile(kept, tmp_path)
    durable.sync(tmp_path)
    tmp_path.rename(work / FILE)


def kept_at(settings: TextSettings, prompts: tuple[str, ...]) -> Path:
    """Return where the features of these prompts by this encoder, whose hash is stated, are kept."""
    decides = [settings.sha256, settings.tokens, settings.precision, *prompts]
    return KEPT / f"{hashlib.sha256(json.dumps(decides).encode()).hexdigest()}.safetensors"


def _encode(settings: TextSettings, prompts: tuple[str, ...], out: Path) -> None:
    """Write the features of the prompts, whole or not at all."""
    # seconds to import, which a run need not wait that goes on, or whose features are kept
    from safetensors.torch import save_file

    from stiv_model.encoders.text import TextEncoder

    text = TextEncoder(settings).encode(list(prompts), cut=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    tmp_path = out.with_name(f"{out.name}.{os.getpid()}.tmp")
    save_file({name: part.contiguous() for name, part in text._asdict().items()}, tmp_path, metadata=_metadata(prompts))
    durable.sync(tmp_path)
    tmp_path.rename(out)


def _metadata(prompts: tuple[str, ...]) -> dict[str, str]:
    return {str(number): prompt for number, prompt in enumerate(prompts)}


def main() -> None:
    """Make the features for the run whose folder is on the command line."""
    die_with_parent()
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    work = Path(sys.argv[1])
    try:
        with noting_failure(work):
            make(work)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
