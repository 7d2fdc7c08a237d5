"""From structures to a file of patterns: every zone axis, voltage, camera length and snapshot in one call.

The axes are (zone_axis, voltage, camera_length, snapshot, y, x); docs/data-format.md describes the file.
"""

import itertools
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from defraction.diffraction import laue, laue_array, planes, sampling
from defraction.diffraction.backend import Backend, select_backend
from defraction.diffraction.geometry import Beam, Detector, relativistic_factor, wavelength
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import MODELS, Specimen, View
from defraction.structures import read_structures

if TYPE_CHECKING:
    import netCDF4
    import xarray

logger = logging.getLogger(__name__)

NUFFT_FROM = 50  # atoms in the cell; for fewer, the costs need not be compared

DIMENSIONS = ("zone_axis", "voltage", "camera_length", "snapshot", "y", "x")
SETTINGS = (
    "model", "scattering_factors", "zone_axes", "voltages", "camera_lengths", "detector_width", "pixels",
    "response_sigma",
)  # fmt: skip

Variable = tuple[tuple[str, ...], np.ndarray, dict]


@dataclass(frozen=True)
class Method:
    """How the cell's amplitude is summed, and its error: ``intensity_error_bound`` in docs/data-format.md."""

    name: str
    error_bound: float


LAUE = Method("laue", laue.ERROR_BOUND)
NUFFT = Method("nufft", planes.ERROR_BOUND)


@dataclass(frozen=True)
class PatternSet:
    """What is to be computed: specimens (one per snapshot) under settings. Pattern i is item i of ``indices()``."""

    specimens: tuple[Specimen, ...]
    settings: dict
    source: str

    @classmethod
    def plan(cls, structures: list[Atoms], settings: dict, source: str = "structure") -> "PatternSet":
        """Check structures and settings. Raises ValueError that names what is wrong and where."""
        missing = [key for key in SETTINGS if key not in settings]
        if missing:
            raise ValueError(f"diffraction: the settings lack {', '.join(missing)}")
        if not structures:
            raise ValueError(f"{source}: there is no structure to simulate")
        settings = {key: settings[key] for key in SETTINGS}
        if settings["model"] not in MODELS:
            raise ValueError(f"model: {settings['model']!r} is not one of {', '.join(MODELS)}")
        Factors(settings["scattering_factors"])
        for key in ("zone_axes", "voltages", "camera_lengths"):
            if not len(settings[key]):
                raise ValueError(f"{key}: the list is empty; give at least one")
        sigma = settings["response_sigma"]
        if not (np.isfinite(sigma) and sigma >= sampling.SIGMA_MIN):
            raise ValueError(f"response_sigma: {sigma!r} px is below {sampling.SIGMA_MIN}; spots would be undersampled")
        names = [source if len(structures) == 1 else f"{source}, snapshot {i}" for i in range(len(structures))]
        return cls(tuple(map(Specimen.from_atoms, structures, names)), settings, source)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Numbers of zone axes, voltages, camera lengths and snapshots."""
        s = self.settings
        return len(s["zone_axes"]), len(s["voltages"]), len(s["camera_lengths"]), len(self.specimens)

    def indices(self) -> list[tuple[int, int, int, int]]:
        """Return (zone axis, voltage, camera length, snapshot) of every pattern."""
        return list(itertools.product(*map(range, self.shape)))

    def detector(self, camera_length: float) -> Detector:
        """Return the detector at ``camera_length`` [m]."""
        return Detector(float(camera_length), float(self.settings["detector_width"]), self.settings["pixels"])

    def beams(self) -> list[list[Beam]]:
        """Return the beam of every voltage and camera length."""
        flat = self.settings["model"] == "article"
        return [
            [Beam(1.0 / wavelength(v), self.detector(length), flat) for length in self.settings["camera_lengths"]]
            for v in self.settings["voltages"]
        ]

    def views(self) -> list[list[View]]:
        """Return the view of every zone axis and snapshot."""
        return [[s.view(axis, self.settings["model"]) for s in self.specimens] for axis in self.settings["zone_axes"]]

    def method(self) -> Method:
        """Return the cheaper method: sums over the cell's atoms, or non-uniform FFTs for thousands of atoms."""
        if len(self.specimens[0].symbols) < NUFFT_FROM:
            return LAUE
        sigma = float(self.settings["response_sigma"])
        beams = [beam for row in self.beams() for beam in row]
        views = [row[0] for row in self.views()]
        costs = [sum(module.cost(v, b, sigma) for v in views for b in beams) for module in (laue, planes)]
        return LAUE if costs[0] <= costs[1] else NUFFT


