"""The same numbers from programs that share no code with ours: gemmi, diffsims, abTEM, pymatgen and LAMMPS."""

import gemmi
import gemmi_peer
import lammps_saed
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from defraction.diffraction import direct, geometry
from defraction.diffraction.geometry import Detector
from defraction.diffraction.reflections import nodes_within, reflections, structure_factors
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import Specimen

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other programs


def cubic(symbols, sites, group, a, setting=1) -> Atoms:
    return crystal(symbols, sites, spacegroup=group, setting=setting, cellpar=[a, a, a, 90, 90, 90])


CRYSTALS = {
    "Al": lambda: cubic("Al", [(0, 0, 0)], 225, 4.0495),
    "Fe": lambda: cubic("Fe", [(0, 0, 0)], 229, 2.8665),
    "Si": lambda: cubic("Si", [(0.125, 0.125, 0.125)], 227, 5.4310, setting=2),
    "NaCl": lambda: cubic(["Na", "Cl"], [(0, 0, 0), (0.5, 0.5, 0.5)], 225, 5.6402),
    # sites 8c and 12d of the chiral group 213: Shoemaker et al., Acta Cryst. B34 (1978) 3573
    "beta-Mn": lambda: cubic(["Mn", "Mn"], [(0.0636,) * 3, (0.125, 0.2022, 0.4522)], 213, 6.315),
}
COUNTS = {"Al": 4, "Fe": 2, "Si": 8, "NaCl": 8, "beta-Mn": 20}


def agree(ours, theirs, relative):
    """|F|^2 to ``relative`` of each that is not very weak, and to ``relative`` of the strongest for all."""
    assert np.abs(ours - theirs).max() < relative * theirs.max()
    present = theirs > 1e-3 * theirs.max()
    assert present.sum() > 20
    assert ours[present] == pytest.approx(theirs[present], rel=relative)


# --- structure factors


@pytest.mark.parametrize("name", CRYSTALS)
def test_gemmi(name):
    atoms = CRYSTALS[name]()
    assert len(atoms) == COUNTS[name]
    hkl = nodes_within(atoms.cell[:], 1.3)
    theirs = gemmi_peer.structure_factors(atoms, hkl)
    ours = structure_factors(atoms, hkl, Factors("c4322"))
    agree(np.abs(ours) ** 2, np.abs(theirs) ** 2, 1e-6)
    # the phase too, which is not trivial where there is no centre: the sign of q.r (gemmi's fractions are single)
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize(("ours", "theirs"), [("lobato", "lobato"), ("peng", "xtables")])
@pytest.mark.parametrize("name", CRYSTALS)
def test_diffsims(name, ours, theirs):
    from diffpy.structure import Atom, Lattice, Structure
    from diffsims.utils.sim_utils import get_kinematical_intensities

    atoms = CRYSTALS[name]()
    sites = zip(atoms.get_chemical_symbols(), atoms.get_scaled_positions(), strict=True)
    structure = Structure([Atom(symbol, point) for symbol, point in sites], lattice=Lattice(*atoms.cell.cellpar()))
    hkl = nodes_within(atoms.cell[:], 2.0)
    length = np.linalg.norm(hkl @ geometry.reciprocal_cell(atoms.cell[:]), axis=1)
    expected = get_kinematical_intensities(structure, hkl, length, scattering_params=theirs)
    # the same coefficients, so only rounding differs
    agree(np.abs(structure_factors(atoms, hkl, Factors(ours))) ** 2, expected, 1e-9)


@pytest.fixture
def abtem():
    import abtem

    with abtem.config.set({"precision": "float64"}):
        yield abtem


@pytest.mark.parametrize("name", CRYSTALS)
def test_abtem(name, abtem):
    from abtem.bloch import StructureFactor

    atoms = CRYSTALS[name]()
    g_max = 2.0
    factor = StructureFactor(atoms, g_max=g_max, parametrization="lobato", cutoff="hard", centering="P")
    hkl, theirs = np.asarray(factor.hkl), np.asarray(factor.build(lazy=False).array)
    inside = np.linalg.norm(hkl @ geometry.reciprocal_cell(atoms.cell[:]), axis=1) < 0.99 * g_max
    theirs = theirs[inside] * atoms.get_volume()  # its structure factor is the amplitude per volume
    ours = structure_factors(atoms, hkl[inside], Factors("lobato"))
    agree(np.abs(ours) ** 2, np.abs(theirs) ** 2, 1e-9)
    assert np.abs(ours - theirs).max() < 1e-9 * np.abs(theirs).max()


def test_tables_of_abtem(abtem):
    from abtem import parametrizations

    q = np.linspace(0.0, 8.0, 41)
    classes = {"lobato": "LobatoParametrization", "kirkland": "KirklandParametrization", "peng": "PengParametrization"}
    for table, name in classes.items():
        theirs = getattr(parametrizations, name)()
        assert len(theirs.parameters) >= 98
        for element in theirs.parameters:
            f = theirs.scattering_factor(element)(q**2)
            assert Factors(table).of(element, q) == pytest.approx(f, rel=1e-10), (table, element)


