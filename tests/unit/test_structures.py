"""Structures survive the way through files, and files that cannot be meant are refused in plain words."""

import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read as ase_read

from defraction.defects.dislocation import build as build_dislocation
from defraction.hosts import oriented_cell, read_hosts, unit_cell
from defraction.orientation import check_standard_orientation, standard_orientation
from defraction.structures import read_structures, write_structures

# What ten decimals of a fractional coordinate leave in a cell of 200 Å, with a wide margin.
ROUND_TRIP = 1e-6


def random_crystal(rng, n=40, cell=None):
    cell = np.tril(rng.uniform(0.5, 2, (3, 3)) + 6 * np.eye(3)) if cell is None else cell
    atoms = Atoms(rng.choice([6, 13, 26, 79], n), scaled_positions=rng.uniform(0, 1, (n, 3)), cell=cell, pbc=True)
    atoms.info["reference_cell"] = rng.normal(size=(3, 3)).tolist()
    atoms.info["repeat"] = [4, 3, 2]
    return atoms


def spread_crystal(rng):
    """A triclinic crystal without close pairs, as readers that merge near atoms need it."""
    atoms = random_crystal(rng, 27, np.array([[9.1, 0, 0], [-1.3, 8.2, 0], [0.7, 1.1, 10.3]]))
    grid = np.array(list(np.ndindex(3, 3, 3))) / 3 + 0.1
    atoms.set_scaled_positions(grid + rng.uniform(-0.05, 0.05, grid.shape))
    return atoms


@pytest.fixture(scope="module")
def hosts():
    return read_hosts(Path(__file__).parents[2] / "resources" / "hosts.csv")


def test_both_files_hold_the_same_frame(tmp_path):
    rng = np.random.default_rng(1)
    images = [random_crystal(rng) for _ in range(3)]
    images[1].positions -= 30.0  # positions outside the cell stay outside
    images[2].pbc = [True, False, True]
    metadata = {"condition": "al-thermal-100K", "note": 'a "quoted" \\ 10 Å', "seed": 3}
    write_structures(images, tmp_path / "x.cif", tmp_path / "x.extxyz", metadata)
    for path in ("x.cif", "x.extxyz"):
        again = read_structures(tmp_path / path)
        assert len(again) == 3
        for old, new in zip(images, again, strict=True):
            assert (old.numbers == new.numbers).all()
            assert (old.pbc == new.pbc).all()
            assert np.abs(old.positions - new.positions).max() < ROUND_TRIP
            assert np.abs(np.asarray(old.cell) - np.asarray(new.cell)).max() < ROUND_TRIP
            assert np.allclose(old.info["reference_cell"], new.info["reference_cell"], atol=1e-9)
            assert new.info["repeat"] == [4, 3, 2]
            assert new.info["origin"] == metadata


def test_origin_of_a_file_is_kept_when_it_is_written_again(tmp_path):
    write_structures([random_crystal(np.random.default_rng(2))], tmp_path / "a.cif", metadata={"by": "first"})
    write_structures(read_structures(tmp_path / "a.cif"), tmp_path / "b.cif")
    assert read_structures(tmp_path / "b.cif")[0].info["origin"] == {"by": "first"}


