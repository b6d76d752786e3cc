"""Backend `transformers` with tiny random models of six families: what loads and asks them is what asks large ones."""

import ast
import json
import shutil
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest

from stiv_model.captioner import hub_files
from stiv_model.captioner.hub_model import HubModel, Look, read_picture
from tasks.captions import in_process
from tasks.captions.settings import TransformersCaptionerSettings
from tests import tiny_vlm
from tests.made_clips import Workspace, by

ROOT = Path(__file__).parents[3]
WITH_VIDEO = [family for family in tiny_vlm.FAMILIES if family not in tiny_vlm.WITHOUT_TORCHVISION]
TOKENS = 10


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Return what returns the folder of a family; each is made once."""
    top = tmp_path_factory.mktemp("models")

    def folder(family: str) -> Path:
        if family in WITH_VIDEO and not tiny_vlm.HAS_TORCHVISION:
            pytest.skip("transformers loads this family with torchvision alone, which the extra vlm installs")
        return top / family if (top / family).exists() else tiny_vlm.make(family, top / family)

    return folder


def still(number: int, width: int = 56) -> bytes:
    draw = np.random.default_rng(number)
    blocks = draw.integers(0, 2, (5, width // 8, 1)) * draw.integers(0, 256, 3)
    return cv2.imencode(".jpg", blocks.astype(np.uint8).repeat(8, 0).repeat(8, 1))[1].tobytes()


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Workspace(tmp_path, 5)
    made.stills = {clip: [still(10 * at + place) for place in range(4)] for at, clip in enumerate(made.clips)}
    made.write_stills("seen")
    return made


def local(source, **changes) -> TransformersCaptionerSettings:
    known = {"kind": "video_llm", "name": "video", "backend": "transformers", "source": str(source), "revision": None}
    known |= {"prompt": "prompts/test.txt", "answer": "text", "frames": 3, "max_tokens": TOKENS}
    known |= {"shown": "pictures", "precision": "float32", "device": "cpu", "batch": 4}
    return TransformersCaptionerSettings.model_validate(known | changes)


def looks(count: int, pictures: int, **changes) -> list[Look]:
    return [
        Look(
            f"Describe it{', please' * number}.",
            [read_picture(still(9 * number + place, 40 + 24 * number)) for place in range(pictures)],
            **changes,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("family", tiny_vlm.FAMILIES)
def test_one_at_a_time_and_four_at_once_say_the_same(family, folder_of):
    model = HubModel(folder_of(family), "float32", "cpu", "captions")
    for pictures in (1, 3, 0):
        batch = looks(4, pictures)
        together = model.answer(batch, TOKENS)
        assert together == [model.answer([look], TOKENS)[0] for look in batch]
        assert all(words.is_whole or words.tokens == TOKENS for words in together)
    assert len({words.prompt_tokens for words in together}) == 4


@pytest.mark.parametrize("family", WITH_VIDEO)
def test_frames_shown_as_one_video_are_not_sampled_again(family, folder_of):
    model = HubModel(folder_of(family), "float32", "cpu", "captions")
    batch = looks(4, 4, times=(0.25, 0.75, 1.25, 1.75), seconds=2.0)
    together = model.answer(batch, TOKENS)
    assert together == [model.answer([look], TOKENS)[0] for look in batch]
    assert together[0].prompt_tokens > model.answer(looks(1, 2, times=(0.5, 1.5), seconds=2.0), TOKENS)[0].prompt_tokens


@pytest.mark.parametrize("family", tiny_vlm.WITHOUT_TORCHVISION)
def test_what_a_tokenizer_has_a_meaning_for_is_words_in_a_prompt(family, folder_of):
    model = HubModel(folder_of(family), "float32", "cpu", "captions")
    (plain,) = model.answer(looks(1, 2), TOKENS)
    (marked,) = model.answer([looks(1, 2)[0]._replace(text="<image></s><image><pad>")], TOKENS)
    assert marked.prompt_tokens > 20 and marked.text != plain.text


def test_rows_say_which_model_wrote_them_and_nothing_is_asked_twice(workspace, folder_of):
    settings = by(local(folder_of("llava")))
    rows = workspace.caption(settings, "seen")
    assert [row["clip"] for row in rows] == workspace.clips
    assert {(row["status"], row["reason"], row["captioner"]) for row in rows} == {("failed", "truncated", "video")}
    assert len({row["raw"] for row in rows}) > 2  # it looks at the pictures
    for row in rows:
        name, _, sha256 = row["model"].partition("@")
        assert (name, len(sha256)) == ("llava", 64)
        assert (row["frames"], row["temperature"], row["max_tokens"]) == (3, 0, TOKENS)
    in_process._OPENED.clear()
    assert workspace.caption(settings, "seen") == rows
    assert workspace.caption(by(local(folder_of("llava"), batch=1)), "seen") == rows
    assert not in_process._OPENED  # nothing was asked, so that no model was loaded
    Path("answers.sqlite").unlink()
    one_by_one = workspace.caption(by(local(folder_of("llava"), batch=1)), "seen")
    assert one_by_one == rows and len(in_process._OPENED) == 1
    other = workspace.caption(by(local(folder_of("llava"), max_tokens=5)), "seen")
    assert {len(row["raw"]) < len(rows[0]["raw"]) + 20 and row["max_tokens"] for row in other} == {5}


def test_a_run_that_was_killed_goes_on_where_it_was(workspace, folder_of, monkeypatch):
    settings = by(local(folder_of("llava"), batch=2))
    rows = workspace.caption(settings, "seen")
    with sqlite3.connect("answers.sqlite") as store:
        for clip in workspace.clips[3:]:
            assert store.execute("DELETE FROM answers WHERE item GLOB ?", (f"{clip} *",)).rowcount == 1
    asked = []
    answer = HubModel.answer
    monkeypatch.setattr(HubModel, "answer", lambda *given: asked.append(len(given[1])) or answer(*given))
    assert workspace.caption(settings, "seen") == rows and asked == [2]


def test_an_answer_that_ends_by_itself_is_whole_and_may_be_empty(workspace, folder_of, tmp_path):
    folder = shutil.copytree(folder_of("llava"), tmp_path / "ends")
    config = json.loads((folder / "generation_config.json").read_text())
    every = list(range(400))
    (folder / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": every}))
    rows = workspace.caption(by(local(folder)), "seen")
    assert {(row["status"], row["reason"], row["raw"]) for row in rows} == {("failed", "empty", "")}


def test_each_frame_is_asked_about_and_the_captions_are_merged(workspace, folder_of):
    merging = {
        "kind": "frames_llm",
        "name": "frames",
        "prompt": "prompts/frame.txt",
        "merge_prompt": "prompts/merge.txt",
    }
    rows = workspace.caption(by(local(folder_of("llava"), precision="bfloat16", **merging)), "seen")
    assert {(row["captioner"], row["reason"]) for row in rows} == {("frames", "truncated")}
    with pytest.raises(ValueError, match="shown is video, but kind is frames_llm"):
        local("x", shown="video", **merging)


def test_a_still_that_is_no_picture_fails_its_clip_alone(workspace, folder_of):
    workspace.stills[workspace.clips[1]][0] = b"\xff\xd8\xff\xe0 no picture \xff\xd9"
    workspace.write_stills("broken")
    rows = workspace.caption(by(local(folder_of("llava"), batch=2)), "broken")
    assert [row["reason"] for row in rows] == ["truncated", "malformed", "truncated", "truncated", "truncated"]


def test_a_model_that_is_none_is_refused_at_the_door(workspace, folder_of, tmp_path):
    with pytest.raises(ValueError, match=r"captions\.captioners\.video\.revision is null"):
        workspace.caption(by(local("Qwen/Qwen3-VL-8B-Instruct")))
    with pytest.raises(ValueError, match="needs the 40 digits of a commit"):
        workspace.caption(by(local("Qwen/Qwen3-VL-8B-Instruct", revision="main")))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        workspace.caption(by(local("nowhere")))
    folder = shutil.copytree(folder_of("llava"), tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling.Own"}}))
    with pytest.raises(ValueError, match="auto_map"):
        workspace.caption(by(local(folder)))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="a pickle, which is not opened"):
        workspace.caption(by(local(folder)))


def test_a_model_that_cannot_be_asked_says_what_is_in_the_way(folder_of, tmp_path):
    folder = shutil.copytree(folder_of("llava"), tmp_path / "other")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no template of chats"):
        HubModel(folder, "float32", "cpu", "captions")
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "Qwen2_5_VLProcessor"}))
    with pytest.raises(
        ValueError, match="does not open as a processor" if tiny_vlm.HAS_TORCHVISION else "the extra vlm"
    ):
        HubModel(folder, "float32", "cpu", "captions")
    model = HubModel(folder_of("llava"), "float32", "cpu", "captions.captioners.video")
    with pytest.raises(ValueError, match=r"video\.max_tokens is 5000, after \d+ tokens"):
        model.answer(looks(1, 1), 5000)


def test_another_file_of_the_folder_is_another_model(folder_of, tmp_path):
    folder = shutil.copytree(folder_of("llava"), tmp_path / "llava")
    before = hub_files.identity(folder, str(folder), None)
    assert before == hub_files.identity(folder_of("llava"), "x", None)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert hub_files.identity(folder, str(folder), None) != before
    assert hub_files.identity(folder, "a/b", "0" * 40) == f"a/b@{'0' * 40}"


def test_code_of_a_model_is_run_nowhere():
    said = {}
    for room in ("flows", "tasks", "stiv_model", "benchmarks"):
        for path in sorted((ROOT / room).rglob("*.py")):
            text = path.read_text()
            for node in ast.walk(ast.parse(text)) if "trust_remote_code" in text else ():
                if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                    said[path.name, node.value.lineno] = ast.unparse(node.value)
    assert len(said) >= 4 and set(said.values()) == {"False"}