def simulate(structures: list[Atoms], settings: dict, device: str = "auto", memory: float = 2.0) -> "xarray.Dataset":
    """Simulate the diffraction patterns of every structure (snapshot) and return them with coordinates and attributes.

    Parameters
    ----------
    structures
        conventional cells; ``info["repeat"]`` and ``info["reference_cell"]`` as docs/conventions.md says.
    settings
        the configuration's section ``diffraction``: model, scattering_factors, zone_axes, voltages [kV], camera_lengths
        [m], detector_width [mm], pixels, response_sigma [px].
    device, memory
        where to compute (auto, cpu, gpu) and the working memory [GiB], from which the patterns per batch follow.

    Returns
    -------
    xarray.Dataset
        ``intensity`` (zone_axis, voltage, camera_length, snapshot, y, x), float32, the fraction of the incident
        electrons in each pixel in the kinematical sense, and what goes with it.

    Raises
    ------
    ValueError
        for structures or settings that cannot be simulated.
    RuntimeError
        if a GPU was asked for and there is none.
    """
    import xarray  # takes longer to import than a clean crystal takes to simulate

    patterns = PatternSet.plan(structures, settings)
    backend = select_backend(device)
    variables, attributes = _describe(patterns, backend)
    intensity = np.empty((*patterns.shape, settings["pixels"], settings["pixels"]), dtype=np.float32)
    for index, image in _compute(patterns, backend, memory):
        intensity[index] = image
    variables["intensity"] = (DIMENSIONS, intensity, INTENSITY)
    return xarray.Dataset(variables, attrs=attributes).set_coords(["uvw", "snapshot"])


def simulate_file(
    structure: Path,
    output: Path,
    settings: dict,
    device: str = "auto",
    memory: float = 2.0,
    origin: dict | None = None,
) -> None:
    """Simulate the structures of a file and write netCDF (docs/data-format.md), pattern by pattern as they are ready.

    Arguments and errors as for :func:`simulate`; in addition ValueError if the structure file cannot be read.
    ``origin`` says where the file comes from, and is kept in it as an attribute.
    """
    import netCDF4

    patterns = PatternSet.plan(read_structures(Path(structure)), settings, Path(structure).name)
    backend = select_backend(device)
    variables, attributes = _describe(patterns, backend)
    pixels = settings["pixels"]
    with netCDF4.Dataset(output, "w", format="NETCDF4") as file:
        file.setncatts(attributes | ({"origin": json.dumps(origin, sort_keys=True)} if origin else {}))
        for name, size in zip(DIMENSIONS, (*patterns.shape, pixels, pixels), strict=True):
            file.createDimension(name, size)
        file.createDimension("index", 3)
        for name, (dimensions, values, attrs) in variables.items():
            kind = str if values.dtype == object else values.dtype
            variable = file.createVariable(name, kind, dimensions)
            variable.setncatts(attrs)
            variable[...] = values
        intensity = file.createVariable(
            "intensity", "f4", DIMENSIONS, zlib=True, complevel=1, shuffle=True, chunksizes=(1, 1, 1, 1, pixels, pixels)
        )
        intensity.setncatts(INTENSITY)
        for index, image in _compute(patterns, backend, memory):
            intensity[index] = image


