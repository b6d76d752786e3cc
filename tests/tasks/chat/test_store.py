"""The store of answers: it is one for many threads and processes."""

import threading

from tasks.chat.answers import Answer
from tasks.chat.store import Answers

_ANSWER = Answer("a red circle", "stop", False, False, None, None)


def test_threads_that_open_one_new_file_at_the_same_moment_all_get_it(tmp_path):
    together, faults = threading.Barrier(8), []

    def store_one(number: int) -> None:
        for turn in range(40):
            together.wait()
            try:
                with Answers(tmp_path / f"{turn}.sqlite") as answers:
                    answers.put("asked", str(number), _ANSWER)
            except Exception as error:
                faults.append(error)

    threads = [threading.Thread(target=store_one, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    for turn in range(40):
        with Answers(tmp_path / f"{turn}.sqlite") as answers:
            assert len(answers.find("asked", [str(number) for number in range(8)])) == 8