def test_other_readers_see_the_same_crystal(tmp_path):
    import gemmi
    from pymatgen.core import Structure

    atoms = spread_crystal(np.random.default_rng(3))
    write_structures([atoms], tmp_path / "x.cif", tmp_path / "x.extxyz")
    fractions, lengths = atoms.get_scaled_positions(), atoms.cell.cellpar()

    by_ase = ase_read(tmp_path / "x.cif")
    by_pymatgen = Structure.from_file(tmp_path / "x.cif")
    by_gemmi = gemmi.read_small_structure(str(tmp_path / "x.cif"))
    found = {
        "ase": (by_ase.numbers, by_ase.get_scaled_positions(), by_ase.cell.cellpar()),
        "pymatgen": (by_pymatgen.atomic_numbers, by_pymatgen.frac_coords, by_pymatgen.lattice.parameters),
        "gemmi": (
            [site.element.atomic_number for site in by_gemmi.sites],
            np.array([site.fract.tolist() for site in by_gemmi.sites]),
            by_gemmi.cell.parameters,
        ),
    }
    for name, (numbers, scaled, parameters) in found.items():
        difference = np.asarray(scaled)[:, None] - fractions[None]
        distances = np.linalg.norm((difference - np.round(difference)) @ atoms.cell.array, axis=-1)
        match = distances.argmin(axis=1)  # pymatgen sorts the atoms by element
        assert sorted(match) == list(range(len(atoms))), name
        assert distances.min(axis=1).max() < 1e-5, name
        assert (np.asarray(numbers) == atoms.numbers[match]).all(), name
        assert np.abs(np.array(parameters) - lengths).max() < 1e-5, name
    assert np.abs(ase_read(tmp_path / "x.extxyz").positions - atoms.positions).max() < 1e-5
    assert np.abs(by_ase.cell.array - atoms.cell.array).max() < 1e-5  # ASE uses the same standard orientation


def test_other_readers_see_every_snapshot(tmp_path):
    """Thermal conditions are several blocks of one CIF."""
    import gemmi
    from pymatgen.io.cif import CifParser

    images = [spread_crystal(np.random.default_rng(seed)) for seed in (5, 6, 7)]
    for image in images:
        image.numbers[:] = 13  # so that no reader sorts them
    write_structures(images, tmp_path / "x.cif", tmp_path / "x.extxyz")
    found = {
        "ase": [a.get_scaled_positions() for a in ase_read(tmp_path / "x.cif", ":")],
        "pymatgen": [s.frac_coords for s in CifParser(tmp_path / "x.cif").parse_structures(primitive=False)],
        "gemmi": [
            np.array([site.fract.tolist() for site in gemmi.make_small_structure_from_block(block).sites])
            for block in gemmi.cif.read(str(tmp_path / "x.cif"))
        ],
        "extended XYZ": [a.get_scaled_positions() for a in ase_read(tmp_path / "x.extxyz", ":")],
    }
    for name, snapshots in found.items():
        assert len(snapshots) == 3, name
        for image, fractions in zip(images, snapshots, strict=True):
            difference = fractions - image.get_scaled_positions()
            distance = np.linalg.norm((difference - np.round(difference)) @ image.cell.array, axis=1)
            assert distance.max() < 1e-5, name


def jiggled(hosts):
    """A cell of 3 x 3 x 3, whose sites lie at thirds, with every atom moved by some 1e-3 Å."""
    atoms = unit_cell(hosts["Al"]).repeat(3)
    atoms.info = {}
    atoms.rattle(1e-3, seed=2)
    return atoms


def block(hosts):
    """Dislocations in a block that ends at its faces, whose atoms lie near a third of its edges."""
    settings = {"count": 2, "spacing": 20, "size": [60, 32], "line_repeat": 3}
    return build_dislocation(hosts["Al"], settings)


def shipped(name):
    return lambda hosts: ase_read(Path(__file__).parents[2] / f"resources/structures/{name}.extxyz", -1)


@pytest.mark.parametrize(
    "make",
    [shipped("al-vacancy-3x3x3"), shipped("al-substitution-si-3x3x3"), jiggled, block],
    ids=["vacancy", "silicon", "jiggled", "dislocations"],
)
def test_atoms_near_a_third_of_the_cell_stay_where_they_are(hosts, tmp_path, make):
    """pymatgen takes what lies within 1e-4 of 1/3 and 2/3 for rounded, by default: up to 8e-4 Å in 3 x 3 x 3 cells."""
    import gemmi
    from pymatgen.core import Structure
    from scipy.spatial import cKDTree

    atoms = make(hosts)
    write_structures([atoms], tmp_path / "x.cif")
    assert "_defraction_moved" in (tmp_path / "x.cif").read_text()
    (again,) = read_structures(tmp_path / "x.cif")
    assert np.abs(again.positions - atoms.positions).max() < 1e-7  # not wrapped either
    found = {
        "ase": ase_read(tmp_path / "x.cif").get_scaled_positions(),
        "pymatgen": Structure.from_file(tmp_path / "x.cif").frac_coords,
        "gemmi": np.array([s.fract.tolist() for s in gemmi.read_small_structure(str(tmp_path / "x.cif")).sites]),
    }
    edges = atoms.cell.lengths()
    tree = cKDTree((atoms.cell.scaled_positions(atoms.positions) % 1 * edges) % edges, boxsize=edges)
    for name, fractions in found.items():
        distance, match = tree.query((fractions % 1 * edges) % edges)
        assert sorted(match) == list(range(len(atoms))), name
        assert distance.max() < 1e-5, name


