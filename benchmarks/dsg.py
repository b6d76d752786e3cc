"""What DSG-Video's arithmetic costs: graphs repaired, questions put in order, answers parsed, captions counted.

    python benchmarks/dsg.py --captions 5000

from the folder of the repository, with it on PYTHONPATH or the package installed. Captions of 12 questions each (6
objects, 4 attributes, 2 relations) and 8 frames, by a judge that answers at once; one process, CPU seconds.
"""

import argparse
import time

import numpy as np

from tasks.dsg.answers import parse
from tasks.dsg.questions import Asked, Graph, repair
from tasks.dsg.scores import Figures, count, figures
from tasks.dsg.verdicts import Ask, Examined, examine

FRAMES = 8
INVENTED, AFFIRMED = 0.06, 0.9
"""Share of invented questions, and of the frames that affirm the others."""


def asked_of(caption: int) -> list[Asked]:
    """Return the questions of one caption; one in 40 has a circle."""
    objects = [Asked(n, "object", f"Is there an object {n}?", "0", (n // 3,), f"object-{n}") for n in range(1, 7)]
    attributes = [Asked(n, "attribute", f"Is object {n - 6} red?", f"{n - 6}", (0,)) for n in range(7, 11)]
    relations = [Asked(n, "relation", "Is one on the other?", f"{n - 10}, {n - 9}", (1,)) for n in (11, 12)]
    if caption % 40 == 0:
        objects[0] = objects[0]._replace(parents="7")
    return objects + attributes + relations


def answers_of(captions: int) -> list[list[list[str]]]:
    """Return what the judge says, by caption, question and frame; the last of a question is of all frames."""
    random = np.random.default_rng(0)
    is_real = random.random((captions, 13, 1)) >= INVENTED
    return np.where((random.random((captions, 13, FRAMES + 1)) < AFFIRMED) & is_real, "Yes.", "No").tolist()


def examine_all(graphs: list[Graph], answers: list[list[list[str]]]) -> list[Examined]:
    def ask_of(rows: list[list[str]]) -> Ask:
        return lambda question, frame: parse(rows[question.id][FRAMES if frame is None else frame])

    return [examine(graph, FRAMES, ask_of(rows)) for graph, rows in zip(graphs, answers, strict=True)]


def score_all(graphs: list[Graph], found: list[Examined]) -> Figures:
    return figures([count(graph, one.verdicts, 3) for graph, one in zip(graphs, found, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=5000)
    captions = parser.parse_args().captions
    asked, answers = [asked_of(number) for number in range(captions)], answers_of(captions)
    questions, clock = sum(map(len, asked)), [time.process_time()]
    graphs = [repair(one) for one in asked]
    clock.append(time.process_time())
    found = examine_all(graphs, answers)
    clock.append(time.process_time())
    scored = score_all(graphs, found)
    clock.append(time.process_time())
    print(f"{captions:,} captions, {questions:,} questions, {sum(len(one.evidence) for one in found):,} answers")
    print(f"{scored.rate_i.rate:.1%} of the objects invented\n\n| | CPU | questions per second |\n|---|---:|---:|")
    names = ("graphs repaired", "asked in order, answers parsed, early exit", "counted, with all intervals")
    for name, seconds in [*zip(names, np.diff(clock), strict=True), ("all of it", clock[-1] - clock[0])]:
        print(f"| {name} | {seconds:.2f} s | {questions / seconds:,.0f} |")


if __name__ == "__main__":
    main()
