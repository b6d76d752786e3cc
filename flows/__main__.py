"""The command `stiv`: one verb per flow, its options derived from the flow's signature.

Paths and names come from the command line, settings from params.yaml. A settings argument reads the section of
its own name unless told another one: `stiv train ... --recipe train.t2i`.
"""

import os
import signal
import sys

from stiv_model import fork_server
from stiv_model.process_exit import STOPPED, die_with_parent, is_orphan

if __name__ == "__main__":
    if "DVC_STAGE" in os.environ:
        # DVC leaves a stage running when it is killed, also one that still imports, and it may be started a second time
        die_with_parent(signal.SIGTERM)
        if is_orphan():
            sys.exit("stiv: the DVC that started this stage is gone: ended, and nothing was touched")
    fork_server.stand_in("flows", "flows", sys.argv[1:])

import contextlib
import errno
import importlib
import logging
import types
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from flows.command_line import (
    ROOT,
    describe,
    function_name,
    parser_of,
    with_options,
    with_sections,
)
from flows.edit_params import params_with
from flows.first_imports import MODULES_LATER
from flows.params import PARAMS
from flows.running import locks
from flows.running.logs import show_ours
from stiv_model.errors import redaction
from stiv_model.errors.failures import StopRequestedError, TryLaterError
from stiv_model.settings_errors import nearest

log = logging.getLogger(__name__)

# Where each flow lives. Imported when asked for: a stage that needs no torch must not wait for it.
FLOWS = {
    "collect": "flows.curate",
    "probe": "flows.curate",
    "split": "flows.curate",
    "score": "flows.curate",
    "select": "flows.select",
    "caption": "flows.caption",
    "check-captions": "flows.check_captions",
    "categorise": "flows.categorise",
    "captions compare": "flows.compare_captions",
    "encode": "flows.encode",
    "train": "flows.train",
    "generate": "flows.generate",
    "evaluate": "flows.evaluate",
    "report": "flows.report",
    "views-corpus": "flows.views",
    "views-latents": "flows.views",
    "views-table": "flows.views",
    "pipeline": "flows.pipeline",
}
COMMANDS = {
    "demo": "flows.commands.demo",
    "learn": "flows.commands.learn",
    "server": "flows.commands.server",
    "serve": "flows.commands.serve",
    "sample": "flows.commands.sample",
    "predict": "flows.commands.predict",
    "interpolate": "flows.commands.interpolate",
    "views": "flows.commands.views",
    "long": "flows.commands.long",
    "export": "flows.commands.export",
    "compare": "flows.commands.compare",
    "check": "flows.commands.check",
    "doctor": "flows.commands.doctor",
    "model": "flows.commands.model",
    "matrix": "flows.commands.matrix",
    "plan": "flows.commands.plan",
    "funnel": "flows.commands.funnel",
    "ingest": "flows.commands.ingest",
    "browse": "flows.commands.browse",
    "studio": "flows.commands.studio",
    "captions audit": "flows.commands.audit",
    "captions forecast": "flows.commands.caption_forecast",
    "why": "flows.commands.lineage",
    "blame": "flows.commands.lineage",
    "forget": "flows.commands.lineage",
    "shots": "flows.commands.files",
    "fvd": "flows.commands.fvd",
    "vbench prompts": "flows.commands.vbench",
    "vbench sample": "flows.commands.vbench_sample",
    "vbench weights": "flows.commands.vbench_run",
    "vbench run": "flows.commands.vbench_run",
    "vbench score": "flows.commands.vbench",
}

ANYWHERE = ("sample", "predict", "interpolate", "views", "long")
"""Verbs that need no workspace: in a folder without params.yaml, that of the embedded default names device, precision
and limits; size and sampler are those of a pipeline folder."""

SERVE_FORKS = "--serve-forks"
"""`python -m flows --serve-forks DESCRIPTOR COMMAND...` is the fork server of stages with these commands."""