def test_large_cells_are_fast(tmp_path):
    rng = np.random.default_rng(4)
    atoms = random_crystal(rng, 20_000, np.diag([160.0, 120.0, 80.0]))
    start = time.process_time()
    write_structures([atoms], tmp_path / "x.cif")
    again = read_structures(tmp_path / "x.cif")[0]
    assert np.abs(again.positions - atoms.positions).max() < ROUND_TRIP
    assert time.process_time() - start < 5.0  # measured 0.3 s; a loop over pairs would take minutes


@pytest.mark.parametrize(
    ("symmetry", "sites", "count"),
    [
        ("_symmetry_space_group_name_H-M 'F m -3 m'", "Na1 0 0 0\nCl1 0.5 0.5 0.5", 8),
        ("_symmetry_Int_Tables_number 225", "Na1 0 0 0\nCl1 0.5 0.5 0.5", 8),
        ("_space_group_name_H-M_alt 'F d -3 m:2'", "C1 0.125 0.125 0.125", 8),
        ("_space_group_name_Hall '-F 4vw 2vw 3'", "C1 0.125 0.125 0.125", 8),
        ("_symmetry_space_group_name_H-M 'P 42/m n m'", "Ti1 0 0 0\nO1 0.305 0.305 0", 6),
        ("loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n'-x,-y,-z'", "O1 0.0001 0.5 0\nH1 0.2 0.1 0.3", 3),
    ],
)
def test_symmetry_is_expanded_in_the_written_cell(tmp_path, symmetry, sites, count):
    text = f"""data_x
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
{symmetry}
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
{sites}
"""
    (tmp_path / "x.cif").write_text(text)
    (atoms,) = read_structures(tmp_path / "x.cif")
    assert len(atoms) == count
    assert np.allclose(atoms.cell.cellpar(), [5.64, 5.64, 5.64, 90, 90, 90])
    assert atoms.info["reference_cell"] == np.asarray(atoms.cell).tolist()
    assert atoms.info["repeat"] == [1, 1, 1]


def test_expansion_agrees_with_ase_on_a_general_position(tmp_path):
    from ase.spacegroup import crystal

    expected = crystal("Si", [(0.11, 0.23, 0.37)], spacegroup=213, cellpar=[8, 8, 8, 90, 90, 90])
    (tmp_path / "x.cif").write_text(
        "data_x\n"
        + "".join(f"_cell_length_{c} 8\n" for c in "abc")
        + "".join(f"_cell_angle_{c} 90\n" for c in ("alpha", "beta", "gamma"))
        + "_symmetry_space_group_name_H-M 'P 41 3 2'\nloop_\n_atom_site_type_symbol\n"
        + "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nSi4+ 0.11(1) 0.23 0.37\n"
    )
    (atoms,) = read_structures(tmp_path / "x.cif")
    assert len(atoms) == 24
    order = [np.lexsort(np.round(x.get_scaled_positions(), 6).T) for x in (atoms, expected)]
    assert np.allclose(atoms.get_scaled_positions()[order[0]], expected.get_scaled_positions()[order[1]], atol=1e-9)


def test_rounded_special_positions_are_made_exact(tmp_path):
    (tmp_path / "x.cif").write_text(
        "data_x\n_cell_length_a 3\n_cell_length_b 3\n_cell_length_c 5\n_cell_angle_alpha 90\n_cell_angle_beta 90\n"
        "_cell_angle_gamma 120\n_symmetry_space_group_name_H-M 'P 63/m m c'\nloop_\n_atom_site_label\n"
        "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nMg1 0.333 0.667 0.25\n"
    )
    (atoms,) = read_structures(tmp_path / "x.cif")
    assert len(atoms) == 2
    fractions = atoms.get_scaled_positions()
    assert np.allclose(
        fractions[np.argsort(fractions[:, 0])], [[1 / 3, 2 / 3, 1 / 4], [2 / 3, 1 / 3, 3 / 4]], atol=1e-9
    )


