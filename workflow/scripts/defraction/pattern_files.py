"""Files of patterns (docs/data-format.md), opened and checked in one place; netCDF only, so that it imports quickly."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import netCDF4

DIMENSIONS = ("zone_axis", "voltage", "camera_length", "snapshot", "y", "x")


def read_patterns(path: Path | str) -> "netCDF4.Dataset":
    """Open a file of patterns without reading it: ``read_patterns(path)["intensity"][0, 1, 2]`` reads three axes of it.

    Use it in a ``with`` block. Values are plain arrays, never masked ones. ``xarray.open_dataset(path)`` reads the same
    file with labelled axes.

    Raises ValueError naming the file if it holds no patterns.
    """
    import netCDF4

    file = netCDF4.Dataset(path, "r")
    file.set_auto_mask(False)
    if "intensity" not in file.variables or file.variables["intensity"].dimensions != DIMENSIONS:
        file.close()
        raise ValueError(f"{path}: holds no variable intensity {DIMENSIONS}; is it a file of patterns?")
    return file
