"""The command `stiv`: one verb per flow, its options derived from the flow's signature.

Paths and names come from the command line, settings from params.yaml. A settings argument reads the section of
its own name unless told another one: `stiv train ... --recipe train.t2i`.
"""

import argparse
import errno
import importlib
import inspect
import logging
import os
import signal
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from flows.params import is_settings, load_params, section_of
from flows.running.logs import show_ours
from stiv_model.process_exit import STOPPED, die_with_parent

# Where each flow lives. Imported when asked for: a stage that needs no torch must not wait for it.
FLOWS = {
    "collect": "flows.curate",
    "probe": "flows.curate",
    "split": "flows.curate",
    "score": "flows.curate",
    "select": "flows.select",
    "caption": "flows.caption",
    "encode": "flows.encode",
    "train": "flows.train",
    "generate": "flows.generate",
    "judge": "flows.evaluate",
    "report": "flows.evaluate",
    "pipeline": "flows.pipeline",
}
COMMANDS = {
    "demo": "flows.commands.demo",
    "serve": "flows.commands.serve",
    "sample": "flows.commands.sample",
    "export": "flows.commands.export",
    "doctor": "flows.commands.doctor",
    "model": "flows.commands.model",
    "plan": "flows.commands.plan",
    "funnel": "flows.commands.funnel",
    "ingest": "flows.commands.ingest",
    "browse": "flows.commands.browse",
    "why": "flows.commands.lineage",
    "blame": "flows.commands.lineage",
    "forget": "flows.commands.lineage",
    "shots": "flows.commands.files",
}

HELP = """\
usage: stiv VERB [options]      (or: python -m flows VERB [options]; `stiv VERB --help` tells its options)

the whole road
  stiv demo                     start a server, run everything through it, stop it, say where the report is
  stiv pipeline                 bring every stage of dvc.yaml up to date
  stiv pipeline --stages t2v samples
  stiv serve                    serve the deployment stiv/full-pipeline to the server at PREFECT_API_URL

try the model
  stiv sample --prompt "a red circle moves left" --out red.mp4
  stiv sample --prompt "a red circle moves left" --image first.png --out red.mp4
  stiv export --out pipelines/demo   a checkpoint as a folder that diffusers opens anywhere
  stiv doctor                   what this machine can run, and what is missing
  stiv model XL                 parameters, FLOPs and memory of a size of the paper's, or of a params file
  stiv plan --latents data/latents   what each recipe will do with the data, and what it costs

raw video and where it went
  stiv probe FILE...            what these files are, or why they would not be used: JSON lines
  stiv shots FILE...            their shots: times, kind of transition, reason, scores: JSON lines
  stiv funnel --set clips.motion.min=0.6   what other thresholds would keep; --sheet shows the shots nearest each
  stiv ingest shards/*.tar --out data/ingested   WebDataset tars, or what cosmos-curate or NeMo Curator wrote
  stiv browse                   a local page: filter shots by any score, play them, see captions and reasons
  stiv why CLIP                 its history: file, times, scores, gate, caption, latents, checkpoints that saw it
  stiv blame checkpoints/sft    which videos a checkpoint learned from, and under which licences
  stiv forget VIDEO             after a takedown: what must be deleted and rebuilt; --yes does it

one stage's work, without DVC   (options as in dvc.yaml)
  stiv collect | probe | split | score | select | caption | encode | train | generate | judge | report
"""


def load(verb: str, argv: Sequence[str] = ("--source",)) -> Any:
    """Return the flow, or the plain function, behind a verb; `probe` with no --source is about single files."""
    is_of_files = verb == "probe" and not any(word.startswith("--source") for word in argv)
    module = importlib.import_module("flows.commands.files" if is_of_files else (FLOWS | COMMANDS)[verb])
    return getattr(module, verb)


def arguments(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(getattr(function, "fn", function)).parameters.values())