HEAD = "".join(f"_cell_length_{c} 4\n" for c in "abc") + "".join(
    f"_cell_angle_{c} 90\n" for c in ("alpha", "beta", "gamma")
)
LOOP = "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("hello", "not a valid CIF"),
        ("data_x\nloop_\n_a\n_b\n1 2 3\n", "not a valid CIF"),
        ("data_x\n_a 1\n", "no data block lists atoms"),
        ("data_x\n" + LOOP + "Al1 0 0 0\n", "_cell_length_a is missing"),
        ("data_x\n" + HEAD + LOOP + "Al1 0 ? 0\n", "site Al1 are not numbers"),
        ("data_x\n" + HEAD + LOOP + "Xx1 0 0 0\n", "not a chemical element"),
        (
            "data_x\n" + HEAD + "_symmetry_space_group_name_H-M 'F q q q'\n" + LOOP + "Al1 0 0 0\n",
            "is not known",
        ),
        ("data_x\n" + HEAD + "_symmetry_space_group_name_H-M 'F d -3 m'\n" + LOOP + "C1 0 0 0\n", "two origins"),
        ("data_x\n" + HEAD + "_symmetry_Int_Tables_number 227\n" + LOOP + "C1 0 0 0\n", "two origins"),
        ("data_x\n" + HEAD + "loop_\n_space_group_symop_operation_xyz\n'x,y'\n" + LOOP + "C1 0 0 0\n", "'x'"),
        ("data_x\n" + HEAD + LOOP + "Al1 0 0 0\nFe1 0.01 0 0\n", "Al1 and Fe1 are 0.04 Å apart"),
        (
            "data_x\n" + HEAD + LOOP.replace("_label\n", "_label\n_atom_site_occupancy\n") + "Al1 0.5 0 0 0\n",
            "occupied to 0.5",
        ),
    ],
)
def test_faulty_cif_is_refused_with_its_name(tmp_path, text, fault):
    path = tmp_path / "faulty.cif"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"faulty\.cif") as caught:
        read_structures(path)
    if fault != "'x'":
        assert fault in str(caught.value)


def test_unreadable_and_missing_files(tmp_path):
    (tmp_path / "x.extxyz").write_text("three\nAl 0 0 0\n")
    with pytest.raises(ValueError, match=r"x\.extxyz: cannot be read"):
        read_structures(tmp_path / "x.extxyz")
    with pytest.raises(FileNotFoundError, match="absent"):
        read_structures(tmp_path / "absent.cif")


def test_a_site_listed_twice_counts_once(tmp_path):
    (tmp_path / "x.cif").write_text("data_x\n" + HEAD + LOOP + "Al1 0 0 0\nAl2 0.99999 0 0\nAl3 0.5 0.5 0\n")
    assert len(read_structures(tmp_path / "x.cif")[0]) == 2


