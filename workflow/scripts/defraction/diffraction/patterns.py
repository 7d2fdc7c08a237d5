"""From structures to patterns: every zone axis, voltage, camera length and snapshot in one call.

    from defraction.diffraction.patterns import simulate
    data = simulate("al.cif", repeat=(40, 30, 20), zone_axes=[[0, 0, 1]], voltages=[200])
    data.intensity.sel(zone_axis="[0 0 1]", voltage=200, camera_length=0.8).isel(snapshot=0).plot()

The axes are (zone_axis, voltage, camera_length, snapshot, y, x); docs/data-format.md describes the file.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from defraction.diffraction import convergence, direct, laue, planes
from defraction.diffraction import settings as defaults
from defraction.diffraction.backend import Backend, select_backend
from defraction.diffraction.geometry import Beam, Detector, relativistic_factor, wavelength
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import Specimen, View
from defraction.pattern_files import DIMENSIONS
from defraction.pattern_files import read_patterns as read_patterns  # the file written here, opened
from defraction.structures import read_structures

if TYPE_CHECKING:
    import xarray

logger = logging.getLogger(__name__)

NUFFT_FROM = 50  # atoms in the cell; for fewer, laue is cheaper
LAUE_UP_TO = 20_000  # atoms in the cell; for more, nufft is cheaper. Between them, the costs are compared
WARN_SECONDS = 120.0  # that the direct sum may take without a warning
SMALL = 20.0  # Å; a specimen narrower than this is probably one cell that was meant to be repeated

Variable = tuple[tuple[str, ...], np.ndarray, dict]
Structure = Path | str | Atoms
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Method:
    """A way to compute patterns: a module with ``intensities``, ``pattern_bytes`` and ``cost``, as laue.py has them.

    Where the module has ``batch_bytes(view, beams, sigma)``, all beams of a view are handed to it together.
    """

    name: str
    module: ModuleType

    @property
    def error_bound(self) -> float | None:
        """``intensity_error_bound`` in docs/data-format.md; None where there is none."""
        return getattr(self.module, "ERROR_BOUND", None)

    @property
    def dynamical(self) -> bool:
        """Whether the images are fractions of the incident beam already, not |A|^2."""
        return self.name == "multislice"

    @property
    def has_kernels(self) -> bool:
        """Whether it computes on a GPU if there is one; the other methods stay on the CPU."""
        return self.name in ("laue", "nufft")

    def intensities(self, parts: Sequence["Part"], sigma: float, factors: Factors, backend: Backend, memory: float):
        """Return the images of ``parts``, float32 (part, y, x), within ``memory`` [GiB] where the method can choose."""
        views, beams = [part.view for part in parts], [part.beam for part in parts]
        if self.dynamical:
            return self.module.fractions(views, beams, [part.voltage for part in parts], sigma, factors)
        if backend.device == "gpu" and self.has_kernels:
            from defraction.diffraction import gpu

            on_gpu = gpu.laue_intensities if self.name == "laue" else gpu.nufft_intensities
            return on_gpu(views, beams, sigma, factors, backend, memory)
        if self.name == "nufft":  # its beams share work, so it divides them itself
            return planes.intensities(views, beams, sigma, factors, memory=memory * 2**30)
        return self.module.intensities(views, beams, sigma, factors)


LAUE, NUFFT, DIRECT = Method("laue", laue), Method("nufft", planes), Method("direct", direct)


def method_named(name: str) -> Method:
    """Return the method called ``name`` in the settings (not auto)."""
    if name == "spots":
        from defraction.diffraction import spots

        return Method(name, spots)
    if name == "multislice":
        from defraction.diffraction import multislice

        return Method(name, multislice)
    return {method.name: method for method in (LAUE, NUFFT, DIRECT)}[name]


@dataclass(frozen=True)
class Part:
    """One image to be computed: ``view`` in ``beam`` of ``voltage`` [kV], a share ``weight`` of pattern ``index``.

    ``ends``: the last direction of its snapshot; ``completes``: the last part of its pattern.
    """

    index: tuple[int, int, int, int]
    view: View
    beam: Beam
    voltage: float
    weight: float
    ends: bool
    completes: bool


@dataclass(frozen=True)
class PatternSet:
    """What is to be computed: specimens (one per snapshot) under settings."""

    specimens: tuple[Specimen, ...]
    settings: dict
    source: str
    names: tuple[str, ...]
    factors: Factors = field(default_factory=Factors)

    @classmethod
    def plan(
        cls,
        structures: list[Atoms],
        settings: Mapping,
        source: str = "structure",
        names: Sequence[str] | None = None,
        snapshots: bool | None = None,
        lenient: bool = False,
    ) -> "PatternSet":
        """Check structures and settings. Raises ValueError that names what is wrong and where.

        ``names`` of the structures; ``snapshots``: whether they are snapshots of one crystal (default: if there are
        several); ``lenient``: Debye-Waller factors of elements that no structure has are left out, not refused.
        """
        whole = defaults.complete(settings)
        if not structures:
            raise ValueError(f"{source}: there is no structure to simulate")
        if names is None:
            several = len(structures) > 1
            names = [f"{source}, snapshot {i}" if several else source for i in range(len(structures))]
        shape = whole["shape"]
        specimens = tuple(Specimen.from_atoms(a, n, shape) for a, n in zip(structures, names, strict=True))
        elements = sorted({element for specimen in specimens for element in specimen.elements})
        given = whole["debye_waller"]
        if given:
            snapshots = len(structures) > 1 if snapshots is None else snapshots
            _refuse_debye_waller(structures, names, snapshots)
            absent = sorted(set(given) - set(elements))
            if absent and not lenient:
                raise ValueError(
                    f"debye_waller: {source} holds no {', '.join(absent)}; its elements are {', '.join(elements)}"
                )
        factors = Factors(
            whole["scattering_factors"], {element: float(b) for element, b in given.items() if element in elements}
        )
        for element in elements:
            factors.of(element, np.zeros(1))
        plan = cls(specimens, whole, source, tuple(names), factors)
        plan.beams()  # checks voltages and detector; the areas check the zone axes
        plan.areas()
        plan._check_method()
        return plan

    def _check_method(self) -> None:
        """Raise ValueError for what a method called by name cannot do."""
        if self.settings["method"] == "auto":
            return
        module = self.method().module
        if hasattr(module, "check"):
            module.check(self.settings)
        if hasattr(module, "check_view"):
            for snapshot in range(len(self.specimens)):
                module.check_view(self.view(0, snapshot))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Numbers of zone axes, voltages, camera lengths and snapshots (1 where they are averaged)."""
        s = self.settings
        snapshots = 1 if s["average_snapshots"] else len(self.specimens)
        return len(s["zone_axes"]), len(s["voltages"]), len(s["camera_lengths"]), snapshots

    @property
    def count(self) -> int:
        """Number of patterns to be computed, before any average over snapshots."""
        return int(np.prod(self.shape[:3])) * len(self.specimens)

    def detector(self, camera_length: float) -> Detector:
        """Return the detector at ``camera_length`` [m]."""
        return Detector(float(camera_length), float(self.settings["detector_width"]), self.settings["pixels"])

    def beams(self) -> list[list[Beam]]:
        """Return the beam of every voltage and camera length, along the optic axis."""
        flat = self.settings["model"] == "article"
        return [
            [Beam(1.0 / wavelength(v), self.detector(length), flat) for length in self.settings["camera_lengths"]]
            for v in self.settings["voltages"]
        ]

    def view(self, zone_axis: int, snapshot: int) -> View:
        """Return the view of a snapshot along a zone axis; made when it is needed, as large ones are large."""
        s = self.settings
        return self.specimens[snapshot].view(s["zone_axes"][zone_axis], s["model"], s["rotation"], tuple(s["tilt"]))

    def areas(self) -> np.ndarray:
        """Return the illuminated area [Å^2] of every zone axis and snapshot (of all that are in the file)."""
        s = self.settings
        return np.array(
            [
                [specimen.area(axis, s["rotation"], tuple(s["tilt"])) for specimen in self.specimens]
                for axis in s["zone_axes"]
            ]
        )

    def method(self) -> Method:
        """Return the method asked for; ``auto`` is the cheaper of laue and nufft."""
        return self._method

    @cached_property
    def _method(self) -> Method:
        if self.settings["method"] != "auto":
            return method_named(self.settings["method"])
        atoms = len(self.specimens[0].symbols)
        if atoms < NUFFT_FROM or atoms > LAUE_UP_TO:
            return LAUE if atoms < NUFFT_FROM else NUFFT
        sigma = float(self.settings["response_sigma"])
        beams = [beam for row in self.beams() for beam in row]
        costs = {LAUE: 0.0, NUFFT: 0.0}
        for axis in range(self.shape[0]):
            view = self.view(axis, 0)
            for method in costs:
                costs[method] += method.module.cost(view, beams, sigma)
        return min(costs, key=costs.get)

    def groups(self) -> Iterator[list[Part]]:
        """Yield the parts of one view after the other: its voltages, camera lengths and beam directions."""
        s = self.settings
        sigma, beams = float(s["response_sigma"]), self.beams()
        averaged = len(self.specimens) if s["average_snapshots"] else 1
        for z in range(self.shape[0]):
            for snapshot in range(len(self.specimens)):
                view = self.view(z, snapshot)
                last = averaged == 1 or snapshot == len(self.specimens) - 1
                parts = []
                for v, voltage in enumerate(s["voltages"]):
                    for c, beam in enumerate(beams[v]):
                        scale = 1.0 / averaged
                        if not self.method().dynamical:
                            scale /= _to_squared_amplitude(view.area, beam, relativistic_factor(voltage))
                        index = (z, v, c, 0 if averaged > 1 else snapshot)
                        points, weights = convergence.directions(view, beam, sigma, s["convergence"])
                        for i, (point, weight) in enumerate(zip(points.tolist(), weights.tolist(), strict=True)):
                            one = Beam(beam.k, beam.detector, beam.flat, tuple(point))
                            ends = i == len(points) - 1
                            parts.append(Part(index, view, one, float(voltage), scale * weight, ends, ends and last))
                yield parts


