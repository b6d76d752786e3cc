"""Captions of made-up clips, and models of a test's server that judge them: a picture says what it shows."""

import base64
import json
import re
from collections import Counter
from pathlib import Path

from tasks.captions import cleaning
from tasks.captions.settings import CaptionSettings
from tasks.chat.client import closing
from tasks.dsg.judging import judge_texts
from tasks.dsg.settings import DsgSettings, EndpointJudgeSettings
from tasks.dsg.stage import Dsg
from tasks.storage import stage, tables
from tests import made_dsg
from tests.fault_server import completion
from tests.made_clips import endpoint, jpeg
from tests.made_stills import write_stills

STILLS = 4
PROMPTS = Path(__file__).parents[1] / "prompts"
OBJECTS = ("dog", "cat", "tree", "car", "boat", "hat", "sign", "lamp", "rock", "bird")


def judge(url: str, frames: int = STILLS, **changes) -> EndpointJudgeSettings:
    """Return models behind a server, by the project's prompts."""
    asked = {"endpoint": endpoint(url, **changes), "temperature": 0, "seed": 0, "max_tokens": 900}
    return EndpointJudgeSettings.model_validate(
        {
            "backend": "endpoint",
            "questions": asked | {"prompt": "prompts/questions.txt"},
            "answers": asked | {"prompt": "prompts/answer.txt"},
            "frames": frames,
        }
    )


def settings(url: str, frames: int = STILLS, **changes) -> DsgSettings:
    """Return the settings of a stage with such a judge."""
    own = {key: changes.pop(key) for key in list(changes) if key in DsgSettings.model_fields}
    return made_dsg.SETTINGS.model_copy(update={"judge": judge(url, frames, **changes), "captions": None} | own)


def clip_of(number: int) -> str:
    return f"{number:020x}-0-1"


def shown(number: int) -> list[str]:
    """Return what a clip shows."""
    return [OBJECTS[(number + step) % len(OBJECTS)] for step in range(3)]


def text_of(number: int, *invented: str) -> str:
    """Return a caption: an object that is red and runs, two more, and what is invented."""
    first, second, third = shown(number)
    return " ".join(
        [f"A red {first} runs.", f"There is a {second} and a {third}.", *(f"A {one} is far away." for one in invented)]
    )


def write_clips(top: Path, count: int) -> Path:
    """Write the stills of clips: each shows one of its objects but the middle one, which shows all; return a folder."""
    pictures = {}
    for number in range(count):
        names = shown(number)
        of_frames = [[names[0], "red"], [names[1]], [*names, "red"], [names[2]]]
        pictures[clip_of(number)] = [
            jpeg(" ".join([f"{number}.{at}", *words])) for at, words in enumerate(of_frames[:STILLS])
        ]
    write_stills(top / "shots", pictures)
    (top / "prompts").mkdir()
    for name in ("questions", "answer", "rewrite"):
        if (PROMPTS / f"{name}.txt").exists():
            (top / f"prompts/{name}.txt").write_bytes((PROMPTS / f"{name}.txt").read_bytes())
    return top / "shots"


def parts_of(request: dict) -> tuple[str, list[str]]:
    """Return the words of a request, and those of its pictures."""
    content = request["messages"][0]["content"]
    urls = [part["image_url"]["url"].partition(",")[2] for part in content if part["type"] == "image_url"]
    (text,) = (part["text"] for part in content if part["type"] == "text")
    return text, [base64.b64decode(url)[4:-2].decode() for url in urls]


def question(number: int, kind: str, text: str, parents=(), sentence: int = 1, name: str = "") -> dict:
    return {"id": number, "kind": kind, "text": text, "parents": parents, "sentence": sentence, "object": name}


def questions_of(caption: str) -> list[dict]:
    """Return the questions that the model writes about a caption's numbered sentences."""
    found = []
    for number, sentence in re.findall(r"^(\d+)\. (.*)$", caption, re.MULTILINE):
        for name in re.findall("|".join(OBJECTS), sentence):
            at = len(found) + 1
            found.append(question(at, "object", f"Is there a {name}?", [], int(number), name))
            if "red" in sentence:
                found.append(question(at + 1, "attribute", f"Is the {name} red?", [at], int(number)))
                found.append(question(at + 2, "action", f"Does the {name} run?", [at], int(number)))
    return found


def answer(request: dict):
    """Answer as both models: questions of what is asked without a picture, and yes where all its words are shown."""
    text, pictures = parts_of(request)
    if not pictures:
        return completion(request, json.dumps({"questions": questions_of(text.rpartition("The caption:")[2])}))
    (asked,) = re.findall(r"^(?:Is|Does) (?:there a|the) (.*)\?$", text, re.MULTILINE)
    if "run" in asked:
        return completion(request, "yes" if len(pictures) == STILLS else "no")
    return completion(request, "yes" if set(asked.split()) <= set(pictures[0].split()) else "No.")


def rewriting(request: dict):
    """Answer as all three models; the one that writes again takes the last sentence away."""
    text, _ = parts_of(request)
    if "The clip does not show" not in text:
        return answer(request)
    caption = text.partition("the clip:\n\n")[2].partition("\n\nThe clip does not show")[0]
    kept = " ".join(cleaning.sentences(caption)[:-1])
    return completion(request, json.dumps({"text": f"The video shows that **{kept}**", "short": "A thing."}))


def judged(texts: dict[str, str], url: str, **changes) -> list[dict]:
    """Return the rows of such captions, in the order of their clips."""
    asked = settings(url, **changes)
    with closing(*asked.endpoints):
        rows = list(judge_texts(texts, "video", Path("shots"), asked, Path("answers.sqlite")))
    return sorted(rows, key=lambda row: row["clip"])


def write_captions(top: Path, texts: dict[str, str], **columns) -> None:
    """Write the table that stage captions makes."""
    (top / "captions").mkdir(exist_ok=True)
    rows = [
        dict.fromkeys(tables.CAPTIONS.names)
        | {"clip": clip, "status": "ok", "captioner": "video", "text": text, "short": text}
        | columns
        for clip, text in texts.items()
    ]
    tables.write_rows(top / "captions" / tables.CAPTION_TABLE, rows, tables.CAPTIONS)


def run(dsg: DsgSettings, out: str = "dsg", captioning: CaptionSettings | None = None) -> dict:
    """Run stage dsg in the working folder; return its report."""
    declared = Dsg(Path("captions"), Path("shots"), dsg, Path("audits"), Path("answers.sqlite"), captioning)
    stage.run(declared, Path(out), Path("report.json"), "code", earlier=Path("earlier"))
    return json.loads(Path("report.json").read_text())


def kinds_of(requests: list[dict]) -> Counter:
    """Count requests by the number of pictures in them."""
    return Counter(len(parts_of(request)[1]) for request in requests)
