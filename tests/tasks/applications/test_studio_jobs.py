"""Jobs of a studio: their order, who makes them, and what is left when a process is gone."""

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from tasks.applications.studio_jobs import PAGE, Asked, Jobs, Progress, Videos


def asked(prompt: str, seed: int = 0, model: str = "shapes") -> Asked:
    return Asked("Text", "sample", {"prompt": prompt, "seed": seed, "guidance_scale": 2.0}, model, None)


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return opened(tmp_path)


def opened(folder: Path) -> Jobs:
    return Jobs(folder / "jobs.sqlite", folder / "videos")


def waiting(jobs: Jobs) -> list[str]:
    return [job.prompt for job in jobs.waiting()]


def test_jobs_are_made_in_the_order_that_they_were_put_into(jobs):
    first, second, third = (jobs.add(asked(name)) for name in ("first", "second", "third"))
    jobs.move(third, -1)
    assert waiting(jobs) == ["first", "third", "second"]
    jobs.move(third, -1)
    jobs.move(third, -1)  # it is the first already
    jobs.move(second, 1)  # and this the last
    assert waiting(jobs) == ["third", "first", "second"]
    jobs.remove(first)
    taken = [jobs.take(), jobs.take(), jobs.take()]
    assert [job and job.id for job in taken] == [third, second, None]
    assert taken[0] and taken[0].state == "running" and taken[0].asked == asked("third")


def test_every_job_has_a_file_of_its_own_in_the_folder_of_videos(jobs, tmp_path):
    numbers = [jobs.add(asked("red", seed)) for seed in (3, 3)]
    jobs.remove(numbers[1])
    numbers.append(jobs.add(asked("red", 3)))  # a number is never given twice: a file of its name may be there
    outs = [tmp_path / "videos" / f"{number:06d}-seed3.mp4" for number in (1, 3)]
    assert [job.out for job in jobs.waiting()] == outs


def test_a_verb_that_makes_a_folder_has_its_video_in_one_of_its_own(tmp_path):
    jobs = Jobs(tmp_path / "jobs.sqlite", tmp_path / "videos", {"views": "orbit.mp4"})
    jobs.add(asked("")._replace(verb="views"))
    jobs.add(asked("red"))
    views, video = jobs.waiting()
    assert views.out == tmp_path / "videos" / views.name / "orbit.mp4"
    assert video.out == tmp_path / "videos" / f"{video.name}.mp4"


def test_a_cancelled_job_is_never_made_and_a_running_one_is_told_to_stop(jobs):
    running, queued = jobs.add(asked("a")), jobs.add(asked("b"))
    assert jobs.take()
    jobs.stop(queued)
    assert jobs.take() is None and jobs.find(queued).state == "cancelled"
    assert not jobs.is_stopping(running)
    jobs.stop(running)
    assert jobs.is_stopping(running) and jobs.find(running).state == "running"
    jobs.end(running, "cancelled")
    assert {job.id for job in jobs.without_video()} == {running, queued}
    jobs.queue_again(running)
    assert waiting(jobs) == ["a"] and {job.id for job in jobs.without_video()} == {queued}
    assert (taken := jobs.take()) and taken.id == running and not taken.is_stopping


def test_what_was_being_made_when_its_process_died_is_told_and_can_be_queued_again(jobs, tmp_path):
    number, later = jobs.add(asked("a")), jobs.add(asked("b"))
    jobs.take()
    jobs.tell(number, Progress(3, 10, 1, 2, 6.0))
    here = opened(tmp_path)  # a server that started again
    assert here.end_those_of_the_dead("it ended") == 1
    found = here.find(number)
    assert (found.state, found.error) == ("failed", "it ended")
    assert [job.id for job in here.waiting()] == [later], "what waited still waits"
    here.queue_again(number)
    here.queue_again(number)  # another page did so too
    assert waiting(here) == ["b", "a"]
    again = here.waiting()[1]
    assert (again.id, again.out, again.error) == (number, found.out, None), "so that what was begun is gone on with"


def test_a_prompt_for_each_key_frame_is_kept_when_a_job_is_queued_again(jobs):
    number = jobs.add(Asked("Long", "long", {"prompts": "given/a.txt", "seed": 1}, "ours", None), "one\nthe other")
    jobs.stop(number)
    jobs.queue_again(number)
    (again,) = jobs.waiting()
    assert again.prompt == "one\nthe other" and again.asked.options == {"prompts": "given/a.txt", "seed": 1}


def test_a_video_is_found_by_words_seed_and_model_and_never_removed(jobs):
    for seed in range(3):
        for model in ("shapes", "checkpoints/sft"):
            number = jobs.add(asked(f"a Red circle {seed}", seed, model))
            jobs.take()
            jobs.end(number, "done", record={"sha256": "0"})
    jobs.remove(number)
    assert jobs.videos(Videos())[0] == 6
    count, found = jobs.videos(Videos(words="red CIRCLE", seed=1, model="checkpoints/sft"))
    assert count == 1 and (found[0].prompt, found[0].record) == ("a Red circle 1", {"sha256": "0"})
    assert jobs.videos(Videos(words="%"))[0] == 0, "a sign is a sign"
    assert jobs.models() == ["checkpoints/sft", "shapes"]


def test_a_video_is_compared_with_those_of_its_text_and_seed(jobs):
    for prompt, seed in (("red", 1), ("red", 1), ("a red one", 1), ("red", 2), ("", 1)):
        jobs.add(asked(prompt, seed))
        added = jobs.take()
        jobs.end(added.id, "done")
    jobs.add(asked("red", 1))  # which is no video yet
    assert [job.id for job in jobs.like(jobs.find(1))] == [2]
    assert jobs.like(jobs.find(5)) == [], "no text is not like any"


def test_a_page_of_the_gallery_has_the_latest_videos_first(jobs):
    for _ in range(PAGE + 1):
        jobs.end(jobs.add(asked("a")), "done", record={"sha256": "0"})
    count, first = jobs.videos(Videos())
    assert (count, first[0].id, len(first)) == (PAGE + 1, PAGE + 1, PAGE)
    assert [job.id for job in jobs.videos(Videos(), page=1)[1]] == [1]


def test_the_time_left_counts_steps_and_calls_of_the_model():
    assert Progress().share is None and Progress(0, 10, 1, 2).seconds_left is None
    half = Progress(5, 10, 2, 3, seconds=30)
    assert half.share == 0.5 and half.seconds_left == 30
    assert Progress(5, 10, 1, 0, 3).share is None, "how many calls are left is not known"


def take_all(folder: Path) -> list[int]:
    jobs, taken = opened(folder), []
    while job := jobs.take():
        taken.append(job.id)
        jobs.end(job.id, "done")
    return taken


def test_two_processes_never_take_one_job(jobs, tmp_path):
    numbers = [jobs.add(asked("a")) for _ in range(40)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        taken = pool.map(take_all, [tmp_path] * 2)
    assert sorted(taken[0] + taken[1]) == numbers


def test_another_file_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "jobs.sqlite").write_text("something else " * 100)
    with pytest.raises(ValueError, match=r"jobs\.sqlite holds no jobs \(.*\): move .* away"):
        opened(tmp_path)
    assert (tmp_path / "jobs.sqlite").read_text().startswith("something else")
    with sqlite3.connect(tmp_path / "later.sqlite") as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(ValueError, match="is of layout 9, not 1"):
        Jobs(tmp_path / "later.sqlite", tmp_path)