def parser_of(verb: str, function: Any) -> argparse.ArgumentParser:
    """Return the parser of one verb, derived from the signature behind it."""
    doc = inspect.getdoc(getattr(function, "fn", function)) or ""
    parser = argparse.ArgumentParser(
        prog=f"stiv {verb}", description=_for_users(doc), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for arg in arguments(function):
        option = f"--{arg.name.replace('_', '-')}"
        if is_settings(arg.annotation):
            what = f"section of params.yaml (default: {arg.name})"
            parser.add_argument(option, metavar="SECTION", default=arg.name, help=what)
            continue
        kind = _plain(arg.annotation)
        if arg.kind is arg.POSITIONAL_ONLY:
            parser.add_argument(arg.name, metavar=arg.name.upper(), type=kind)
            continue
        if arg.kind is arg.VAR_POSITIONAL:
            parser.add_argument(arg.name, metavar=arg.name.rstrip("s").upper(), type=kind, nargs="*")
            continue
        needed = arg.default is arg.empty
        how: dict[str, Any] = (
            {"required": True} if needed else {"default": arg.default, "help": f"default: {arg.default}"}
        )
        if kind is bool:
            parser.add_argument(option, action="store_true", help=how.get("help"))
        elif getattr(kind, "__origin__", None) in (list, Sequence):
            parser.add_argument(option, type=get_args(kind)[0], nargs="+", **how)
        else:
            parser.add_argument(option, type=kind, **how)
    return parser


def _for_users(doc: str) -> str:
    """Return a docstring without its section of exceptions, which is for whoever calls the function."""
    kept, is_left_out = [], False
    for line in doc.splitlines():
        if line and not line.startswith(" "):
            is_left_out = line == "Raises:"
        if not is_left_out:
            kept.append(line)
    return "\n".join(kept).strip()


def _plain(annotation: Any) -> Any:
    """Return what remains of `X | None`."""
    if isinstance(annotation, types.UnionType):
        return next(kind for kind in get_args(annotation) if kind is not types.NoneType)
    return annotation


def call(verb: str, argv: list[str]) -> None:
    """Parse the options of a verb and run what is behind it.

    Raises:
        FileNotFoundError, ValueError, OSError: the request is wrong, or the machine is in the way.
        SystemExit: the flow did not complete.
    """
    function = load(verb, argv)
    values = vars(parser_of(verb, function).parse_args(argv))
    params = load_params()
    for arg in arguments(function):
        if is_settings(arg.annotation):
            values[arg.name] = section_of(params, values[arg.name], arg.annotation, f"--{arg.name}")
    words = [values.pop(arg.name) for arg in arguments(function) if arg.kind is arg.POSITIONAL_ONLY]
    words += [word for arg in arguments(function) if arg.kind is arg.VAR_POSITIONAL for word in values.pop(arg.name)]
    if not hasattr(function, "fn"):  # no flow
        function(*words, **values)
        return
    from flows.running.run_context import inherited  # Prefect: two seconds that commands and --help need not wait

    if stage := os.environ.get("DVC_STAGE"):
        from flows.stages import check_inputs

        check_inputs(stage)
    if "engine" in values:
        from flows.running.task_runner import runner

        function = function.with_options(task_runner=runner(values["engine"]))
    with inherited():
        state = function(*words, **values, return_state=True)
    if not state.is_completed():
        sys.exit(f"stiv {verb}: {_reason(state)}")


def _reason(state: Any) -> str:
    """Say in one line why a flow did not complete."""
    try:
        state.result()
    except Exception as error:  # whatever a flow may raise: this is the last word on it
        return explain(error)
    return " ".join(str(state.message or state.name).split())


def explain(error: Exception) -> str:
    """Say in one line what went wrong, with the remedy where the system only gives a number."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{said}: free some space or move the workspace to a larger disk; the same command then goes on"
    return said


def main(argv: list[str] | None = None) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    show_ours()
    for worker in ("EventsWorker", "APILogWorker"):
        # at exit they say how many events are still on their way; our last line is to be the last
        logging.getLogger(worker).setLevel(logging.ERROR)
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    # without a server at hand Prefect starts one for the command; its own limit of 20 s is short on a busy machine
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    # threads of torch that wait must not spin: on a busy machine that made encoding eight times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # ONNX Runtime (text_area, nsfw, RAFT) tells Microsoft of every model that it loads unless told not to
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return
    if argv[0] not in FLOWS | COMMANDS:
        sys.exit(f"stiv: no verb {argv[0]}: it is one of {', '.join(FLOWS | COMMANDS)}")
    if "DVC_STAGE" in os.environ:
        die_with_parent(signal.SIGTERM)  # DVC leaves a stage running when it is killed
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        call(argv[0], argv[1:])
    except BrokenPipeError:  # as `| head` leaves it: whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        sys.exit(f"stiv {argv[0]}: {explain(error)}")
    except KeyboardInterrupt:
        print(f"stiv {argv[0]}: stopped; the same command goes on where it was", file=sys.stderr)
        sys.exit(STOPPED)


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    """Let SIGTERM end the command as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    main()