def _rule_of(atoms: Atoms) -> str | None:
    """The rule of the workflow that made a structure, if its file says so."""
    origin = atoms.info.get("origin")
    return origin.get("rule") if isinstance(origin, Mapping) else None


def _refuse_debye_waller(structures: Sequence[Atoms], names: Sequence[str], snapshots: bool) -> None:
    """Raise ValueError where the atoms' displacements are in the structures already, and B would count them twice."""
    mend = "leave debye_waller out, or give the crystal with its atoms at rest"
    rules = [_rule_of(atoms) for atoms in structures]
    if snapshots and len(structures) > 1 and not set(rules) <= STATIC_RULES:
        raise ValueError(
            f"debye_waller: {names[0]} is one of {len(structures)} snapshots, whose displaced atoms damp the "
            f"intensities themselves; {mend}"
        )
    for atoms, name, rule in zip(structures, names, rules, strict=True):
        moving = atoms.has("momenta") and bool(np.any(atoms.arrays["momenta"]))
        if moving or rule in DYNAMICS_RULES:
            raise ValueError(
                f"debye_waller: {name} comes from molecular dynamics, whose displaced atoms damp the intensities "
                f"themselves; {mend}"
            )


DYNAMICS_RULES = ("structure_thermal", "aimd")  # of the workflow, as they stand in the origin of a structure file
STATIC_RULES = {"clean_structure", "structure_block"}  # several structures: independent specimens, not moments of one