HELP = f"""\
usage: stiv VERB [options]      (or: python -m flows VERB [options]; `stiv VERB --help` tells its options)

the whole road
  stiv demo                     start a server, run everything through it, stop it, say where the report is
  stiv learn                    the same with the settings of an hour's training, in a folder of its own: learn/
  stiv pipeline                 bring every stage of dvc.yaml up to date
  stiv pipeline --stages t2v samples
  stiv server                   a Prefect server of this workspace's own, for others to use: .prefect/client.env
  stiv serve                    serve the deployment stiv/full-pipeline to the server at PREFECT_API_URL

try the model
  stiv sample --prompt "a red circle moves left" --out red.mp4
  stiv sample --prompt "a red circle moves left" --image first.png --out red.mp4
  stiv sample --again red.json --out same.mp4   the same bytes, by the JSON beside a video
  stiv predict --video walk.mp4 --out next.mp4   what comes after the last frames
  stiv interpolate --video walk.mp4 --factor 2 --out smooth.mp4   or --image A --last-image B
  stiv views --image chair.png --out chair   an object from six more sides, from one picture of it
  stiv long --prompt "a red circle moves left" --seconds 16 --checkpoint checkpoints/long_video --out long.mp4
  stiv studio                   a local page that does all of this: queue, gallery, two videos side by side
  stiv export --out pipelines/demo   a checkpoint as a folder that diffusers opens anywhere
  stiv matrix --out matrix/sft   how it does with and without text and given frames, by kinds and scales of guidance
  stiv check t2v                whether a stage could start now: settings, inputs, plan, device, disk
  stiv doctor                   what this machine can run, and what is missing
  stiv model XL                 parameters, FLOPs and memory of a size of the paper's, or of a params file
  stiv plan --latents data/latents   what each recipe will do with the data, and what it costs

how good it is
  stiv evaluate --suite videos --videos FOLDER --out card   measure a folder of videos, or a model: a score card
  stiv compare A.json B.json    two score cards side by side, or why they cannot be compared
  stiv fvd REAL MADE            FVD and KVD of two folders of videos, with floor, interval and protocol
  stiv vbench sample --out vbench/mine   the 6,220 videos of VBench's prompts; --prompts FILE for rewritten ones
  stiv vbench run vbench/mine   measure them by VBench's own code, in its own environment; weights --check before
  stiv vbench score FILE... --convention t2v   Quality, Semantic and Total of VBench's results

raw video and where it went
  stiv probe FILE...            what these files are, or why they would not be used: JSON lines
  stiv shots FILE...            their shots: times, kind of transition, reason, scores: JSON lines
  stiv funnel --set clips.motion.min=0.6   what other thresholds would keep; --sheet shows the shots nearest each
  stiv ingest shards/*.tar --out data/ingested   WebDataset tars, or what cosmos-curate or NeMo Curator wrote
  stiv browse                   a local page: filter shots by any score, play them, see captions and reasons
  stiv why CLIP                 its history: file, times, scores, gate, caption, latents, checkpoints that saw it
  stiv blame checkpoints/sft    which videos a checkpoint learned from, and under which licences
  stiv forget VIDEO             after a takedown: what must be deleted and rebuilt; --yes does it

captions
  stiv captions compare video frames   two captioners on the same clips: who invents less; a page with the clips
  stiv captions forecast        tokens, clips per second, hours and price of captioning all clips, by asking about 64
  stiv captions audit           a local page: keys y and n for each object that captions name; it corrects the judge

one stage's work, without DVC   (options as in dvc.yaml)
  stiv {" | ".join(verb for verb in FLOWS if verb != "pipeline")}
"""


