"""Figures of the STIV paper (arXiv 2412.07730): scores of VBench and the means of its dimensions, both in percent."""

T2V = (
    "subject_consistency",
    "background_consistency",
    "temporal_flickering",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
    "object_class",
    "multiple_objects",
    "human_action",
    "color",
    "spatial_relationship",
    "scene",
    "appearance_style",
    "temporal_style",
    "overall_consistency",
)
I2V = (*T2V[:7], "i2v_subject", "i2v_background", "camera_motion")

# Tab. 9 and 11: quality, semantic, total; then the dimensions in the order of T2V
TEXT_TO_VIDEO = {
    "XL": ("80.7 72.5 79.1", "96.0 98.5 98.4 96.5 62.5 56.3 59.3 91.5 41.3 98.0 86.4 42.4 54.4 22.4 26.3 27.8"),
    "XXL": ("81.2 72.7 79.5", "97.5 98.9 99.1 98.2 48.6 56.2 59.7 91.1 49.1 99.0 90.8 45.1 45.5 22.1 26.1 27.4"),
    "M-256": ("82.1 74.8 80.6", "96.0 98.5 98.6 97.2 68.1 57.0 60.8 88.8 62.1 98.0 83.6 44.5 54.7 22.5 26.6 28.4"),
    "M-512": ("82.2 77.0 81.2", "95.9 96.9 98.8 98.0 59.7 60.6 62.5 85.9 72.4 96.0 91.2 51.0 53.6 23.9 25.8 27.8"),
    "M-512 SFT": ("83.9 78.3 82.8", "96.7 97.4 98.7 98.3 70.8 61.7 63.9 88.1 67.7 97.0 93.7 58.0 52.8 24.6 26.2 28.5"),
    "M-512 SFT+TUP": (
        "84.2 78.5 83.1",
        "94.8 95.9 98.7 99.2 70.8 63.7 65.0 88.9 70.3 95.0 94.7 50.6 57.3 24.5 26.7 28.6",
    ),
    "M-512 UnmaskSFT": (
        "83.7 79.5 82.9",
        "94.3 96.9 98.8 96.7 77.8 61.4 68.6 90.0 72.3 97.0 92.0 59.8 53.1 24.8 26.7 28.8",
    ),
    "M-512 UnmaskSFT+TUP": (
        "84.4 77.2 83.0",
        "95.2 95.8 98.8 99.2 70.8 63.6 65.9 90.0 69.8 94.0 87.7 46.9 57.1 24.5 26.6 28.5",
    ),
}
# Tab. 15 and 16, printed with two decimals
STARTS = {
    "512 scratch": (
        "80.27 67.84 77.78",
        "93.1 97.1 97.9 97.3 61.4 58.6 58.6 87.0 29.7 95.4 88.3 33.8 46.9 21.6 25.8 26.4",
    ),
    "512 T2V-256": (
        "80.28 71.29 78.49",
        "91.9 97.1 98.0 97.5 58.6 59.4 59.7 91.2 45.7 95.8 89.0 36.3 50.0 21.9 25.8 27.3",
    ),
    "512 T2I-512": (
        "79.77 71.58 78.13",
        "92.3 97.2 98.2 97.0 52.2 60.0 59.3 88.8 47.4 96.4 87.9 37.0 49.1 22.5 26.2 27.8",
    ),
    "512 both": (
        "80.45 72.37 78.83",
        "92.4 97.3 98.3 97.4 53.9 60.7 60.6 88.2 49.7 96.0 88.1 36.7 52.3 22.8 26.3 28.0",
    ),
    "40 T2I": ("78.71 65.69 76.10", "93.2 98.1 98.7 95.2 57.8 54.2 58.2 84.6 30.8 92.2 85.0 29.9 45.2 21.1 25.0 26.0"),
    "40 T2V int": (
        "79.56 65.42 76.73",
        "91.7 97.7 97.7 96.8 64.7 54.7 59.2 86.9 25.5 95.4 85.3 28.6 41.4 21.2 25.3 26.6",
    ),
    "40 T2V ext": (
        "79.18 64.63 76.27",
        "91.3 97.5 97.8 96.9 58.6 54.6 60.0 86.1 28.5 95.2 84.2 25.9 36.8 20.9 25.6 26.8",
    ),
    "40 T2V 2x": (
        "79.59 66.24 76.92",
        "91.0 97.3 97.2 97.0 70.3 54.1 59.4 85.8 29.3 94.0 87.7 28.6 44.2 20.9 25.7 26.7",
    ),
}
# Tab. 10 and 12: quality, I2V, total; then the dimensions in the order of I2V. Left out: I2VGen-XL and SVD, each with a
# cell that is printed wrong.
IMAGE_TO_VIDEO = {
    "VideoCrafter-I2V": ("81.3 89.0 85.1", "97.9 98.8 98.2 98.0 22.6 60.8 71.7 91.2 91.3 33.6"),
    "Consistent-I2V": ("78.9 94.8 86.8", "95.3 98.3 97.6 97.4 18.6 59.0 66.9 95.8 96.0 33.9"),
    "DynamiCrafter-256": ("80.2 96.6 88.4", "94.7 98.3 98.1 97.8 40.6 58.7 62.3 97.1 97.6 20.9"),
    "SEINE-512": ("80.6 96.3 88.4", "95.3 97.1 97.3 97.1 27.1 64.6 71.4 97.2 96.9 21.0"),
    "DynamiCrafter-512": ("81.6 96.6 89.1", "93.8 96.6 95.6 96.8 69.7 60.9 68.6 97.2 97.4 32.0"),
    "Animate-Anything": ("81.2 98.3 89.8", "98.9 98.2 98.1 98.6 2.7 67.1 72.1 98.8 98.6 13.1"),
}
STIV_M_512_IMAGE = ("82.1 98.0 90.1", "99.5 99.3 99.5 99.6 10.2 62.5 71.5 99.2 97.3 13.2")


def row(cells: tuple[str, str], dimensions: tuple[str, ...]) -> tuple[list[float], dict[str, float]]:
    """Return the three scores of a row in percent, and its means by dimension, fractions."""
    printed, means = ([float(word) for word in part.split()] for part in cells)
    return printed, {name: value / 100 for name, value in zip(dimensions, means, strict=True)}