def simulate(
    structures: Structure | Sequence[Structure],
    settings: Mapping | None = None,
    device: str = "auto",
    memory: float = 2.0,
    *,
    repeat: Sequence[int] | None = None,
    progress: Progress | None = None,
    **overrides,
) -> "xarray.Dataset":
    """Simulate the diffraction patterns of one or more structures and return them with coordinates and attributes.

    Parameters
    ----------
    structures
        a structure file (CIF or anything ASE reads; every structure in it), an ``ase.Atoms``, or a list of either. Each
        structure is a snapshot of the result. Conventional cells; ``info["repeat"]`` and ``info["reference_cell"]`` as
        docs/conventions.md says.
    settings, overrides
        the configuration's section ``diffraction`` (config/README.md): method, model, scattering_factors, zone_axes,
        voltages [kV], camera_lengths [m], detector_width [mm], pixels, response_sigma [px], tilt [mrad], rotation
        [degrees], convergence [mrad], shape, debye_waller [Å^2], average_snapshots. Keywords go before ``settings``,
        and what is not given has the default of the configuration.
    device, memory
        where to compute (auto, cpu, gpu) and the working memory [GiB], from which the patterns per batch follow.
    repeat
        cells along a, b, c, in place of what the structures say (1, 1, 1 if they say nothing: one cell).
    progress
        called with (patterns done, patterns in all), first with 0 done.

    Returns
    -------
    xarray.Dataset
        ``intensity`` (zone_axis, voltage, camera_length, snapshot, y, x), float32, the fraction of the incident
        electrons in each pixel (kinematical, but for the method multislice), and what goes with it.

    Raises
    ------
    ValueError
        for structures or settings that cannot be simulated.
    FileNotFoundError
        for a structure file that does not exist.
    RuntimeError
        if a GPU was asked for and there is none.
    """
    import xarray  # takes longer to import than a clean crystal takes to simulate

    images, names, source, snapshots = _gather(structures)
    if repeat is not None:
        images = [_repeated(atoms, repeat) for atoms in images]
    patterns = PatternSet.plan(images, {**(settings or {}), **overrides}, source, names, snapshots)
    if repeat is None and all(_is_one_small_cell(specimen) for specimen in patterns.specimens):
        logger.warning("%s: the specimen is a single cell; give repeat for a larger one", source)
    backend = _prepared(patterns, device, memory)
    variables, attributes = _describe(patterns, backend)
    pixels = patterns.settings["pixels"]
    intensity = np.empty((*patterns.shape, pixels, pixels), dtype=np.float32)
    for index, image in _compute(patterns, backend, memory, progress):
        intensity[index] = image
    variables["intensity"] = (DIMENSIONS, intensity, _meaning(patterns))
    return xarray.Dataset(variables, attrs=attributes).set_coords(["uvw", "snapshot", "structure"])


