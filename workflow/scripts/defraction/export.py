"""Patterns for other programs: HyperSpy and pyxem signals, PNG and TIFF images.

Every function takes patterns as a netCDF file (read pattern by pattern) or as the dataset in memory that
:func:`defraction.diffraction.patterns.simulate` returns.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defraction.diffraction.geometry import wavelength

if TYPE_CHECKING:
    import xarray

NAVIGATION = ("zone_axis", "voltage", "camera_length", "snapshot")
FORMAT_VERSION = "3.3"  # of HyperSpy's hierarchical format, which hyperspy 2 reads
IMAGE_KINDS = ("png", "tiff")
DECADES = 5.0  # of intensity in a PNG
DIRECT_BEAM = 4.0  # px; what is nearer to the optic axis does not set the scale of a PNG


@dataclass(frozen=True)
class Source:
    """Opened patterns: arrays by name (``intensity`` is read piece by piece) and the attributes of the file."""

    variables: Mapping[str, Any]
    attributes: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of zone_axis, voltage, camera_length, snapshot, y, x."""
        return self.variables["intensity"].shape

    def image(self, index: tuple[int, ...]) -> np.ndarray:
        """Return the intensities of one pattern, float32 (y, x)."""
        return np.asarray(self.variables["intensity"][index], dtype=np.float32)

    def facts(self, index: tuple[int, ...]) -> dict:
        """Return what tells this pattern from the others, with the width of its pixels, as plain values."""
        zone, v, c, snapshot = index
        pitch = self.pitch
        voltage, length = float(self.variables["voltage"][v]), float(self.variables["camera_length"][c])
        return {
            "zone_axis": [int(n) for n in self.variables["uvw"][zone]],
            "voltage_kV": voltage,
            "camera_length_m": length,
            "snapshot": int(self.variables["snapshot"][snapshot]),
            "structure": str(self.variables["structure"][snapshot]),
            "pixel_mm": pitch,
            "pixel_per_angstrom_at_centre": 1e-3 * pitch / (length * wavelength(voltage)),
        }

    @property
    def pitch(self) -> float:
        """Width of a pixel [mm]."""
        x = np.asarray(self.variables["x"], dtype=float)
        return float(x[-1] - x[0]) / (len(x) - 1)

    def plain_attributes(self) -> dict:
        """Return the attributes of the file as text, numbers and lists."""
        return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in self.attributes.items()}


@contextlib.contextmanager
def open_source(patterns: "Path | str | xarray.Dataset") -> Iterator[Source]:
    """Open a netCDF file of patterns, or take a dataset; ValueError if it holds no patterns."""
    if not isinstance(patterns, Path | str):
        yield Source({name: patterns[name].values for name in (*patterns.data_vars, *patterns.coords)}, patterns.attrs)
        return
    from defraction.diffraction.patterns import read_patterns

    with read_patterns(Path(patterns)) as file:
        variables = {name: file[name] if name == "intensity" else file[name][...] for name in file.variables}
        yield Source(variables, {name: file.getncattr(name) for name in file.ncattrs()})


# --- HyperSpy and pyxem ----------------------------------------------------------------------------------------------


def write_signal(patterns: "Path | str | xarray.Dataset", path: Path | str) -> None:
    """Write patterns as a HyperSpy signal of type ``electron_diffraction``: `.hspy` (HDF5) or `.zspy` (zarr, a folder).

    HyperSpy opens it; with pyxem installed it is an ``ElectronDiffraction2D``. The navigation axes are zone_axis,
    voltage, camera_length and snapshot, in this order in the array and in reverse in ``inav``, those of length 1 left
    out. zone_axis and snapshot count from 0, the others have their values [kV], [m]. The signal axes are in 1/Å at the
    centre of the detector (units ``k_A^-1``, as pyxem calls k = 1/d) if there is one voltage and one camera length, and
    in mm on the detector otherwise. ``metadata.Acquisition_instrument.TEM`` has beam_energy [kV], camera_length [mm],
    pixel_size and detector_distance [m] where they are single; ``original_metadata`` has all attributes of the file.

    An existing ``path`` is overwritten. Raises ValueError for another extension or a source without patterns.

    The layout is that of HyperSpy's format 3 as rosettasciio documents it. It is written here because rosettasciio
    (0.15) writes zarr only with zarr 2, and larger data than fit into memory only through dask.
    """
    path = Path(path)
    if path.suffix not in (".hspy", ".zspy"):
        raise ValueError(f"{path}: a HyperSpy signal ends in .hspy or .zspy")
    with open_source(patterns) as source, _open_store(path) as (root, create):
        title = re.sub(r"[/\s]+", " ", str(source.attributes.get("structures", "patterns"))).strip() or "patterns"
        experiment = root.require_group("Experiments").require_group(title)
        # HyperSpy would import the package named here for the class of the signal; signal_type is enough
        experiment.attrs.update({"package": "", "package_version": ""})
        axes = signal_axes(source)
        for number, axis in enumerate(axes):
            _fill(experiment.require_group(f"axis-{number}"), axis, create)
        _fill(experiment.require_group("metadata"), _metadata(source, title), create)
        _fill(experiment.require_group("original_metadata"), _original_metadata(source), create)
        _fill(experiment.require_group("attributes"), {"_lazy": False, "ragged": False}, create)
        experiment.require_group("learning_results")
        shape, pixels = source.shape[:4], source.shape[4:]
        kept = tuple(n for n in shape if n > 1)
        data = create(experiment, "data", (*kept, *pixels), (*(1 for _ in kept), *pixels), np.float32)
        for index in np.ndindex(*shape):
            target = tuple(i for i, n in zip(index, shape, strict=True) if n > 1)
            data[(*target, slice(None), slice(None))] = source.image(index)


