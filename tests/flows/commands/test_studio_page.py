"""The page of `stiv studio`, run by Streamlit itself: what it queues, and what it shows of what was made."""

import json
import shutil
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from flows.__main__ import main
from flows.commands import named_model, studio_modes, studio_worker
from flows.commands.named_model import resolve
from flows.commands.studio_folder import FOLDER, Folder
from stiv_model.encoders.video_file import write_video
from stiv_model.network.transformer import StivTransformer
from stiv_model.weights import files
from tasks.applications import parts, studio_files
from tasks.applications.studio_jobs import Asked, Jobs
from tests.stiv_model.pipeline.test_long_video import modes, trained

ROOT = Path(__file__).parents[3]
PROMPT = "a red circle moves left"


@pytest.fixture
def page(workspace, named, monkeypatch) -> AppTest:
    """The page of an empty studio, where the model of the package is the small one."""
    # AppTest leaves its page as __main__, which every process of multiprocessing that a later test starts would run
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setenv(FOLDER, "studio")
    for module in (named_model, studio_modes):
        monkeypatch.setattr(module, "SHIPPED", named)
    return AppTest.from_file(str(ROOT / "flows/commands/studio_page.py"), default_timeout=60).run()


@pytest.fixture
def jobs() -> Jobs:
    return Folder(Path("studio")).jobs()


