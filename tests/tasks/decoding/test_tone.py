"""High dynamic range comes out as the standard range shows it, in clips and in what is analysed."""

import colorsys
from pathlib import Path

import av
import numpy as np
import pytest

from tasks.decoding import decode, probe, tone
from tasks.decoding.clip_frames import clip_frames
from tasks.decoding.limits import Limits
from tests import odd_videos


@pytest.fixture(scope="module")
def limits(sandbox_settings) -> Limits:
    return Limits(**{name: getattr(sandbox_settings, name) for name in Limits._fields})


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hdr")
    return {kind: odd_videos.hdr(folder / f"{kind}.mp4", odd_videos.film()[20:30], kind) for kind in ("pq", "hlg")}


def clip(path: Path, limits: Limits) -> np.ndarray:
    found = clip_frames(str(path), limits, 0, 10**9, 10, 1, odd_videos.HEIGHT, odd_videos.WIDTH)
    assert found["status"] == "ok", found["reason"]
    return found["frames"]


def saturation(pictures: np.ndarray) -> float:
    return float(np.mean([colorsys.rgb_to_hsv(*pixel)[1] for pixel in pictures.reshape(-1, 3)[::97] / 255]))


@pytest.mark.parametrize("kind", ["pq", "hlg"])
def test_what_was_filmed_in_high_dynamic_range_looks_as_in_the_standard_one(films, limits, kind):
    wanted = np.stack(odd_videos.film()[20:30]).astype(int)
    found = clip(films[kind], limits)
    assert np.abs(found - wanted).mean() < 8
    assert saturation(found) == pytest.approx(saturation(wanted), rel=0.1)
    with decode.open_video(str(films[kind]), limits) as opened:
        pictures = list(decode.pictures(opened, decode.decoded(opened), odd_videos.WIDTH, 2))
    for small, taken in zip(pictures, found.astype(int), strict=True):
        assert np.abs(small.bgr[..., ::-1] - taken).mean() < 3
        assert small.still is None or np.abs(small.still[..., ::-1] - taken).mean() < 3
        grey = taken @ [0.299, 0.587, 0.114]
        assert np.abs(small.luma - grey).mean() < 3
        assert small.grey is None or np.abs(small.grey - grey).mean() < 3


def test_without_the_curve_it_would_be_grey(films, limits, monkeypatch):
    """What is compared above can tell."""
    monkeypatch.setattr(tone, "PQ", None)
    wanted = np.stack(odd_videos.film()[20:30]).astype(int)
    found = clip(films["pq"], limits)
    assert np.abs(found - wanted).mean() > 15
    assert saturation(found) < 0.8 * saturation(wanted)


@pytest.mark.parametrize(("kind", "transfer"), [("pq", "smpte2084"), ("hlg", "arib-std-b67")])
def test_probing_tells_how_colours_are_coded(films, limits, kind, transfer):
    probed = probe.probe(str(films[kind]), limits)
    assert (probed["transfer"], probed["primaries"], probed["colour_range"]) == (transfer, "bt2020", "limited")


def test_of_a_file_that_does_not_say_nothing_is_said(tmp_path, limits):
    probed = probe.probe(str(odd_videos.write(tmp_path / "a.mp4")), limits)
    assert (probed["transfer"], probed["primaries"], probed["colour_range"]) == (None, None, None)


def test_what_only_the_container_says_counts(tmp_path, limits):
    """As in what editors write: the stream is silent, the container's box `colr` is not."""

    def say(stream: av.VideoStream) -> None:
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace = 18, 9, 9

    silent = odd_videos.write(tmp_path / "a.mp4", odd_videos.film()[:3])
    path = odd_videos.remux(silent, tmp_path / "b.mp4", lambda number, packet: True, prepare=say)
    assert probe.probe(str(silent), limits)["transfer"] is None
    assert probe.probe(str(path), limits)["transfer"] == "arib-std-b67"


def test_colours_coded_in_a_way_that_is_not_known_are_refused(tmp_path, limits):
    path = odd_videos.hdr(tmp_path / "a.mp4", odd_videos.film()[:3], "pq", matrix=14)  # ICtCp
    probed = probe.probe(str(path), limits)
    assert (probed["status"], probed["reason"]) == ("rejected", "hdr_matrix")


def test_reference_white_is_the_same_grey_from_both(limits):
    """ITU-R BT.2408, table 1: 203 cd/m2 is 58 % of PQ and 75 % of HLG."""
    of_pq, of_hlg = (
        tone.to_sdr(np.full((1, 3), round(share * 65535), np.uint16), transfer)[0, 0].astype(int)
        for share, transfer in ((0.5807, tone.PQ), (0.75, tone.HLG))
    )
    assert of_pq == pytest.approx(of_hlg, abs=2)
    assert 215 < of_pq < 255  # what is brighter has room above


@pytest.mark.parametrize("transfer", [tone.PQ, tone.HLG])
def test_brighter_light_is_never_darker_and_the_ends_are_black_and_white(transfer):
    ramp = np.arange(0, 65536, 16, dtype=np.uint16)[:, None].repeat(3, 1)
    shown = tone.to_sdr(ramp, transfer).astype(int)
    assert np.diff(shown, axis=0).min() >= 0
    assert shown[0].tolist() == [0, 0, 0]
    assert shown[-1].min() >= 253  # the matrices of BT.2087 have four digits
    assert np.ptp(shown, axis=1).max() <= 2  # grey stays grey


def test_light_below_the_knee_stays_as_it_is_and_the_peak_becomes_white():
    light = np.array([0.1, 1.0, 10.0, 80.0, 1000.0, 4000.0])
    assert tone.curve(light) == pytest.approx([0.1, 1.0, 10.0, 80.0, 203.0, 203.0], rel=1e-6)