def signal_axes(source: Source) -> list[dict]:
    """Return the axes of the signal in the order of the array, as HyperSpy writes them."""
    axes = []
    units = {"voltage": "kV", "camera_length": "m"}
    for name, size in zip(NAVIGATION, source.shape, strict=False):
        if size > 1:
            values = np.asarray(source.variables[name], dtype=float) if name in units else np.arange(float(size))
            axes.append(_axis(name, values, units.get(name, ""), navigate=True))
    positions = np.asarray(source.variables["x"], dtype=float)
    scale, unit = 1.0, "mm"
    if source.shape[1] == source.shape[2] == 1:
        scale = source.facts((0, 0, 0, 0))["pixel_per_angstrom_at_centre"] / source.pitch
        unit = "k_A^-1"
    return axes + [_axis(name, positions * scale, unit, navigate=False) for name in ("y", "x")]


def _axis(name: str, values: np.ndarray, units: str, navigate: bool) -> dict:
    axis = {"name": name, "units": units, "navigate": navigate, "is_binned": False, "size": len(values)}
    steps = np.diff(values)
    if np.allclose(steps, steps[0], rtol=1e-6) and steps[0] > 0.0:
        scale = float(values[-1] - values[0]) / (len(values) - 1)
        return {"_type": "UniformDataAxis", "scale": scale, "offset": float(values[0]), **axis}
    if (steps > 0.0).all() or (steps < 0.0).all():
        return {"_type": "DataAxis", "axis": values, **axis}
    # an axis that goes up and down has no place in HyperSpy; its values are in original_metadata
    return {"_type": "UniformDataAxis", "scale": 1.0, "offset": 0.0, **axis, "units": ""}


def _metadata(source: Source, title: str) -> dict:
    microscope: dict[str, Any] = {}
    voltages, lengths = source.variables["voltage"], source.variables["camera_length"]
    if len(voltages) == 1:
        microscope["beam_energy"] = float(voltages[0])
    if len(lengths) == 1:
        length = float(lengths[0])
        # HyperSpy's field is in mm, that of pyxem's set_experimental_parameters in cm
        microscope |= {"camera_length": 1e3 * length, "Detector": {"Diffraction": {"camera_length": 1e2 * length}}}
        microscope |= {"pixel_size": 1e-3 * source.pitch, "detector_distance": length}
    return {
        "General": {"title": title},
        "Signal": {"signal_type": "electron_diffraction", "quantity": "Intensity (fraction of the incident electrons)"},
        "Acquisition_instrument": {"TEM": microscope},
    }


def _original_metadata(source: Source) -> dict:
    coordinates = {
        "zone_axis": json.dumps(np.asarray(source.variables["uvw"]).tolist()),
        "voltage_kV": np.asarray(source.variables["voltage"], dtype=float),
        "camera_length_m": np.asarray(source.variables["camera_length"], dtype=float),
        "snapshot": np.asarray(source.variables["snapshot"], dtype=int),
    }
    attributes = {k: json.dumps(v) if isinstance(v, list) else v for k, v in source.plain_attributes().items()}
    return {"attributes": attributes, "coordinates": coordinates}