def read_patterns(path: Path) -> "netCDF4.Dataset":
    """Open a file of patterns without reading it: ``read_patterns(path)["intensity"][0, 1, 2]`` reads three axes of it.

    Use it in a ``with`` block. Values are plain arrays, never masked ones. ``xarray.open_dataset(path)`` reads the same
    file with labelled axes.
    """
    import netCDF4

    file = netCDF4.Dataset(path, "r")
    file.set_auto_mask(False)
    if "intensity" not in file.variables or file.variables["intensity"].dimensions != DIMENSIONS:
        file.close()
        raise ValueError(f"{path}: holds no variable intensity {DIMENSIONS}; is it a file of patterns?")
    return file


def _compute(patterns: PatternSet, backend: Backend, memory: float) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Yield (index, image) of every pattern, in batches that fit into ``memory`` [GiB]."""
    if not memory > 0.0:
        raise ValueError(f"memory: {memory!r} GiB is not positive")
    settings, indices = patterns.settings, patterns.indices()
    sigma, factors = float(settings["response_sigma"]), Factors(settings["scattering_factors"])
    beams, views = patterns.beams(), patterns.views()
    method = patterns.method()
    logger.info("%s: method %s on %s", patterns.source, method.name, backend.name)
    gamma = [relativistic_factor(v) for v in settings["voltages"]]
    start = time.perf_counter()
    done = 0
    pattern_bytes = (planes if method is NUFFT else laue).pattern_bytes
    for batch in _batches(indices, beams, views, sigma, memory, pattern_bytes):
        batch_views = [views[z][s] for z, _, _, s in batch]
        batch_beams = [beams[v][c] for _, v, c, _ in batch]
        if method is NUFFT:  # also with a GPU: its transforms run on the CPU
            images = planes.intensities(batch_views, batch_beams, sigma, factors)
        elif backend.device == "gpu":
            images = laue_array.intensities(batch_views, batch_beams, sigma, factors, backend, memory)
        else:
            images = laue.intensities(batch_views, batch_beams, sigma, factors)
        for index, image, view, beam in zip(batch, images, batch_views, batch_beams, strict=True):
            yield index, image * np.float32(1.0 / _to_squared_amplitude(view, beam, gamma[index[1]]))
        done += len(batch)
        seconds = time.perf_counter() - start
        logger.info("%s: %d of %d patterns in %.1f s", patterns.source, done, len(indices), seconds)


def _batches(indices, beams, views, sigma: float, memory: float, pattern_bytes) -> list[list[tuple[int, ...]]]:
    """Split the patterns into consecutive batches, each within ``memory`` [GiB] but of at least one pattern."""
    budget = memory * 2**30
    batches: list[list[tuple[int, ...]]] = []
    used = np.inf
    for index in indices:
        z, v, c, s = index
        need = pattern_bytes(views[z][s], beams[v][c], sigma)
        if used + need > budget:
            batches.append([])
            used = 0.0
        batches[-1].append(index)
        used += need
    logger.info(
        "%d patterns in %d batches of at most %d for %.1f GiB",
        len(indices),
        len(batches),
        max(map(len, batches)),
        memory,
    )
    return batches


def _to_squared_amplitude(view: View, beam: Beam, gamma: float) -> float:
    """Return area / (gamma^2 solid angle of a central pixel) [Å^2]: intensity to the mean of |A|^2 cos^3(2 theta)."""
    return view.area * (beam.detector.distance / beam.detector.pitch) ** 2 / gamma**2


INTENSITY = {
    "long_name": "fraction of the incident electrons in the pixel, kinematical (may exceed 1)",
    "units": "1",
    "coordinates": "uvw",
    "cell_methods": "y: x: sum (with the detector response)",
}


def _describe(patterns: PatternSet, backend: Backend) -> tuple[dict[str, Variable], dict]:
    """Return the variables beside the intensity, as (dimensions, values, attributes), and the file's attributes."""
    settings = patterns.settings
    axes = np.array(settings["zone_axes"])
    views, beams = patterns.views(), patterns.beams()
    voltages = np.array(settings["voltages"], dtype=float)
    lengths = np.array(settings["camera_lengths"], dtype=float)
    positions = patterns.detector(lengths[0]).positions()
    gamma = [relativistic_factor(v) for v in voltages]
    area = np.array([[view.area for view in row] for row in views])
    factor = np.array(
        [
            [
                [[_to_squared_amplitude(view, b, g) for view in row] for b in beam_row]
                for beam_row, g in zip(beams, gamma, strict=True)
            ]
            for row in views
        ]
    )
    radius_squared = positions[:, None] ** 2 + positions[None, :] ** 2
    distance = 1e3 * lengths[:, None, None]
    obliquity = (distance / np.sqrt(radius_squared + distance**2)) ** 3
    variables = {
        "zone_axis": (
            ("zone_axis",),
            np.array(["[{} {} {}]".format(*axis) for axis in axes], dtype=object),
            {"long_name": "direction of the electrons in the reference cell"},
        ),
        "uvw": (
            ("zone_axis", "index"),
            axes.astype(np.int32),
            {"long_name": "zone axis indices u, v, w", "units": "1"},
        ),
        "voltage": (("voltage",), voltages, {"long_name": "accelerating voltage", "units": "kV"}),
        "camera_length": (("camera_length",), lengths, {"long_name": "camera length", "units": "m"}),
        "snapshot": (
            ("snapshot",),
            np.arange(len(patterns.specimens), dtype=np.int32),
            {"long_name": "structure of the file, counted from 0", "units": "1"},
        ),
        "y": (("y",), positions, {"long_name": "position on the detector, downwards", "units": "mm", "axis": "Y"}),
        "x": (("x",), positions, {"long_name": "position on the detector, to the right", "units": "mm", "axis": "X"}),
        "wavelength": (
            ("voltage",),
            np.array([wavelength(v) for v in voltages]),
            {"long_name": "relativistic electron wavelength", "units": "angstrom"},
        ),
        "illuminated_area": (
            ("zone_axis", "snapshot"),
            area,
            {"long_name": "projected area of the specimen along the beam", "units": "angstrom2"},
        ),
        "to_squared_amplitude": (
            DIMENSIONS[:4],
            factor,
            {
                "long_name": "intensity times this, divided by obliquity, is the mean of |A|^2 over the pixel",
                "units": "angstrom2",
            },
        ),
        "obliquity": (
            ("camera_length", "y", "x"),
            obliquity.astype(np.float32),
            {"long_name": "solid angle of the pixel over that of a pixel on the optic axis", "units": "1"},
        ),
    }
    first = patterns.specimens[0]
    method = patterns.method()
    attributes = {
        "Conventions": "CF-1.11",
        "title": f"Simulated electron diffraction patterns of {patterns.source}",
        "source": "defraction: kinematical diffraction from a finite crystal",
        "references": "docs/conventions.md, docs/data-format.md",
        "method": method.name,
        "model": settings["model"],
        "scattering_factors": settings["scattering_factors"],
        "intensity_error_bound": method.error_bound,
        "intensity_error_bound_meaning": "outside the direct beam, as a fraction of the largest intensity there, "
        "against the float64 sum over all atoms; the direct beam to 1e-5 of itself",
        "settings": json.dumps(settings, sort_keys=True),
        "device": backend.device,
        "versions": json.dumps({name: version(name) for name in ("numpy", "numba", "gemmi", "ase")}),
        "structure": patterns.source,
        "formula": _formula(first),
        "atoms_in_cell": len(first.symbols),
        "atoms_in_specimen": first.atom_count,
        "repeat": first.repeat.astype(np.int32),
        "cell_angstrom": json.dumps(first.cell.tolist()),
        "reference_cell_angstrom": json.dumps(first.reference_cell.tolist()),
    }
    return variables, attributes


def _formula(specimen: Specimen) -> str:
    elements, counts = np.unique(np.array(specimen.symbols), return_counts=True)
    return " ".join(f"{element}{count}" for element, count in zip(elements, counts, strict=True))