def test_writing_refuses_what_the_cif_cannot_say(tmp_path):
    atoms = random_crystal(np.random.default_rng(5))
    atoms.rotate(20, "z", rotate_cell=True)
    with pytest.raises(ValueError, match="standard orientation"):
        write_structures([atoms], tmp_path / "x.cif")
    with pytest.raises(ValueError, match="no structures"):
        write_structures([], tmp_path / "x.cif")
    atoms = random_crystal(np.random.default_rng(5))
    atoms.positions[3, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        write_structures([atoms], tmp_path / "x.cif")
    atoms = random_crystal(np.random.default_rng(5))
    atoms.info["repeat"] = [1, 0, 1]
    with pytest.raises(ValueError, match="repeat"):
        write_structures([atoms], tmp_path / "x.cif")


def test_standard_orientation_turns_everything_together():
    rng = np.random.default_rng(6)
    atoms = random_crystal(rng)
    turned = atoms.copy()
    axis = rng.normal(size=3)
    turned.rotate(77, axis, rotate_cell=True)
    helper = Atoms("H3", positions=atoms.info["reference_cell"])
    helper.rotate(77, axis)
    turned.info["reference_cell"] = helper.positions.tolist()
    with pytest.raises(ValueError, match="standard orientation"):
        check_standard_orientation(turned)
    restored = standard_orientation(turned)
    check_standard_orientation(restored)
    assert np.allclose(restored.cell, atoms.cell)
    assert np.allclose(restored.positions, atoms.positions)
    assert np.allclose(restored.info["reference_cell"], atoms.info["reference_cell"])
    turned.set_cell(np.asarray(turned.cell)[[1, 0, 2]])
    with pytest.raises(ValueError, match="left-handed"):
        standard_orientation(turned)


def test_a_snapshot_says_in_both_files_when_and_how_warm_it_was(hosts, tmp_path):
    """As molecular dynamics writes it and a job reads it: numbers of NumPy on the way."""
    atoms = unit_cell(hosts["Al"])
    atoms.info.update(flight=1, step=np.int64(20), time=40.0, temperature=np.float64(301.5))
    atoms.write(tmp_path / "aimd.extxyz")
    (read,) = read_structures(tmp_path / "aimd.extxyz")
    write_structures([read], tmp_path / "x.cif", tmp_path / "x.extxyz", {"rule": "structure_thermal"})
    for name in ("x.cif", "x.extxyz"):
        origin = read_structures(tmp_path / name)[0].info["origin"]
        assert origin["snapshot"] == {"flight": 1, "step": 20, "time": 40.0, "temperature": 301.5}, name
        assert origin["rule"] == "structure_thermal"


def test_hosts(hosts, tmp_path):
    aluminium, iron = hosts["Al"], hosts["Fe"]
    assert len(unit_cell(aluminium)) == 4
    assert len(unit_cell(iron)) == 2
    assert unit_cell(iron).get_initial_magnetic_moments().tolist() == [2.2, 2.2]
    assert not unit_cell(aluminium).has("initial_magmoms")
    assert unit_cell(aluminium, 4.04).cell.lengths() == pytest.approx([4.04] * 3)
    for host in (aluminium, iron):
        distances = unit_cell(host).repeat(2).get_all_distances(mic=True)
        assert distances[distances > 0].min() == pytest.approx(host.nearest_neighbour)
    (tmp_path / "hosts.csv").write_text(
        "name,crystal_structure,space_group,lattice_parameter,c11,c12,c44,magnetic_moment,lattice_reference,"
        "elastic_reference\nFe,bcc,229,2.8665,135,232,117,2.2,somewhere,someone\n"
    )
    with pytest.raises(ValueError, match=r"line 2: Fe is not a mechanically stable"):
        read_hosts(tmp_path / "hosts.csv")


@pytest.mark.parametrize("vectors", [[[-0.5, 0.5, 0], [1, 1, 1], [0.5, 0.5, -1]], [[1, 1, 0], [-1, 1, 0], [0, 0, 1]]])
def test_an_oriented_cell_is_the_same_crystal(hosts, vectors):
    host = hosts["Al"]
    atoms = oriented_cell(host, vectors)
    check_standard_orientation(atoms)
    reference_cell = np.array(atoms.info["reference_cell"])
    assert len(atoms) / atoms.cell.volume == pytest.approx(4 / host.lattice_parameter**3)
    # every atom is a lattice point of the turned cube
    points = 2 * (atoms.positions @ np.linalg.inv(reference_cell))
    assert np.abs(points - np.round(points)).max() < 1e-9
    assert (np.round(points).sum(axis=1) % 2 == 0).all()
    with pytest.raises(ValueError, match="not perpendicular"):
        oriented_cell(host, [[1, 0, 0], [1, 1, 0], [0, 0, 1]])
    with pytest.raises(ValueError, match="not lattice vectors"):
        oriented_cell(host, [[0.3, 0, 0], [0, 1, 0], [0, 0, 1]])
