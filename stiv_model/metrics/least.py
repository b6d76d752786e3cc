"""What is too small to be measured; without torch, for those who ask before they load it."""

I3D_FRAMES = 9
"""Frames of a clip for I3D: with 8, time is 1 before the last pooling, which is over 2."""
SSIM_SIDE = 11
"""Height and width for SSIM, pixels: that of its window."""
LPIPS_SIDE = 32
"""Height and width for LPIPS, pixels: of a smaller picture AlexNet's last layers see hardly anything."""
