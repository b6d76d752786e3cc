"""`python -m flows.first_imports`: imports what the stages import, when nobody else needs the CPU.

Python compiles a module when it is first imported, which in a fresh environment is seconds in each of the stages from
clips to samples. While a server starts, and while the first stages read videos, there are cycles to spare.
"""

import contextlib
import importlib
import os

MODULES = (
    "flows.curate",
    "flows.select",
    "flows.caption",
    "flows.check_captions",
    "flows.compare_captions",
    "flows.categorise",
    "flows.encode",
    "flows.train",
    "stiv_model.training.train",
    "stiv_model.monitoring.monitor",
    "stiv_model.monitoring.video_log",
    "flows.generate",
    "flows.evaluate",
    "flows.report",
)
"""In the order in which the stages need them."""

MODULES_LATER = {
    "score": ("tasks.decoding.onnx",),
    "caption": ("tasks.captions.expectations", "tasks.gates.gate"),
    "captions compare": ("stiv_model.captioner.captioner",),
    "categorise": ("stiv_model.encoders.text",),
    "encode": ("stiv_model.encoders.vae", "stiv_model.encoders.text"),
    "generate": ("stiv_model.pipeline.pipeline", "stiv_model.encoders.vae"),
}
"""What a verb imports only where its settings ask for it, as those of the demo do."""
_LOWEST = 19


def main() -> None:
    """Import them, at the lowest priority; what cannot be imported is for its stage to say."""
    os.nice(_LOWEST)
    with contextlib.suppress(KeyboardInterrupt):  # the demo has ended before
        for name in MODULES:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


if __name__ == "__main__":
    main()
