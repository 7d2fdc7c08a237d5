"""The same work by LAMMPS, abTEM and diffsims, timed: seconds of wall clock and of CPU per pattern."""

import importlib.metadata
import os
import sys
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from lammps_saed import saed


def lammps_saed(atoms: Atoms, wavelength: float, reach: float, pixels: int) -> dict:
    """`compute saed` of a finite block of one element: seconds for pixels x pixels nodes, in proportion to fewer.

    LAMMPS sums over all atoms at every node of a mesh near the Ewald sphere, so its time goes with atoms times nodes;
    the mesh here is coarser than the pixels, the time per node is that of this block.
    """
    spacing = 2 * reach / 80
    found = saed(atoms, wavelength, reach, (spacing, spacing, 0.01), 0.005)
    nodes = len(found.g)
    scale = pixels * pixels / nodes
    return {
        "wall": found.wall * scale,
        "cpu": found.cpu * scale,
        "note": f"measured at {nodes} mesh nodes, times {pixels}^2/{nodes}; one sample per pixel, not its integral",
    }


def abtem_multislice(atoms: Atoms, voltage: float, sampling: float, slice_thickness: float) -> dict:
    """One plane wave through the periodic block along z, potential included, to the diffraction pattern."""
    import abtem

    box = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
    box.wrap()

    def pattern():
        potential = abtem.Potential(box, sampling=sampling, slice_thickness=slice_thickness, projection="infinite")
        wave = abtem.PlaneWave(energy=1e3 * voltage).multislice(potential)
        return wave.diffraction_patterns(max_angle="cutoff").compute(progress_bar=False)

    with abtem.config.set({"device": "cpu", "local_diagnostics.progress_bar": False}):
        small = box[:4]
        small.set_cell([4.05 * 8, 4.05 * 8, 4.05])
        abtem.PlaneWave(energy=1e3 * voltage).multislice(
            abtem.Potential(small, sampling=sampling, slice_thickness=slice_thickness)
        ).diffraction_patterns(max_angle="cutoff").compute(progress_bar=False)
        wall, cpu = time.perf_counter(), time.process_time()
        found = pattern()
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "note": f"dynamical, along [001], sampling {sampling} Å, slices of {slice_thickness} Å, pattern of "
        f"{' x '.join(map(str, found.shape[-2:]))} points, periodic box without vacuum",
    }


def diffsims_patterns(atoms: Atoms, voltage: float, radius: float, error: float, pixels: int, repeats: int) -> dict:
    """Spots and an image of Gaussian spots, one zone axis after another; the fastest of a few rounds."""
    from diffpy.structure import Atom, Lattice, Structure
    from diffsims.generators.simulation_generator import SimulationGenerator
    from orix.crystal_map import Phase
    from orix.quaternion import Rotation

    sites = zip(atoms.get_chemical_symbols(), atoms.get_scaled_positions(), strict=True)
    structure = Structure([Atom(symbol, point) for symbol, point in sites], lattice=Lattice(*atoms.cell.cellpar()))
    phase = Phase(point_group="1", structure=structure)
    generator = SimulationGenerator(accelerating_voltage=voltage, scattering_params="lobato", shape_factor_model="sinc")
    rotations = [Rotation.from_euler(np.deg2rad([10.0 * i, 7.0 * i, 3.0 * i])) for i in range(repeats)]

    def patterns():
        for rotation in rotations:
            spots = generator.calculate_diffraction2d(
                phase, rotation, reciprocal_radius=radius, max_excitation_error=error, with_direct_beam=True
            )
            spots.get_diffraction_pattern(
                shape=(pixels, pixels), sigma=1.0, calibration=2 * radius / pixels, normalize=False
            )

    patterns()
    walls, cpus = [], []
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        patterns()
        walls.append((time.perf_counter() - wall) / repeats)
        cpus.append((time.process_time() - cpu) / repeats)
    return {
        "wall": min(walls),
        "cpu": min(cpus),
        "note": f"spots with g < {radius:.2f} /Å, s within {error:.3f} /Å, and their image; {repeats} orientations",
    }


def versions() -> dict[str, str]:
    """Versions of the peers."""
    return {name: importlib.metadata.version(name) for name in ("lammps", "abtem", "diffsims", "numpy", "numba")}


def machine() -> dict[str, str]:
    """What the timings ran on."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "unknown",
    )
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    return {
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "vectors": "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "other",
        "load_before": f"{os.getloadavg()[0]:.2f}",
        "python": sys.version.split()[0],
    }
