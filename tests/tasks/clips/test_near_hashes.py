"""Hashes that differ in few bits: that the bands of the search leave no pair unseen."""

import numpy as np
import pyarrow as pa
import pytest

from tasks.clips.near_hashes import bands, matrix


@pytest.mark.parametrize("count", [10, 10**6])
@pytest.mark.parametrize("bits", [0, 7, 24, 64])
def test_bands_do_not_overlap_and_leave_no_pair_unseen(bits, count):
    found = bands(256, bits, count)
    covered = [place for band in found for place in range(band.first, band.first + band.width)]
    assert sorted(covered) == sorted(set(covered))
    # a pair that no band finds differs in more than its flips in each band looked at: in more than `bits` in all
    assert sum(band.flips + 1 for band in found) > bits


def test_hashes_of_several_lengths_are_refused():
    with pytest.raises(ValueError, match=r"\[32, 64\] bytes"):
        matrix([(np.arange(1), pa.array([bytes(32)])), (np.arange(1, 2), pa.array([bytes(64)]))], 2)
