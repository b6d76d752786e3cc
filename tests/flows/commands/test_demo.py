"""What `stiv demo` says at its end."""

from flows.commands.demo import judgement_lines
from flows.running import stage_names
from tasks.evaluation import judge


def row(held_out: bool, shape_is_right: bool) -> dict[str, object]:
    right = {"colour": True, "shape": shape_is_right, "direction": False}
    seen = {"colour": "red", "shape": "circle", "direction": None}
    return {"held_out": held_out, "right": right, "seen": seen} | dict.fromkeys(judge.PROPERTIES, True)


def test_what_the_judge_found_is_told_for_each_mode_and_kind_of_combination():
    rows = [row(True, True), row(True, False), row(False, True)]
    found = "moved 100%, one object 100%, same object 100%, colour 100%"
    assert judgement_lines({"modes": {"t2v": judge.by_combinations(rows)}}) == [
        f"judge, t2v, held out, 2 videos: {found}, shape 50%, direction 0%",
        f"judge, t2v, seen, 1 videos: {found}, shape 100%, direction 0%",
    ]


def test_the_last_stages_make_the_one_page_and_the_one_file_of_figures_that_the_demo_tells_of():
    assert stage_names.outputs("report") == ("reports/report.html",)
    assert stage_names.metrics("judge") == ("reports/judge.json",)