def _fill(group, values: Mapping[str, Any], create) -> None:
    """Write a nested mapping: mappings as groups, arrays as data sets, plain values as attributes."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            _fill(group.require_group(key), value, create)
        elif isinstance(value, np.ndarray):
            create(group, key, value.shape, value.shape, value.dtype)[...] = value
        else:
            group.attrs[key] = value


@contextlib.contextmanager
def _open_store(path: Path):
    """Yield the root group of a new file, and the function that makes a data set in a group of it."""
    if path.suffix == ".hspy":
        import h5py

        def create(group, name, shape, chunks, dtype):
            return group.create_dataset(name, shape, dtype, chunks=chunks, compression="gzip", shuffle=True)

        with h5py.File(path, "w") as root:
            root.attrs.update({"file_format": "HyperSpy", "file_format_version": FORMAT_VERSION})
            yield root, create
        return

    import numcodecs
    import zarr

    compressor = numcodecs.Blosc(cname="zstd", clevel=1, shuffle=numcodecs.Blosc.SHUFFLE)

    def create(group, name, shape, chunks, dtype):
        return group.create_array(name, shape=shape, chunks=chunks, dtype=dtype, compressors=compressor)

    root = zarr.open_group(str(path), mode="w", zarr_format=2)  # zarr 2 and 3 read it
    root.attrs.update({"file_format": "ZSpy", "file_format_version": FORMAT_VERSION})
    yield root, create
    zarr.consolidate_metadata(str(path))


# --- images ----------------------------------------------------------------------------------------------------------


def write_images(
    patterns: "Path | str | xarray.Dataset", folder: Path | str, kind: str, decades: float = DECADES
) -> list[Path]:
    """Write one image per pattern into ``folder`` (made if it is not there) and return their paths.

    Names hold the structure, zone axis, voltage, camera length and, of several, the snapshot: `al_-110_200kV_0.8m.png`.
    ``kind`` is `png` (16-bit grey values of :func:`grey_values`, ``decades`` of intensity, the transform and all
    settings in its text chunks, decades and I_0 also as JSON under `display` in Description) or `tiff` (float32, the
    stored intensities, settings and calibration as JSON in ImageDescription, physical pixel size as resolution). Row 0
    is on top: the image is what one sees looking along the beam. Existing images of the same name are replaced. Raises
    ValueError for another kind or no patterns.
    """
    if kind not in IMAGE_KINDS:
        raise ValueError(f"images: kind {kind!r} is not one of {', '.join(IMAGE_KINDS)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with open_source(patterns) as source:
        for index in np.ndindex(*source.shape[:4]):
            path = folder / f"{image_name(source, index)}.{kind if kind == 'png' else 'tif'}"
            facts = {**source.facts(index), "attributes": source.plain_attributes()}
            if kind == "png":
                _write_png(path, source.image(index), facts, decades)
            else:
                _write_tiff(path, source.image(index), facts)
            paths.append(path)
    return paths


def image_name(source: Source, index: tuple[int, ...]) -> str:
    """Return the name of a pattern's image without its ending; negative indices have a minus, bars are not portable."""
    facts = source.facts(index)
    name = re.split(r", snapshot |^mean of \d+: ", facts["structure"])
    stem = re.sub(r"[^\w.+-]+", "-", Path(name[0] or name[-1]).stem)[:80]
    separator = "" if all(abs(n) < 10 for n in facts["zone_axis"]) else "_"
    axis = separator.join(map(str, facts["zone_axis"]))
    snapshot = f"_{facts['snapshot']:04d}" if source.shape[3] > 1 else ""
    return f"{stem}_{axis}_{facts['voltage_kV']:g}kV_{facts['camera_length_m']:g}m{snapshot}"


def grey_values(image: np.ndarray, decades: float = DECADES) -> tuple[np.ndarray, float]:
    """Return grey values 0 to 1, clip(1 + log10(I / I_0) / decades), and I_0.

    I_0 is the largest intensity farther than DIRECT_BEAM pixels from the optic axis, so the direct beam is clipped to
    white; an image without any intensity there is black.
    """
    size = len(image)
    offset = np.arange(size) - 0.5 * (size - 1)
    outside = np.hypot(offset[:, None], offset[None, :]) > DIRECT_BEAM
    brightest = float(image[outside].max(initial=0.0))
    if brightest <= 0.0:
        return np.zeros(image.shape), brightest
    floor = brightest * 10.0**-decades
    return np.clip(1.0 + np.log10(np.maximum(image, floor) / brightest) / decades, 0.0, 1.0), brightest


def _write_png(path: Path, image: np.ndarray, facts: dict, decades: float) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    grey, brightest = grey_values(image, decades)
    text = PngInfo()
    text.add_text("Title", f"{facts['attributes'].get('title', 'Simulated electron diffraction pattern')}")
    text.add_text("Software", "defraction")
    text.add_text(
        "Display",
        f"grey = 65535 clip(1 + log10(I / I_0) / {decades:g}, 0, 1); I_0 = {brightest:.6g} of the incident electrons, "
        f"the largest intensity farther than {DIRECT_BEAM:g} pixels from the optic axis; the direct beam is clipped",
    )
    facts = {**facts, "display": {"decades": decades, "brightest": brightest}}
    text.add_text("Description", json.dumps(facts, sort_keys=True))
    Image.fromarray(np.rint(65535.0 * grey).astype(np.uint16)).save(path, pnginfo=text)


def _write_tiff(path: Path, image: np.ndarray, facts: dict) -> None:
    import tifffile

    per_centimetre = 10.0 / facts["pixel_mm"]
    tifffile.imwrite(
        path,
        image,
        description=json.dumps(facts, sort_keys=True),
        metadata=None,
        software="defraction",
        resolution=(per_centimetre, per_centimetre),
        resolutionunit="CENTIMETER",
    )