def work(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> studio_worker.Follower:
    """Make what waits, as the worker does."""
    follower = studio_worker.Follower(jobs)
    token = named_model.KEEPER.set(follower.open)
    try:
        while job := jobs.take():
            studio_worker.make(job, jobs, Folder(Path("studio")), follower)
    finally:
        named_model.KEEPER.reset(token)
    return follower


def made(page: AppTest, prompt: str) -> AppTest:
    page.text_area(key="option-prompt").set_value(prompt)
    page.button(key="make").click().run()
    assert not page.exception and not page.error
    return page


def texts(page: AppTest) -> str:
    return "\n".join(one.value for one in page.text)


def test_a_text_becomes_a_job_its_video_is_the_command_s_and_its_settings_fill_the_form(page, jobs, monkeypatch, named):
    page.number_input(key="option-seed").set_value(5)
    page.number_input(key="option-num_inference_steps").set_value(1)
    made(page, PROMPT)
    made(page, "another text")
    first, second = jobs.waiting()
    assert first.asked.options == {
        "prompt": PROMPT,
        "seed": 5,
        "num_inference_steps": 1,
        "pipeline": str(named),
    }
    assert PROMPT in texts(page)
    page.button(key=f"Later-{first.id}").click().run()
    assert [job.id for job in jobs.waiting()] == [second.id, first.id]
    page.button(key=f"Take it out of the queue-{second.id}").click().run()
    work(jobs, monkeypatch)
    main(["sample", "--prompt", PROMPT, "--seed", "5", "--num-inference-steps", "1", "--out", "same.mp4"])
    job = jobs.find(first.id)
    assert job.state == "done" and job.record
    assert job.out.read_bytes() == Path("same.mp4").read_bytes()
    assert job.record == json.loads(job.out.with_suffix(".json").read_text())
    page.number_input(key="option-seed").set_value(1)
    page.run()
    page.button(key="use").click().run()
    assert page.number_input(key="option-seed").value == 5
    assert page.text_area(key="option-prompt").value == PROMPT
    page.button(key="make").click().run()
    (again,) = jobs.waiting()
    assert again.asked == job.asked
    page.button(key="continue").click().run()
    assert page.session_state["mode"] == "Continue"
    assert job.out.name in texts(page)
    assert not page.exception


def test_what_a_model_has_not_learned_is_off_and_says_why_until_it_is_meant(page, jobs, checkpoint):
    shutil.copytree(checkpoint, "checkpoints/plain")
    image = Path("checkpoints/t2i")
    settings = studio_modes.params().model
    files.save(image, StivTransformer(settings, is_video=False).state_dict().items(), settings, is_video=False)
    page.pills(key="mode").set_value("Text").run()
    assert not page.button(key="model-checkpoints/plain").disabled, "nobody wrote down what it learned"
    assert page.button(key="model-checkpoints/t2i").disabled
    assert "it holds an image model" in texts(page)
    for mode in studio_modes.modes():
        page.pills(key="mode").set_value(mode.name).run()
        assert page.button(key="make").disabled == bool(mode.given), "without what it is given"
        assert not page.exception


@pytest.mark.parametrize(("clean_frames", "said"), [("first", "key frames"), (modes(keys=9, between=3), None)])
def test_a_long_video_asks_for_a_model_that_learned_both_of_its_parts(named, clean_frames, said):
    (mode,) = (mode for mode in studio_modes.modes() if mode.name == "Long")
    facts = resolve(None, str(named)).facts(studio_modes.sections_of(studio_modes.params()))
    facts = facts._replace(trained=trained(clean_frames, stride_frames=3))
    reason = studio_modes.why_not(mode, studio_modes.Model("ours", {}, facts, None), {"seconds": 1.25})
    assert (said is None and reason is None) or (reason and said in reason and "recipe long_video" in reason)


def test_a_given_picture_lies_there_once_by_its_hash_and_has_a_small_one(page, jobs, workspace):
    picture = workspace / "first.png"
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(picture)
    kept = [studio_files.keep(Path("studio/given"), name, picture.read_bytes()) for name in ("a.PNG", "b/../c.png")]
    assert kept[0] == kept[1] and [path.name for path in Path("studio/given").iterdir()] == [kept[0].name]
    page.session_state["given-image"] = str(kept[0])
    page.pills(key="mode").set_value("Image").run()
    page.session_state["given-image"] = str(kept[0])
    made(page, PROMPT)
    (job,) = jobs.waiting()
    assert job.asked.options["image"] == str(kept[0]) and job.asked.thumbnail
    assert Image.open(job.asked.thumbnail).size == (96, 96)
    page.session_state["given-image"] = "params.yaml"
    page.button(key="make").click().run()
    assert "(not_a_picture)" in texts(page) and len(jobs.waiting()) == 1


def test_a_long_video_begins_with_a_picture_where_one_is_given(page, jobs, workspace, monkeypatch):
    page.pills(key="mode").set_value("Long").run()
    page.number_input(key="option-num_inference_steps").set_value(1)
    page.number_input(key="option-seconds").set_value(0.5)
    made(page, PROMPT)
    picture = workspace / "first.png"
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(picture)
    page.session_state["given-image"] = str(studio_files.keep(Path("studio/given"), "a.png", picture.read_bytes()))
    made(page, f"{PROMPT}\n{PROMPT}")
    of_text, of_picture = jobs.waiting()
    assert "image" not in of_text.asked.options and of_text.asked.thumbnail is None
    assert Image.open(of_picture.asked.thumbnail).size == (96, 96)
    work(jobs, monkeypatch)
    done = jobs.find(of_picture.id)
    assert done.record and [one["sha256"] for one in done.record["given"]] == [sha256(picture.read_bytes()).hexdigest()]
    page.run().button(key=f"open-{of_picture.id}").click().run()
    page.button(key="use").click().run()
    page.button(key="make").click().run()
    (again,) = jobs.waiting()
    assert again.asked == of_picture.asked and not page.exception


def test_a_cancelled_long_video_goes_on_at_its_next_window_and_leaves_nothing_when_forgotten(page, jobs, monkeypatch):
    page.pills(key="mode").set_value("Long").run()
    page.number_input(key="option-num_inference_steps").set_value(1)
    page.number_input(key="option-seconds").set_value(3.0)
    made(made(page, PROMPT), PROMPT)
    first, second = jobs.waiting()
    calls = {first.id: 0, second.id: 0}
    update = studio_worker.Follower.update

    def counted(follower: studio_worker.Follower, steps: int = 1) -> None:
        running = jobs.running()
        assert running
        calls[running.id] += 1
        if calls[running.id] == 3:
            jobs.stop(running.id)
        update(follower, steps)

    monkeypatch.setattr(studio_worker.Follower, "update", counted)
    work(jobs, monkeypatch)
    assert [jobs.find(job.id).state for job in (first, second)] == ["cancelled"] * 2 and set(calls.values()) == {3}
    assert parts.folder_of(first.out).is_dir() and parts.folder_of(second.out).is_dir()
    page.run().button(key=f"forget-{second.id}").click().run()
    page.button(key=f"again-{first.id}").click().run()
    assert not page.exception
    work(jobs, monkeypatch)
    assert jobs.find(first.id).state == "done"
    assert sorted(first.out.parent.iterdir()) == [first.out.with_suffix(".json"), first.out]
    main(["long", f"--prompt={PROMPT}", "--seconds=3", "--num-inference-steps=1", "--out=same.mp4"])
    assert first.out.read_bytes() == Path("same.mp4").read_bytes()


def test_a_video_whose_file_was_taken_away_or_is_none_stands_in_nobody_s_way(page, jobs):
    for prompt in ("good", "no video", "gone"):
        jobs.add(Asked("Text", "sample", {"prompt": prompt, "seed": 0}, "small", None))
        added = jobs.take()
        assert added
        added.out.parent.mkdir(exist_ok=True)
        write_video(added.out, np.zeros((9, 16, 16, 3), np.uint8), 8)
        jobs.end(added.id, "done", record={})
    jobs.find(2).out.write_bytes(b"no video")
    jobs.find(3).out.unlink()
    page.run()
    assert not page.exception and "its file is gone" in texts(page)
    assert page.button(key="other-2").disabled, "the latest that is there is shown"
    page.button(key="open-3").click().run()
    assert [one.value for one in page.warning] == ["The file of this video is gone."] and not page.exception


def test_what_needs_a_prompt_is_not_queued_without_one(page, jobs):
    page.button(key="make").click().run()
    assert page.error and "no prompt is given" in texts(page) and not jobs.waiting()


def test_a_value_of_none_at_all_is_one_that_was_said(page, jobs):
    page.number_input(key="option-guidance_scale").set_value(0.0)
    made(page, PROMPT)
    (job,) = jobs.waiting()
    assert job.asked.options["guidance_scale"] == 0


def test_a_file_larger_than_is_taken_is_refused_with_both_numbers(monkeypatch, tmp_path):
    monkeypatch.setattr(studio_files, "MOST_BYTES", 3)
    with pytest.raises(ValueError, match=r"^a\.png has 4 bytes, but 3 at most"):
        studio_files.keep(tmp_path, "a.png", b"1234")
    assert not list(tmp_path.iterdir())


def test_a_job_that_is_cancelled_ends_within_a_sampling_step_and_the_model_is_kept(workspace, named, jobs, monkeypatch):
    asked = Asked(
        "Text", "sample", {"prompt": PROMPT, "num_inference_steps": 50, "pipeline": str(named)}, "small", None
    )
    number, refused, good = (
        jobs.add(asked),
        jobs.add(asked._replace(options=asked.options | {"image": "absent.png"})),
        jobs.add(asked._replace(options=asked.options | {"num_inference_steps": 1})),
    )
    steps = list[int]()
    update = studio_worker.Follower.update

    def counted(follower: studio_worker.Follower, done: int = 1) -> None:
        steps.append(done)
        if len(steps) == 2:
            jobs.stop(number)
        update(follower, done)

    monkeypatch.setattr(studio_worker.Follower, "update", counted)
    loaded = list[object]()
    load = named_model.NamedModel._load
    monkeypatch.setattr(named_model.NamedModel, "_load", lambda *asked: loaded.append(1) or load(*asked))
    work(jobs, monkeypatch)
    assert [jobs.find(one).state for one in (number, refused, good)] == ["cancelled", "failed", "done"]
    assert len(steps) == 2 + 1 and len(loaded) == 1
    assert not jobs.find(number).out.exists()
    said = jobs.find(refused).error
    assert said and "absent.png" in said and "\n" not in said
    assert {path.name for path in Path("studio").iterdir()} == {"jobs.sqlite", "small", "videos"}