def _gather(structures: Structure | Sequence[Structure]) -> tuple[list[Atoms], list[str], str, bool]:
    """Return the structures, their names, a name for all, and whether some of them are snapshots of one crystal."""
    given = [structures] if isinstance(structures, str | Path | Atoms) else list(structures)
    images, names, sources, snapshots = [], [], [], sum(isinstance(entry, Atoms) for entry in given) > 1
    for entry in given:
        if isinstance(entry, Atoms):
            found, source = [entry], entry.get_chemical_formula("hill") or "structure"
        else:
            found, source = read_structures(entry), Path(entry).name
        several = len(found) > 1
        snapshots |= several
        images += found
        names += [f"{source}, snapshot {i}" if several else source for i in range(len(found))]
        sources.append(source)
    distinct = list(dict.fromkeys(sources))
    source = ", ".join(distinct[:3]) + (f" and {len(distinct) - 3} more" if len(distinct) > 3 else "")
    return images, names, source or "structures", snapshots


def _repeated(atoms: Atoms, repeat: Sequence[int]) -> Atoms:
    copy = atoms.copy()
    copy.info["repeat"] = list(repeat)
    return copy


def _is_one_small_cell(specimen: Specimen) -> bool:
    return bool((specimen.repeat == 1).all() and (np.linalg.norm(specimen.cell, axis=1) < SMALL).all())


