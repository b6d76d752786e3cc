"""`stiv vbench prompts` and `score`: what VBench asks for, and what its results amount to."""

from pathlib import Path

from tasks.evaluation import sealing
from tasks.evaluation.vbench import as_card, conventions, results, scores, suite
from tasks.evaluation.vbench.conventions import ConventionName


def prompts(dimensions: list[str] | None = None) -> None:
    """Print the prompts of text to video, a line each, in the order that `--prompts` of `stiv vbench sample` takes.

    946 lines: two prompts stand twice, as in VBench.

    Args:
        dimensions: Only the prompts that these dimensions are measured on; a file of these is no file for --prompts.

    examples:
      stiv vbench prompts > prompts.txt
      stiv vbench prompts --dimensions color
    """
    wanted = {video.prompt for video in suite.planned(dimensions=dimensions)}
    print("\n".join(entry.prompt for entry in suite.entries() if entry.prompt in wanted))


def score(
    *files: Path,
    convention: ConventionName,
    partial: bool = False,
    json: bool = False,
    card: Path | None = None,
    sampled: Path | None = None,
) -> None:
    """Make Quality, Semantic or I2V, and Total of VBench's results, by a convention that is named.

    A dimension that is missing is an error that names it: VBench's own script counts it as 0 and does not say so.

    Args:
        files: Results of VBench (NAME_eval_results.json), or {dimension: mean} as JSON; several make one score, each
            with dimensions of its own.
        convention: How dimensions become a total: t2v; i2v_repo, the script of VBench-I2V since 2024-12-31; i2v_2024,
            its leaderboard before that, by which the STIV paper's figures of image to video were made.
        partial: Score the groups that are whole where a dimension of another group is missing.
        json: Print JSON, for programs.
        card: Write a score card too, which stiv compare takes.
        sampled: Folder of stiv vbench sample, from which the card has what made the videos.

    examples:
      stiv vbench score results/my_model_eval_results.json --convention t2v
      stiv vbench score quality.json semantic.json --convention t2v --json
      stiv vbench score i2v_eval_results.json --convention i2v_2024 --partial

    Raises:
        OSError: a file cannot be read.
        ValueError: no file is named, a result is not what VBench writes, a dimension is missing, or --sampled is not
            what stiv vbench sample writes.
    """
    if not files:
        raise ValueError("no result is named: give one or more JSON files of VBench")
    chosen = conventions.convention(convention)
    found = scores.score(results.read(files, chosen), chosen, partial)
    print(scores.as_json(found) if json else scores.table(found))
    if card is not None:
        sealing.write(as_card.make(files, found, sampled), card)
