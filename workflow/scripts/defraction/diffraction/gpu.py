"""The methods laue and nufft on a GPU.

All patterns of a condition go through a few launches, within an explicit memory budget. No matrix product is used, so
that TF32 never comes into play, and no kernel adds to memory of another thread, so that two runs give the same bits.
"""

from defraction.diffraction.gpu_laue import laue_intensities
from defraction.diffraction.gpu_planes import nufft_intensities

__all__ = ["laue_intensities", "nufft_intensities"]