def simulate_file(
    structure: Path,
    output: Path,
    settings: Mapping,
    device: str = "auto",
    memory: float = 2.0,
    origin: dict | None = None,
    progress: Progress | None = None,
) -> None:
    """Simulate the structures of a file and write netCDF; as :func:`write_patterns`, for one file of many in a study.

    Debye-Waller factors of elements that the file does not hold are left out, as one section of the configuration
    serves many crystals. Raises ValueError in addition if the structure file cannot be read.
    """
    images = read_structures(Path(structure))
    plan = PatternSet.plan(images, settings, Path(structure).name, lenient=True)
    _write(plan, output, device, memory, origin, progress)


def write_patterns(
    structures: list[Atoms],
    output: Path,
    settings: Mapping,
    device: str = "auto",
    memory: float = 2.0,
    source: str = "structure",
    origin: dict | None = None,
    progress: Progress | None = None,
    names: Sequence[str] | None = None,
    snapshots: bool | None = None,
) -> None:
    """Simulate ``structures`` and write netCDF (docs/data-format.md), pattern by pattern as they are ready.

    Arguments and errors as for :func:`simulate`; everything is checked before ``output`` is made. ``source`` and
    ``names`` say what the structures are called; ``snapshots`` whether they are snapshots of one crystal (default: if
    there are several). ``origin`` says where the file comes from, and is kept in it as an attribute.
    """
    plan = PatternSet.plan(structures, settings, source, names, snapshots)
    _write(plan, output, device, memory, origin, progress)


def _write(patterns: PatternSet, output: Path, device: str, memory: float, origin: dict | None, progress) -> None:
    import netCDF4

    backend = _prepared(patterns, device, memory)
    variables, attributes = _describe(patterns, backend)
    pixels = patterns.settings["pixels"]
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
        intensity.setncatts(_meaning(patterns))
        for index, image in _compute(patterns, backend, memory, progress):
            intensity[index] = image


def _prepared(patterns: PatternSet, device: str, memory: float) -> Backend:
    """Check what patterns do not depend on, and return the backend that the method computes on."""
    if not memory > 0.0:
        raise ValueError(f"memory: {memory!r} GiB is not positive")
    backend = select_backend(device)
    method, sigma = patterns.method(), float(patterns.settings["response_sigma"])
    if not method.has_kernels:
        backend = select_backend("cpu")
    logger.info("%s: method %s on %s", patterns.source, method.name, backend.name)
    if method is DIRECT:
        import numba

        groups = patterns.groups()
        seconds = sum(direct.cost(group[0].view, [part.beam for part in group], sigma) for group in groups)
        seconds /= numba.get_num_threads()
        if seconds > WARN_SECONDS:
            logger.warning(
                "%s: the sum over every atom will take about %.0f min; laue and nufft give the same to their error "
                "bounds in far less",
                patterns.source,
                seconds / 60.0,
            )
    return backend


