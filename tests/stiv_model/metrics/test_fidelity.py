import numpy as np
import pytest

from stiv_model.metrics import fidelity

pytestmark = pytest.mark.usefixtures("needs_eval")

VIDEO = np.random.default_rng(0).integers(0, 256, (3, 24, 32, 3)).astype(np.uint8)


def test_psnr_is_the_mean_of_frames_and_of_equal_ones_100():
    other = VIDEO.copy()
    other[0] = np.where(other[0] < 128, other[0] + 10, other[0] - 10)
    of_ten = 20 * np.log10(255 / 10)
    assert fidelity.psnr(VIDEO, VIDEO) == 100
    assert fidelity.psnr(other, VIDEO) == pytest.approx((of_ten + 200) / 3, abs=1e-4)


def test_ssim_looks_at_each_frame_by_itself():
    each = [fidelity.ssim(VIDEO[i : i + 1], VIDEO[i : i + 1] // 2) for i in range(3)]
    assert fidelity.ssim(VIDEO, VIDEO // 2) == pytest.approx(np.mean(each), abs=1e-6)
    assert fidelity.ssim(VIDEO, VIDEO) == pytest.approx(1, abs=1e-6)
    assert fidelity.ssim(VIDEO[[1, 2, 0]], VIDEO) < 0.2


def test_other_shapes_are_refused():
    for measure in (fidelity.psnr, fidelity.ssim):
        with pytest.raises(ValueError, match="no truth"):
            measure(VIDEO, VIDEO[:2])
    with pytest.raises(ValueError, match="11 x 11"):
        fidelity.ssim(VIDEO[:, :8], VIDEO[:, :8])