def test_tables_of_diffsims():
    from diffsims.utils.sim_utils import get_atomic_scattering_factors, get_scattering_params_dict

    q = np.linspace(0.0, 8.0, 41)
    for table, name in {"lobato": "lobato", "peng": "xtables"}.items():
        theirs = get_scattering_params_dict(name)
        assert len(theirs) >= 98
        for element, coefficients in theirs.items():
            f = get_atomic_scattering_factors(q**2, np.array(coefficients)[None], name)[:, 0]
            assert Factors(table).of(element, q) == pytest.approx(f, rel=1e-6), (table, element)


@pytest.mark.parametrize("name", CRYSTALS)
def test_forbidden_reflections(name):
    atoms = CRYSTALS[name]()
    group = {"Al": 225, "Fe": 229, "Si": 227, "NaCl": 225, "beta-Mn": 213}[name]
    operations = gemmi.find_spacegroup_by_number(group).operations()  # absences do not depend on the origin
    hkl = nodes_within(atoms.cell[:], 2.0)
    squared = np.abs(structure_factors(atoms, hkl, Factors("lobato"))) ** 2
    absent = np.array([operations.is_systematically_absent(h.tolist()) for h in hkl])
    assert absent.sum() > 5
    assert squared[absent].max() < 1e-10 * squared.max()
    assert np.median(squared[~absent]) > 1e-6 * squared.max()


# --- positions


def test_pymatgen():
    """Its positions on the film are lambda L / d, without the tangent; ours lie at L tan(2 theta)."""
    from pymatgen.analysis.diffraction.tem import TEMCalculator
    from pymatgen.core import Lattice, Structure

    structure = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.0495), ["Al"], [(0, 0, 0)])
    theirs = TEMCalculator(voltage=200, beam_direction=(0, 0, 1), camera_length=800).get_pattern(structure)
    radius = {tuple(hkl): np.hypot(*xy) for hkl, xy in zip(theirs["(hkl)"], theirs["Position"], strict=True)}
    table = reflections(CRYSTALS["Al"](), 1.6, Factors(), (0, 0, 1), 200.0, Detector(0.8, 63.5, 256))
    zero_order = np.flatnonzero((table["l"] == 0) & (table["g_per_angstrom"] > 0))
    compared = 0
    for i in zero_order:
        film = radius.get((table["h"][i], table["k"][i], table["l"][i]))
        if film is not None:
            wavelength = geometry.wavelength(200.0)
            sine = wavelength * table["g_per_angstrom"][i]
            assert film == pytest.approx(800.0 * sine, rel=1e-6)
            assert table["radius_mm"][i] == pytest.approx(film / np.sqrt(1.0 - sine**2), rel=1e-6)
            compared += 1
    assert compared > 20


# --- a whole block of displaced atoms


def test_lammps_saed():
    """Intensities |A|^2 / N of a displaced block, Bragg and between, at nodes near the Ewald sphere.

    LAMMPS centres its sphere at +k z where ours is at -k z, so its crystal is ours mirrored in z. Its file gives six
    digits, so 5e-6 is rounding; both use the table 4.3.2.2.
    """
    block = bulk("Al", cubic=True, a=4.05) * (6, 5, 4)
    rng = np.random.default_rng(7)
    block.symbols[rng.choice(len(block), 90, replace=False)] = "Ni"
    block.positions += rng.normal(0.0, 0.1, (len(block), 3))
    wavelength, reach, spacing, shell = 0.08, 1.8, (0.04, 0.05, 0.016), 0.006
    found = lammps_saed.saed(block, wavelength, reach, spacing, shell)
    g, theirs = found.g, found.intensities

    mirrored = block.copy()
    mirrored.positions[:, 2] *= -1.0
    ours = np.abs(direct.amplitudes(Specimen.from_atoms(mirrored).view((0, 0, 1)), g * [1, 1, -1], Factors())) ** 2
    assert theirs == pytest.approx(ours / len(block), rel=1e-5)
    assert theirs.max() > 1e3 * np.median(theirs)  # Bragg spots and what lies between

    # and these are the nodes around our sphere, mirrored: all of them, and not those around the other sphere
    k = 1.0 / wavelength
    axes = [step * np.arange(-int(reach / step) - 1, int(reach / step) + 2) for step in spacing]
    mesh = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    near = np.abs(np.linalg.norm(mesh * [1, 1, -1] + [0, 0, k], axis=1) - k) < shell
    expected = mesh[near & (np.linalg.norm(mesh, axis=1) < reach)]
    assert len(expected) > 1000
    assert set(map(tuple, np.rint(g / spacing).astype(int))) == set(map(tuple, np.rint(expected / spacing).astype(int)))
    assert np.abs(geometry.excitation_error(g * [1, 1, -1], k)).max() < 1.02 * shell
    assert g[:, 2].max() > 0.1
