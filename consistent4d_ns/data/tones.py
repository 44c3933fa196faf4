"""High dynamic range to the tones of an ordinary picture: PQ and HLG in BT.2020 to sRGB."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

PQ, HLG = 16, 18
"""Codes of the two transfer functions in a video's tags (ITU-T H.273: SMPTE ST 2084, ARIB STD-B67)."""
REFERENCE_WHITE = 203.0
"""Luminance in cd/m^2 that becomes white: the level of graphics white in ITU-R BT.2408."""
PEAK = 1000.0
"""Peak luminance in cd/m^2 of the display that HLG is shown on (ITU-R BT.2100)."""
KNEE = 0.8
"""Linear light, 1 being white, above which tones are compressed instead of kept."""
FROM_2020 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
"""Linear BT.2020 to linear BT.709 (ITU-R BT.2087)."""
LUMINANCE_2020 = np.array([[0.2627, 0.6780, 0.0593]], np.float32)
"""Weights of luminance (ITU-R BT.2020)."""


def to_sdr(rgb: UInt16[np.ndarray, "h w 3"], transfer: int) -> UInt8[np.ndarray, "h w 3"]:
    """A picture of high dynamic range as sRGB: tones up to `KNEE` are kept, brighter ones roll off.

    Args:
        rgb: Non-linear BT.2020, 0 to 65535.
        transfer: `PQ` or `HLG`.
    """
    import cv2

    table = (_pq_light if transfer == PQ else _hlg_scene)(np.linspace(0, 1, 1 << 16, dtype=np.float32))
    light = table[rgb]
    if transfer == HLG:
        luminance = cv2.transform(light, LUMINANCE_2020)
        light *= (np.maximum(luminance, 1e-6) ** 0.2 * (PEAK / REFERENCE_WHITE))[..., None]
    light = np.maximum(cv2.transform(light, FROM_2020), 0)
    np.copyto(light, KNEE + (1 - KNEE) * (1 - np.exp((KNEE - light) / (1 - KNEE))), where=light > KNEE)
    return (_srgb(light) * 255 + 0.5).astype(np.uint8)


def _pq_light(signal: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
    """PQ to light, 1 being the reference white (SMPTE ST 2084)."""
    root = signal ** (1 / 78.84375)
    light = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
    return light ** (1 / 0.1593017578125) * np.float32(10000 / REFERENCE_WHITE)


def _hlg_scene(signal: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
    """HLG to the light of the scene in [0, 1] (ITU-R BT.2100)."""
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)


def _srgb(light: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
    """Linear light to sRGB, both in [0, 1]."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)
