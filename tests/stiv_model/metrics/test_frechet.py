import numpy as np
import pytest

from stiv_model.metrics import frechet

pytestmark = pytest.mark.usefixtures("needs_eval")

RANDOM = np.random.default_rng(0)
REAL, FAKE = RANDOM.normal(size=(90, 12)), RANDOM.normal(0.3, 1.4, size=(70, 12))


def with_moments(mean: np.ndarray, deviations: np.ndarray, n: int) -> np.ndarray:
    """Rows whose mean and covariance (of n - 1) are these, exactly: the covariance is diagonal."""
    drawn = np.random.default_rng(1).normal(size=(n, len(mean)))
    white, _ = np.linalg.qr(drawn - drawn.mean(axis=0))
    return mean + white * np.sqrt(n - 1) * deviations


def test_the_distance_of_gaussians_is_that_of_the_closed_form():
    means, deviations = RANDOM.normal(size=(2, 8)), RANDOM.uniform(0.5, 2, size=(2, 8))
    real, fake = (with_moments(mean, deviation, 64) for mean, deviation in zip(means, deviations, strict=True))
    expected = ((means[0] - means[1]) ** 2).sum() + ((deviations[0] - deviations[1]) ** 2).sum()
    assert frechet.frechet_distance(real, fake) == pytest.approx(expected, abs=1e-6)


def test_rows_that_stream_in_and_shards_that_are_merged_give_the_distance_of_all_at_once():
    whole = frechet.frechet_distance(REAL, FAKE)
    stream, one, other = (frechet.frechet_stream(12) for _ in range(3))
    for row in REAL:
        stream.update(frechet._as_rows(row[None]), real=True)
    for row in FAKE:
        stream.update(frechet._as_rows(row[None]), real=False)
    for shard, part in ((one, slice(0, 40)), (other, slice(40, None))):
        shard.update(frechet._as_rows(REAL[part]), real=True)
        shard.update(frechet._as_rows(FAKE[part]), real=False)
    one.merge_state(other)
    assert float(stream.compute()) == pytest.approx(whole, rel=1e-9)
    assert float(one.compute()) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "features"), [(90, 70, 12), (10, 7, 40)])
def test_what_the_bootstrap_computes_is_the_librarys_distance(n, m, features):
    real, fake = RANDOM.normal(size=(n, features)), RANDOM.normal(0.3, 1.4, size=(m, features))
    assert frechet._distance_of_rows(real, fake) == pytest.approx(frechet.frechet_distance(real, fake), rel=1e-6)


def test_a_set_has_no_distance_from_itself():
    many = RANDOM.normal(0, 5, size=(20, 400))
    assert abs(frechet.frechet_distance(many, many)) < 0.01
    assert abs(frechet.kernel_distance(REAL, REAL[::-1])) < frechet.kernel_distance(REAL[:70], FAKE)


def test_the_kernel_distance_is_the_unbiased_one_of_the_cubic_kernel():
    real = REAL[:70]

    def mean_kernel(a: np.ndarray, b: np.ndarray, is_same: bool) -> float:
        kernel = (a @ b.T / a.shape[1] + 1) ** 3
        return (kernel.sum() - np.trace(kernel)) / (len(a) * (len(a) - 1)) if is_same else kernel.mean()

    expected = mean_kernel(real, real, True) + mean_kernel(FAKE, FAKE, True) - 2 * mean_kernel(real, FAKE, False)
    assert frechet.kernel_distance(real, FAKE) == pytest.approx(expected, rel=1e-9)


def test_the_kernel_distance_of_sets_of_two_sizes_is_the_same_each_time():
    assert frechet.kernel_distance(REAL, FAKE) == frechet.kernel_distance(REAL, FAKE)


def test_the_interval_holds_the_distance_and_is_narrower_with_more_clips():
    few, many = frechet.bootstrap_interval(REAL[:20], FAKE[:20]), frechet.bootstrap_interval(REAL, FAKE)
    assert many.low < frechet.frechet_distance(REAL, FAKE) < many.high
    assert many.high - many.low < few.high - few.low


def test_the_line_over_one_by_n_ends_nearer_to_the_truth_than_any_n():
    random = np.random.default_rng(3)
    curve = frechet.curve_over_n(random.normal(size=(160, 8)), random.normal(size=(160, 8)))  # truth: 0
    assert [point.n for point in curve.points] == sorted({point.n for point in curve.points})
    assert abs(curve.at_infinity) < curve.points[-1].distance
    assert curve.points[0].distance > curve.points[-1].distance


@pytest.mark.parametrize(
    ("real", "fake", "said"),
    [
        (REAL[:1], FAKE, "1 real clips"),
        (REAL, FAKE[:0], "0 made clips"),
        (REAL, np.where(np.arange(70)[:, None] == 3, np.nan, FAKE), "made clip 3"),
        (REAL, FAKE[:, :5], "12 features"),
    ],
)
def test_features_without_a_distance_are_refused(real, fake, said):
    for distance in (frechet.frechet_distance, frechet.kernel_distance):
        with pytest.raises(ValueError, match=said):
            distance(real, fake)


def test_a_curve_needs_clips():
    with pytest.raises(ValueError, match="12 clips"):
        frechet.curve_over_n(REAL, FAKE[:11])
