"""Units of work where no flow run of Prefect is shown: done here, and tried again as their tasks say."""

import pytest
from prefect import task

from tasks.operations.task_runs import call, is_shown

tried: list[str] = []


@task(retries=2)
def fails(times: int, error: Exception) -> str:
    tried.append("once")
    if len(tried) <= times:
        raise error
    return "done"


@pytest.fixture(autouse=True)
def nothing_tried():
    tried.clear()


def test_what_fails_is_tried_again_as_often_as_its_task_says():
    assert not is_shown()
    assert call(fails, 2, OSError("a")) == "done"
    assert len(tried) == 3


def test_the_last_failure_is_that_of_the_work():
    with pytest.raises(OSError, match="a"):
        call(fails, 3, OSError("a"))
    assert len(tried) == 3


def test_what_cannot_go_well_is_not_tried_again():
    told = []

    def may_go_well(_task: object, run: object, state: object) -> bool:
        told.append(str(state))
        return "asked to stop" not in str(state)

    with pytest.raises(RuntimeError, match="asked to stop"):
        call(fails.with_options(retry_condition_fn=may_go_well), 1, RuntimeError("asked to stop: saved"))
    assert len(tried) == 1
    assert len(told) == 1
