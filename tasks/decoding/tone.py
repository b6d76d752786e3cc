"""Pictures of high dynamic range (PQ and HLG, ITU-R BT.2100) brought to the standard one.

1. Light as it is displayed, cd/m2: of PQ by its EOTF; of HLG by its inverse OETF and its OOTF, of a display of 1000
   cd/m2 (system gamma 1.2).
2. The tone curve EETF of ITU-R BT.2390-10, 5.4.1, from a peak of 1000 cd/m2 to 203, the reference white of BT.2408:
   with E1 = PQ(light) / PQ(1000), M = PQ(203) / PQ(1000), K = 1.5 M - 0.5, light below E1 = K stays as it is, and above

       E2 = (2 T^3 - 3 T^2 + 1) K + (T^3 - 2 T^2 + T)(1 - K) + (3 T^2 - 2 T^3) M,    T = (E1 - K) / (1 - K)

   It is taken of the largest of red, green and blue, and the others follow in proportion: hues stay.
3. Primaries of BT.2020 to those of BT.709, in linear light; what is outside is cut off (BT.2407, 2).
4. The inverse of BT.1886: the 2.4th root, 203 cd/m2 becoming 255.

What a file says of its own peak (MaxCLL, the mastering display) is not looked at: it stands in the first key frame
only, and a clip would have other colours than the video. Brighter light than 1000 cd/m2 is shown as that.
"""

from functools import lru_cache

import numpy as np

PQ, HLG = 16, 18  # transfer characteristics of ITU-T H.273
BT2020 = 9  # matrix coefficients of ITU-T H.273

_PEAK, _WHITE = 1000.0, 203.0  # cd/m2
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
_GAMMA_SYSTEM, _GAMMA_DISPLAY = 1.2, 2.4
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)  # the inverse of the matrix of BT.2087
_STEPS = 65535  # of every table


def to_sdr(rgb: np.ndarray, transfer: int) -> np.ndarray:
    """Return a picture as a display of standard range shows it, uint8 (..., 3).

    Args:
        rgb: uint16 (..., 3), coded by `transfer`, full range: 0 to 65535 is 0 to 1; primaries of BT.2020.
        transfer: PQ or HLG.
    """
    light = _light(transfer)[rgb]
    if transfer == HLG:
        scene = light @ _LUMA
        light *= (_PEAK * scene ** np.float32(_GAMMA_SYSTEM - 1))[..., None]
    gain = _gain()[_index(light.max(axis=-1) / np.float32(_PEAK))]
    shown = (light * gain[..., None]) @ _TO_BT709.T
    return _coded()[_index(shown)]


def _index(share: np.ndarray) -> np.ndarray:
    """Return where a table has a share of its range: by the square root, which gives dark light its steps."""
    return (np.sqrt(share.clip(0, 1)) * np.float32(_STEPS)).astype(np.uint16)


@lru_cache(maxsize=2)
def _light(transfer: int) -> np.ndarray:
    """Return by code value the light, cd/m2, or of HLG the light of the scene, 0 to 1."""
    coded = np.arange(_STEPS + 1) / _STEPS
    if transfer == PQ:
        return _from_pq(coded).astype(np.float32)
    return np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - _C) / _A) + _B) / 12).astype(np.float32)


@lru_cache(maxsize=1)
def _gain() -> np.ndarray:
    """Return by light, as a share of the peak, what it is multiplied by to be a share of the standard white."""
    light = np.maximum((np.arange(_STEPS + 1) / _STEPS) ** 2, 1e-12) * _PEAK
    return (curve(light) / light / _WHITE).astype(np.float32)


@lru_cache(maxsize=1)
def _coded() -> np.ndarray:
    share = (np.arange(_STEPS + 1) / _STEPS) ** 2
    return np.rint(255 * share ** (1 / _GAMMA_DISPLAY)).astype(np.uint8)


def curve(light: np.ndarray) -> np.ndarray:
    """Return the EETF of BT.2390: light, cd/m2, up to 1000, as light up to 203."""
    peak = _to_pq(np.array(_PEAK))
    given = np.minimum(_to_pq(light) / peak, 1)
    most = float(_to_pq(np.array(_WHITE)) / peak)
    knee = 1.5 * most - 0.5
    t = np.maximum(given - knee, 0) / (1 - knee)
    bent = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return _from_pq(np.where(given < knee, given, bent) * peak)


def _to_pq(light: np.ndarray) -> np.ndarray:
    """Return the PQ code, 0 to 1, of light in cd/m2 (BT.2100, table 4)."""
    power = (light / 10_000) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def _from_pq(coded: np.ndarray) -> np.ndarray:
    power = coded ** (1 / _M2)
    return 10_000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)
