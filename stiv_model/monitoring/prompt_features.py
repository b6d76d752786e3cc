"""The text features of the validation prompts.

`python -m stiv_model.monitoring.prompt_features WORK` makes them for the run that WORK/run.json describes, unless they
are there, in a process of its own: the memory of the text encoder is given back before the ranks start.
"""

import os
import sys
from pathlib import Path

from safetensors import safe_open

from stiv_model.encoders import provenance
from stiv_model.process_exit import die_with_parent, noting_failure
from stiv_model.settings import RUN_FILE, Run
from stiv_model.weights import durable

FILE = "prompts.safetensors"
"""Beside run.json."""


def is_made(work: Path, prompts: tuple[str, ...]) -> bool:
    """Say whether the features are there, and of these prompts."""
    path = work / FILE
    if not path.exists():
        return False
    with safe_open(path, "numpy") as file:
        return file.metadata() == _metadata(prompts)


def make(work: Path) -> None:
    """Encode the prompts with the text encoder that made the latents, unless `is_made`.

    Raises:
        FileNotFoundError: the latents do not say which that was, or it is not there.
        ValueError: it is another one, or a prompt has more tokens than captions may have.
    """
    run = Run.model_validate_json((work / RUN_FILE).read_bytes())
    prompts = run.training.validation_prompts
    if is_made(work, prompts):
        return
    # seconds to import, which a run that goes on need not wait
    from safetensors.torch import save_file

    from stiv_model.encoders.text import TextEncoder

    _, settings = provenance.read(Path(run.latents), batch=len(prompts))
    text = TextEncoder(settings).encode(list(prompts), cut=False)
    tmp_path = work / f"{FILE}.tmp"
    save_file({name: part.contiguous() for name, part in text._asdict().items()}, tmp_path, metadata=_metadata(prompts))
    durable.sync(tmp_path)
    tmp_path.rename(work / FILE)


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