def _compute(
    patterns: PatternSet, backend: Backend, memory: float, progress: Progress | None
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Yield (index, image) of every pattern, in batches that fit into ``memory`` [GiB]."""
    sigma = float(patterns.settings["response_sigma"])
    method = patterns.method()
    start = time.perf_counter()
    done = 0
    if progress is not None:
        progress(0, patterns.count)
    sums: dict[tuple[int, ...], np.ndarray] = {}
    for batch in _batches(patterns.groups(), method, sigma, memory):
        for part, image in zip(batch, method.intensities(batch, sigma, patterns.factors, backend, memory), strict=True):
            if part.completes and part.index not in sums:  # a pattern of a single part keeps its single precision
                yield part.index, image * np.float32(part.weight)
            elif part.index in sums:
                sums[part.index] += part.weight * image
                if part.completes:
                    yield part.index, sums.pop(part.index).astype(np.float32)
            else:
                sums[part.index] = part.weight * image.astype(float)
            done += part.ends
        seconds = time.perf_counter() - start
        logger.info("%s: %d of %d patterns in %.1f s", patterns.source, done, patterns.count, seconds)
        if progress is not None:
            progress(done, patterns.count)


def _batches(groups: Iterator[list[Part]], method: Method, sigma: float, memory: float) -> Iterator[list[Part]]:
    """Yield consecutive parts that fit into ``memory`` [GiB] together, but at least one.

    Where the beams of a view share work they stay together, and the method keeps to the memory itself.
    """
    budget = 0.0 if method is DIRECT else memory * 2**30  # direct: one by one, as each takes long
    batch: list[Part] = []
    used = 0.0
    for group in groups:
        if not group[0].ends:
            patterns = sum(part.ends for part in group)
            logger.info("zone axis %d: %d incident directions for %d patterns", group[0].index[0], len(group), patterns)
        used += 64.0 * len(group[0].view.positions)
        for piece, need in _pieces(group, method, sigma):
            if batch and used + need > budget:
                logger.info("%d patterns in a batch for %.1f GiB", len(batch), memory)
                yield batch
                batch, used = [], 64.0 * len(group[0].view.positions)
            batch += piece
            used += need
    if batch:
        logger.info("%d patterns in a batch for %.1f GiB", len(batch), memory)
        yield batch


def _pieces(group: list[Part], method: Method, sigma: float) -> Iterator[tuple[list[Part], float]]:
    """Yield the parts of a view that have to stay together, with the bytes that they need."""
    view = group[0].view
    if hasattr(method.module, "batch_bytes"):
        yield group, method.module.batch_bytes(view, [part.beam for part in group], sigma)
    else:
        for part in group:
            yield [part], method.module.pattern_bytes(view, part.beam, sigma)


def _to_squared_amplitude(area: float, beam: Beam, gamma: float) -> float:
    """Return area / (gamma^2 solid angle of a central pixel) [Å^2]: intensity to the mean of |A|^2 cos^3(2 theta)."""
    return area * (beam.detector.distance / beam.detector.pitch) ** 2 / gamma**2


def _meaning(patterns: PatternSet) -> dict:
    """Return the attributes of the intensity."""
    method = patterns.method()
    meaning = "fraction of the incident electrons in the pixel, kinematical (may exceed 1)"
    cells = "y: x: sum (with the detector response)"
    if patterns.settings["average_snapshots"]:
        cells += " snapshot: mean"
    return {
        "long_name": method.module.MEANING if method.dynamical else meaning,
        "units": "1",
        "coordinates": "uvw structure",
        "cell_methods": cells,
    }


def _describe(patterns: PatternSet, backend: Backend) -> tuple[dict[str, Variable], dict]:
    """Return the variables beside the intensity, as (dimensions, values, attributes), and the file's attributes."""
    settings = patterns.settings
    axes = np.array(settings["zone_axes"])
    beams, areas = patterns.beams(), patterns.areas()
    voltages = np.array(settings["voltages"], dtype=float)
    lengths = np.array(settings["camera_lengths"], dtype=float)
    positions = patterns.detector(lengths[0]).positions()
    names, numbers = np.array(patterns.names, dtype=object), np.arange(len(patterns.specimens), dtype=np.int32)
    # an average over snapshots is one of intensities: its factors are the mean of the inverse factors, inverted
    inverse = 1.0 / areas
    if settings["average_snapshots"]:
        names, numbers = np.array([f"mean of {len(names)}: {patterns.source}"], dtype=object), numbers[:1]
        areas, inverse = areas.mean(axis=1, keepdims=True), inverse.mean(axis=1, keepdims=True)
    gamma = [relativistic_factor(v) for v in voltages]
    per_area = np.array(
        [[_to_squared_amplitude(1.0, b, g) for b in row] for row, g in zip(beams, gamma, strict=True)]
    )  # (voltage, camera length)
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
        "snapshot": (("snapshot",), numbers, {"long_name": "structure, counted from 0", "units": "1"}),
        "structure": (("snapshot",), names, {"long_name": "name of the structure"}),
        "y": (("y",), positions, {"long_name": "position on the detector, downwards", "units": "mm", "axis": "Y"}),
        "x": (("x",), positions, {"long_name": "position on the detector, to the right", "units": "mm", "axis": "X"}),
        "wavelength": (
            ("voltage",),
            np.array([wavelength(v) for v in voltages]),
            {"long_name": "relativistic electron wavelength", "units": "angstrom"},
        ),
        "illuminated_area": (
            ("zone_axis", "snapshot"),
            areas,
            {"long_name": "projected area of the specimen along the optic axis", "units": "angstrom2"},
        ),
        "obliquity": (
            ("camera_length", "y", "x"),
            obliquity.astype(np.float32),
            {"long_name": "solid angle of the pixel over that of a pixel on the optic axis", "units": "1"},
        ),
    }
    method = patterns.method()
    if not method.dynamical:
        variables["to_squared_amplitude"] = (
            DIMENSIONS[:4],
            per_area[None, :, :, None] / inverse[:, None, None, :],
            {
                "long_name": "intensity times this, divided by obliquity, is the mean of |A|^2 over the pixel",
                "units": "angstrom2",
            },
        )
    first = patterns.specimens[0]
    attributes = {
        "Conventions": "CF-1.11",
        "title": f"Simulated electron diffraction patterns of {patterns.source}",
        "source": f"defraction: {'dynamical' if method.dynamical else 'kinematical'} diffraction from a finite crystal",
        "references": "docs/conventions.md, docs/data-format.md",
        "method": method.name,
        "model": settings["model"],
        "scattering_factors": settings["scattering_factors"],
        "settings": json.dumps(settings, sort_keys=True),
        "device": backend.device,
        "versions": json.dumps({name: version(name) for name in ("numpy", "numba", "gemmi", "ase")}),
        "structures": patterns.source,
        "snapshots_averaged": len(patterns.specimens) if settings["average_snapshots"] else 1,
        "formula": _formula(first),
        "atoms_in_cell": len(first.symbols),
        "atoms_in_specimen": first.atom_count,
        "repeat": first.repeat.astype(np.int32),
        "cell_angstrom": json.dumps(first.cell.tolist()),
        "reference_cell_angstrom": json.dumps(first.reference_cell.tolist()),
    }
    if method.error_bound is not None:
        attributes["intensity_error_bound"] = method.error_bound
        attributes["intensity_error_bound_meaning"] = (
            "outside the direct beam, as a fraction of the largest intensity there, against the float64 sum over all "
            "atoms; the direct beam to 1e-5 of itself"
        )
    if settings["convergence"]:
        attributes["convergence_error_bound"] = convergence.TOLERANCE
    if patterns.factors.debye_waller:
        attributes["debye_waller_angstrom2"] = json.dumps(dict(patterns.factors.debye_waller), sort_keys=True)
    if method.dynamical:
        row = [beam for row in beams for beam in row]
        sigma = float(settings["response_sigma"])
        attributes |= method.module.describe([patterns.view(0, 0)] * len(row), row, sigma)
    return variables, attributes


def _formula(specimen: Specimen) -> str:
    elements, counts = np.unique(np.array(specimen.symbols), return_counts=True)
    return " ".join(f"{element}{count}" for element, count in zip(elements, counts, strict=True))
