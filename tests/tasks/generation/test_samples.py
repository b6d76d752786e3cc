import time

import pytest
import torch

from tasks.generation.samples import batch_threads


def test_each_of_the_threads_for_batches_has_one_of_torch_and_a_failure_lets_none_begin():
    with batch_threads("cpu") as threads:
        assert threads.submit(torch.get_num_threads).result() == 1
    done = []
    with pytest.raises(ZeroDivisionError), batch_threads("cuda") as threads:  # one batch at a time
        failed, *_ = [threads.submit(divmod, 1, 0), *(threads.submit(time.sleep, 0.05) for _ in range(4))]
        threads.submit(done.append, "the last")
        failed.result()
    assert not done