def split_verb(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Return the verb that begins a command line, a noun and its verb as one (`vbench score`), and the words behind it.

    Raises:
        LookupError: there is no such verb; the message says which there are.
    """
    known = list(FLOWS | COMMANDS)
    of_noun = [verb for verb in known if verb.startswith(f"{argv[0]} ")]
    words = 2 if of_noun else 1
    verb = " ".join(argv[:words])
    if verb in known:
        return verb, list(argv[words:])
    possible = [one.removeprefix(f"{argv[0]} ") for one in of_noun or known]
    said = nearest(argv[words - 1], possible) or f": it is one of {', '.join(possible)}"
    raise LookupError(f"no verb {verb}{said}")


def help_of_noun(noun: str) -> str:
    """Return what `stiv NOUN --help` says: each of its verbs with the first line of its help."""
    verbs = [verb for verb in FLOWS | COMMANDS if verb.startswith(f"{noun} ")]
    firsts = [describe(module_of(verb), verb).doc.partition("\n")[0] for verb in verbs]
    lines = [f"  stiv {verb:24s} {first}" for verb, first in zip(verbs, firsts, strict=True)]
    usage = f"usage: stiv {noun} VERB [options]      (`stiv {noun} VERB --help` tells its options)"
    return "\n".join([usage, "", *lines])


def module_of(verb: str, argv: Sequence[str] = ("--source",)) -> str:
    """Return the module of the function behind a verb; `probe` with no --source is about single files."""
    is_of_files = verb == "probe" and not any(word.startswith("--source") for word in argv)
    return "flows.commands.files" if is_of_files else (FLOWS | COMMANDS)[verb]


def load(verb: str, argv: Sequence[str] = ("--source",)) -> Any:
    """Return the flow, or the plain function, behind a verb."""
    return getattr(importlib.import_module(module_of(verb, argv)), function_name(verb))


def call(verb: str, argv: list[str]) -> None:
    """Parse the options of a verb and run what is behind it.

    Raises:
        FileNotFoundError, ValueError, OSError: the request is wrong, or the machine is in the way.
        SystemExit: the flow did not complete.
    """
    described = describe(module_of(verb, argv), verb)
    values = vars(parser_of(verb, described).parse_args(argv))
    for name, value in values.items():
        redaction.refuse(value, f"--{name.replace('_', '-')}")  # Prefect stores what a flow is called with
    said = values["set"] if "set" in described.signature.parameters else values.pop("set", None)
    if described.sections or verb in FLOWS:
        params = params_with(said, _params_file(verb))
        values = with_sections(described, values, params)
    values = with_options(described, values)
    words = [values.pop(arg.name) for arg in described.arguments if arg.kind is arg.POSITIONAL_ONLY]
    words += [word for arg in described.arguments if arg.kind is arg.VAR_POSITIONAL for word in values.pop(arg.name)]
    function = load(verb, argv)
    if not hasattr(function, "fn"):  # no flow
        function(*words, **values)
        return
    function.fn = redaction.redacted(function.fn)
    if stage := os.environ.get("DVC_STAGE"):
        from flows.stages import check_inputs

        check_inputs(stage, params.check.days)
    with locks.output(_locked(values), verb) if "out" in values else contextlib.nullcontext():
        if _is_shown(values.get("engine")):
            _run_shown(verb, function, words, values)
        else:
            _run_alone(verb, function, words, values)


def _locked(values: dict[str, Any]) -> Path:
    """Return what a verb makes, as it is locked: of a shard only its own part, for others may be at work beside it."""
    shard = values.get("shard")
    return values["out"] / shard if shard else values["out"]


def _is_shown(engine: Any) -> bool:
    """Say whether a flow runs under Prefect: as a stage of a pipeline that does, or where its server answers.

    Raises:
        ValueError: no server answers, and the engine cannot do without.
    """
    from flows.running.api import trouble  # Prefect: two seconds that commands and --help need not wait
    from flows.running.run_context import handed_on

    if (shown := handed_on()) is not None:
        return shown
    said = trouble()
    if said is None:
        return True
    if engine is not None and engine.kind == "ray":
        if said:
            raise ValueError(f"engine.kind is ray, which works through Prefect, and {said}")
        return True  # Prefect starts a server for the command
    if said:
        log.warning("%s; the work is done, and shown nowhere", said)
    return False


def _run_shown(verb: str, flow: Any, words: list[Any], values: dict[str, Any]) -> None:
    """Run a flow through Prefect.

    Raises:
        SystemExit: it did not complete.
    """
    from flows.running.run_context import inherited

    if "engine" in values:
        from flows.running.task_runner import runner

        flow = flow.with_options(task_runner=runner(values["engine"]))
    with inherited():
        state = flow(*words, **values, return_state=True)
    if not state.is_completed():
        _end(verb, *_reason(state))


def _run_alone(verb: str, flow: Any, words: list[Any], values: dict[str, Any]) -> None:
    """Do a flow's work without Prefect's server.

    Raises:
        ValueError, OSError: the request is wrong, or the machine is in the way.
        SystemExit: it failed.
    """
    try:
        flow.fn(*words, **values)
    except (ValueError, OSError):
        raise
    except Exception as error:
        if not isinstance(error, RuntimeError):  # which is how our own say that a process failed
            log.exception("stiv %s", verb)
        _end(verb, explain(error), error)


def _end(verb: str, said: str, error: object) -> NoReturn:
    """End the command with its last word, and 75 where the same command goes on later (sysexits.h: EX_TEMPFAIL).

    Raises:
        SystemExit: always.
    """
    line = f"stiv {verb}: {said}"
    if isinstance(error, StopRequestedError | TryLaterError):
        print(line, file=sys.stderr)
        sys.exit(STOPPED)
    sys.exit(line)


def _params_file(verb: str) -> Path:
    if verb not in ANYWHERE or PARAMS.exists() or not (ROOT / PARAMS).exists():
        return PARAMS
    print(f"{PARAMS} is not here: device, precision and limits are those of the embedded default", file=sys.stderr)
    return ROOT / PARAMS


def _reason(state: Any) -> tuple[str, Exception | None]:
    """Say in one line why a flow did not complete, and by what error if by one."""
    try:
        state.result()
    except Exception as error:  # whatever a flow may raise: this is the last word on it
        return explain(error), error
    return redaction.redact(" ".join(str(state.message or state.name).split())), None


def explain(error: Exception) -> str:
    """Say in one line what went wrong, with the remedy where the system only gives a number."""
    said = redaction.redact(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{said}: free some space or move the workspace to a larger disk; the same command then goes on"
    return said


def _start() -> None:
    """Prepare this process: where it finds modules, what it logs, and what libraries read when they are imported."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # a tracker of the user's is found, however the command was started
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    redaction.install()
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


def _import_for(request: fork_server.Request) -> None:
    """Import what the process of a verb will need."""
    verb, words = split_verb(request.words)
    for name in _imports(verb, words):
        importlib.import_module(name)


def _import_ahead(expected: Sequence[str], request: fork_server.Request) -> list[str]:
    """Name what the verbs import, in their order, that are expected after the one that is asked for."""
    verbs = []
    for words in expected:
        with contextlib.suppress(LookupError):  # no verb of ours: the stage itself will say it
            verbs.append(split_verb(words.split())[0])
    verb, _ = split_verb(request.words)
    later = verbs[verbs.index(verb) + 1 :] if verb in verbs else []
    return [name for one in later for name in _imports(one)]


def _imports(verb: str, words: Sequence[str] = ("--source",)) -> tuple[str, ...]:
    return module_of(verb, words), *MODULES_LATER.get(verb, ())


def main(argv: list[str] | None = None) -> None:
    _start()
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == [SERVE_FORKS]:
        request = fork_server.serve(int(argv[1]), _import_for, partial(_import_ahead, argv[2:]))
        fork_server.finish(partial(main, request.words))
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return
    if argv[1:] in ([], ["-h"], ["--help"]) and any(verb.startswith(f"{argv[0]} ") for verb in FLOWS | COMMANDS):
        print(help_of_noun(argv[0]))
        return
    try:
        verb, words = split_verb(argv)
    except LookupError as error:
        sys.exit(f"stiv: {redaction.redact(error.args[0])}")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        call(verb, words)
    except BrokenPipeError:  # as `| head` leaves it: whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        sys.exit(f"stiv {verb}: {explain(error)}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("flows", "tasks", "stiv_model"):
            raise
        sys.exit(f"stiv {verb}: {sys.executable} has no package {package}: make setup installs what is needed")
    except KeyboardInterrupt:
        print(f"stiv {verb}: stopped; the same command goes on where it was", file=sys.stderr)
        sys.exit(STOPPED)


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    """Let SIGTERM end the command as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
