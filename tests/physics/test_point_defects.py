"""Point defects: compositions, interstitial sites, and displacements that are recovered from positions alone."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from defraction.defects.point import (
    INTERSTITIAL_SITES,
    build,
    interstitial_sites,
    point_defect,
    supercell,
)
from defraction.hosts import read_hosts, unit_cell
from defraction.site_displacements import sites_of
from defraction.structures import read_structures, write_structures

HOSTS = read_hosts(Path(__file__).parents[2] / "resources" / "hosts.csv")


def unit(name):
    return unit_cell(HOSTS[name])


@pytest.mark.parametrize(("name", "n", "sites"), [("Al", 2, 32), ("Al", 3, 108), ("Fe", 3, 54), ("Fe", 4, 128)])
def test_the_published_concentrations(name, n, sites):
    solute = {"Al": "Si", "Fe": "Au"}[name]
    perfect = supercell(unit(name), [n] * 3)
    vacancy = point_defect(unit(name), {"kind": "vacancy", "supercell": [n] * 3})
    substitution = point_defect(unit(name), {"kind": "substitution", "solute": solute, "supercell": [n] * 3})
    assert (len(perfect), len(vacancy), len(substitution)) == (sites, sites - 1, sites)
    assert substitution.get_chemical_symbols().count(solute) == 1
    assert np.allclose(substitution.positions, perfect.positions)
    for atoms in (perfect, vacancy, substitution):
        assert np.allclose(atoms.cell, np.eye(3) * n * HOSTS[name].lattice_parameter)
        assert np.allclose(atoms.info["reference_cell"], np.eye(3) * HOSTS[name].lattice_parameter)
        assert atoms.info["repeat"] == [1, 1, 1]


def test_only_host_atoms_of_iron_are_magnetic():
    atoms = point_defect(unit("Fe"), {"kind": "substitution", "solute": "Au", "supercell": [2, 2, 2]})
    moments = atoms.get_initial_magnetic_moments()
    assert moments[atoms.symbols == "Au"].tolist() == [0.0]
    assert (moments[atoms.symbols == "Fe"] == 2.2).all()
    atoms = point_defect(
        unit("Fe"), {"kind": "interstitial", "solute": "C", "site": "octahedral", "supercell": [2, 2, 2]}
    )
    assert atoms.get_initial_magnetic_moments()[-1] == 0.0


@pytest.mark.parametrize(
    ("name", "site", "neighbours", "distance"),
    [
        ("Al", "tetrahedral", 4, np.sqrt(3) / 4),
        ("Al", "octahedral", 6, 1 / 2),
        ("Fe", "tetrahedral", 4, np.sqrt(5) / 4),
        ("Fe", "octahedral", 2, 1 / 2),
        ("Si", "tetrahedral", 4, np.sqrt(3) / 4),
        ("Si", "hexagonal", 6, np.sqrt(11) / 8),
    ],
)
@pytest.mark.parametrize("n", [[2, 2, 2], [3, 2, 4]])
def test_interstitial_sites(name, site, neighbours, distance, n):
    atoms = point_defect(unit(name), {"kind": "interstitial", "solute": "C", "site": site, "supercell": n})
    assert atoms.symbols[-1] == "C"
    assert len(atoms) == np.prod(n) * len(unit(name)) + 1
    distances = atoms.get_distances(len(atoms) - 1, range(len(atoms) - 1), mic=True) / HOSTS[name].lattice_parameter
    assert distances.min() == pytest.approx(distance)
    assert (np.abs(distances - distance) < 1e-6).sum() == neighbours


def test_a_condition_is_built_from_its_files(tmp_path):
    (tmp_path / "lattice.json").write_text('{"lattice_parameter": 4.04}')
    defect = {"kind": "substitution", "solute": "Si", "site": None}
    settings = {"family": "point", "relaxed": True, "defect": defect, "supercell": [2, 3, 2], "repeat": [10, 9, 8]}
    unrelaxed = build(HOSTS["Al"], settings, lattice=tmp_path / "lattice.json")
    assert unrelaxed.cell.lengths() == pytest.approx([8.08, 12.12, 8.08])
    assert unrelaxed.info["repeat"] == [10, 9, 8]

    relaxed = unrelaxed.copy()
    relaxed.rattle(0.02, seed=1)
    relaxed.write(tmp_path / "relaxed.extxyz", columns=["symbols", "positions"], write_info=False)
    atoms = build(HOSTS["Al"], settings, relaxed=tmp_path / "relaxed.extxyz")
    assert np.allclose(atoms.positions, relaxed.positions, atol=1e-8)
    assert np.allclose(atoms.info["reference_cell"], np.eye(3) * 4.04)
    assert atoms.info["repeat"] == [10, 9, 8]

    perfect = build(HOSTS["Al"], {**settings, "defect": None})
    assert set(perfect.symbols) == {"Al"}
    assert perfect.cell.lengths() == pytest.approx(np.array([2, 3, 2]) * HOSTS["Al"].lattice_parameter)
    with pytest.raises(ValueError, match="the settings mean Al48"):
        build(HOSTS["Al"], {**settings, "defect": None}, relaxed=tmp_path / "relaxed.extxyz")


@pytest.mark.parametrize("kind", ["vacancy", "substitution", "interstitial", "thermal"])
def test_displacements_come_back_whatever_the_order(kind):
    rng = np.random.default_rng(3)
    perfect = supercell(unit("Al"), [3, 3, 3])
    settings = {"kind": kind, "supercell": [3, 3, 3]}
    if kind != "vacancy":
        settings["solute"] = "C"
    if kind == "interstitial":
        settings["site"] = "tetrahedral"
    atoms = perfect.copy() if kind == "thermal" else point_defect(unit("Al"), settings)
    shifts = rng.normal(scale=0.1, size=(len(atoms), 3))
    shifts[-1] = [0.3, -0.2, 0.1]
    moved = atoms.copy()
    moved.positions += shifts + [0.2, -0.1, 0.15]  # with a drift of the whole crystal
    moved.wrap()
    order = rng.permutation(len(atoms))
    found = sites_of(moved[order], "fcc", "Al")
    on_sites = len(atoms) - (kind == "interstitial")
    expected = shifts - shifts[:on_sites].mean(axis=0)
    assert np.allclose(found.displacement, expected[order[order < on_sites]], atol=1e-12)
    assert len(found.interstitial) == (kind == "interstitial")
    assert len(found.vacant) == (kind == "vacancy")


HOST_OF = {"fcc": "Al", "bcc": "Fe", "diamond": "Si"}
MULTIPLICITY = {
    ("fcc", "tetrahedral"): 8,  # 8c of space group 225
    ("fcc", "octahedral"): 4,  # 4b
    ("bcc", "tetrahedral"): 12,  # 12d of 229
    ("bcc", "octahedral"): 6,  # 6b
    ("diamond", "tetrahedral"): 8,  # 8b of 227
    ("diamond", "hexagonal"): 16,  # 16d
}


@pytest.mark.parametrize(("structure", "site"), INTERSTITIAL_SITES)
def test_all_interstitial_sites_of_one_kind_are_alike(structure, site):
    cell = unit(HOST_OF[structure])
    sites = interstitial_sites(cell, site)
    assert len(sites) == MULTIPLICITY[structure, site]
    surroundings = []
    for fractions in sites:
        atoms = cell.repeat(2)
        atoms += Atoms("C", positions=[fractions @ cell.cell])
        surroundings.append(np.sort(atoms.get_distances(-1, range(len(atoms) - 1), mic=True)))
    assert np.allclose(surroundings, surroundings[0])
    assert np.allclose(sites[0], INTERSTITIAL_SITES[structure, site])


def at_random(name, cells=(4, 4, 4), seed=7, **settings):
    return point_defect(unit(name), {"supercell": list(cells), "seed": seed, **settings})


def vacant(atoms, perfect):
    """Numbers of the sites of `perfect` without an atom."""
    distances = np.linalg.norm(perfect.positions[:, None] - atoms.positions[None], axis=-1).min(axis=1)
    return set(np.flatnonzero(distances > 1e-6).tolist())


@pytest.mark.parametrize("concentration", [0, 0.004, 0.01, 0.1, 0.25])
def test_a_sweep_has_the_number_nearest_to_the_concentration(concentration):
    atoms = at_random("Fe", kind="vacancy", concentration=concentration)
    placed = atoms.info["defects"]["placed"][0]
    assert atoms.info["defects"]["sites"] == 128
    assert abs(placed["count"] - 128 * concentration) <= 0.5
    assert placed["fraction"] == placed["count"] / 128
    assert len(atoms) == 128 - placed["count"]
    assert len(vacant(atoms, supercell(unit("Fe"), [4, 4, 4]))) == placed["count"]


def test_lower_concentrations_are_part_of_higher_ones():
    perfect = supercell(unit("Al"), [4, 4, 4])
    sets = [vacant(at_random("Al", kind="vacancy", concentration=c), perfect) for c in (0.02, 0.1, 0.25)]
    assert sets[0] < sets[1] < sets[2]
    again = vacant(at_random("Al", kind="vacancy", concentration=0.1), perfect)
    other = vacant(at_random("Al", kind="vacancy", concentration=0.1, seed=8), perfect)
    assert sets[1] == again != other
    apart = [
        vacant(at_random("Al", kind="vacancy", count=n, minimum_separation=4.5), perfect) for n in (3, 9)
    ]  # the same holds with a separation
    assert apart[0] < apart[1]


def test_random_sites_do_not_depend_on_the_order_of_atoms():
    settings = {"kind": "vacancy", "concentration": 0.2, "supercell": [3, 3, 3], "seed": 2}
    one = point_defect(unit("Si"), settings)
    other = point_defect(unit("Si")[[5, 2, 7, 0, 1, 6, 4, 3]], settings)
    assert np.allclose(*(np.array(sorted(np.round(a.positions, 8).tolist())) for a in (one, other)))


def test_random_sites_are_spread_evenly():
    """Vacancies of many seeds fall on every site equally often (chi square, 107 degrees of freedom, five sigma)."""
    perfect = supercell(unit("Al"), [3, 3, 3])
    hits = np.zeros(108)
    for seed in range(60):
        hits[list(vacant(at_random("Al", [3, 3, 3], seed, kind="vacancy", count=27), perfect))] += 1
    chi_square = ((hits - 15) ** 2 / (15 * (1 - 0.25))).sum()
    assert abs(chi_square - 107) < 5 * np.sqrt(2 * 107)


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "vacancy", "count": 6},
        {"kind": "substitution", "solute": "Au", "count": 6},
        {"kind": "interstitial", "solute": "C", "site": "tetrahedral", "count": 6},
    ],
)
def test_defects_keep_their_distance_across_the_faces(entry):
    perfect = supercell(unit("Al"), [4, 4, 4])
    atoms = at_random("Al", defects=[entry], minimum_separation=6.0)
    if entry["kind"] == "vacancy":
        points = perfect.positions[sorted(vacant(atoms, perfect))]
    else:
        points = atoms.positions[atoms.symbols == entry["solute"]]
    assert len(points) == 6
    distances = Atoms(["H"] * 6, positions=points, cell=perfect.cell, pbc=True).get_all_distances(mic=True)
    assert distances[np.triu_indices(6, 1)].min() >= 6.0 - 1e-6
    with pytest.raises(ValueError, match=r"only \d+ of 60 fit"):
        at_random("Al", defects=[{**entry, "count": 60}], minimum_separation=6.0)


def test_mixed_kinds_share_a_supercell():
    defects = [
        {"kind": "substitution", "solute": "Si", "concentration": 0.1},
        {"kind": "vacancy", "position": [[0, 0, 0], [0, 1, 0]]},
        {"kind": "interstitial", "solute": "C", "site": "octahedral", "count": 4},
        {"kind": "substitution", "solute": "Cu", "concentration": 0.05},
    ]
    atoms = at_random("Al", defects=defects)
    counts = [placed["count"] for placed in atoms.info["defects"]["placed"]]
    assert counts == [26, 2, 4, 13]
    symbols = atoms.get_chemical_symbols()
    assert [symbols.count(s) for s in ("Si", "Cu", "C", "Al")] == [26, 13, 4, 256 - 2 - 26 - 13]
    assert symbols[-4:] == ["C"] * 4
    perfect = supercell(unit("Al"), [4, 4, 4])
    corners = perfect.positions[sorted(vacant(atoms, perfect))] / HOSTS["Al"].lattice_parameter
    assert np.allclose(corners, [[0, 0, 0], [0, 1, 0]])
    assert atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)].min() == pytest.approx(4.0496 / 2)


def test_sites_are_chosen_by_position_or_neighbourhood():
    cells = {"supercell": [3, 3, 3]}
    perfect = supercell(unit("Al"), [3, 3, 3])
    at = (perfect.positions[42] / HOSTS["Al"].lattice_parameter).tolist()
    by_position = point_defect(unit("Al"), {"kind": "vacancy", "position": at, **cells})
    image = point_defect(unit("Al"), {"kind": "vacancy", "position": [at[0] + 3, at[1], at[2] - 3], **cells})
    assert vacant(by_position, perfect) == vacant(image, perfect) == {42}
    a = HOSTS["Al"].lattice_parameter
    for shell, distance in enumerate(np.sqrt([1 / 2, 1, 3 / 2, 2]) * a, start=1):
        pair = {"defects": [{"kind": "vacancy"}, {"kind": "vacancy", "neighbour": {"shell": shell}}], **cells}
        one, two = sorted(vacant(point_defect(unit("Al"), pair), perfect))
        assert perfect.get_distance(one, two, mic=True) == pytest.approx(distance)
    frenkel = point_defect(
        unit("Al"),
        {
            "defects": [
                {"kind": "interstitial", "solute": "Al", "site": "octahedral", "position": [1.5, 0.5, 0.5]},
                {"kind": "vacancy", "neighbour": {"of": 0, "shell": 2}},
                {"kind": "interstitial", "solute": "C", "site": "tetrahedral", "neighbour": {"of": 1, "shell": 1}},
            ],
            **cells,
        },
    )
    (site,) = vacant(frenkel, perfect)
    centre = perfect.positions[site]
    vectors = frenkel.positions[-2:] - centre
    vectors -= np.round(vectors / (3 * a)) * 3 * a
    assert np.linalg.norm(vectors, axis=1) / a == pytest.approx([np.sqrt(3) / 2, np.sqrt(3) / 4])


def test_a_block_holds_defects_without_repeating_them():
    settings = {"block": [10, 8, 6], "defects": [{"kind": "vacancy", "concentration": 0.05}], "seed": 1}
    atoms = build(HOSTS["Fe"], settings)
    perfect = build(HOSTS["Fe"], {"block": [10, 8, 6]})
    assert len(perfect) == 960 and len(atoms) == 912
    assert atoms.info["repeat"] == [1, 1, 1] and not atoms.pbc.any()
    assert np.allclose(atoms.info["reference_cell"], unit("Fe").cell)
    # the mean of |A|^2 over the Brillouin zone, away from spots, is that of a random alloy: n c (1 - c) per site
    rng = np.random.default_rng(0)
    q = rng.integers(1, [10, 8, 6], (400, 3)) / np.array([10, 8, 6]) / HOSTS["Fe"].lattice_parameter
    whole = np.abs(np.exp(2j * np.pi * q @ perfect.positions.T).sum(axis=1))
    diffuse = np.abs(np.exp(2j * np.pi * q @ atoms.positions.T).sum(axis=1))[whole < 1e-6] ** 2
    assert diffuse.mean() / (960 * 0.05 * 0.95) == pytest.approx(1, abs=0.25)


def test_what_was_placed_goes_with_the_structure(tmp_path):
    atoms = at_random("Al", kind="substitution", solute="Si", concentration=0.1)
    write_structures([atoms], tmp_path / "x.cif", tmp_path / "x.extxyz")
    assert read_structures(tmp_path / "x.extxyz")[0].info["defects"] == atoms.info["defects"]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"kind": "vacancy", "supercell": [0, 2, 2]}, "positive whole numbers"),
        ({"kind": "vacancy", "supercell": [2, -2, 2]}, "positive whole numbers"),
        ({"kind": "vacancy", "supercell": [2, 2.5, 2]}, "positive whole numbers"),
        ({"kind": "vacancy"}, "needs the setting supercell"),
        ({"kind": "hole", "supercell": [2, 2, 2]}, "unknown kind"),
        ({"kind": "vacancy", "solute": "Si", "supercell": [2, 2, 2]}, "takes no solute"),
        ({"kind": "substitution", "supercell": [2, 2, 2]}, "needs a solute"),
        ({"kind": "substitution", "solute": "Qq", "supercell": [2, 2, 2]}, "not a chemical element"),
        ({"kind": "substitution", "solute": "Al", "supercell": [2, 2, 2]}, "no defect"),
        ({"kind": "interstitial", "solute": "C", "supercell": [2, 2, 2]}, "needs a site"),
        (
            {"kind": "interstitial", "solute": "C", "site": "middle", "supercell": [2, 2, 2]},
            "unknown interstitial site",
        ),
        (
            {"kind": "interstitial", "solute": "C", "site": "hexagonal", "supercell": [2, 2, 2]},
            "choose tetrahedral or octahedral",
        ),
        ({"kind": "vacancy", "concentraton": 0.1, "supercell": [2, 2, 2]}, "unknown setting of point defects: concent"),
        ({"defects": [{"kind": "vacancy", "number": 3}], "supercell": [2, 2, 2]}, "unknown setting number"),
        ({"kind": "vacancy", "defects": [{"kind": "vacancy"}], "supercell": [2, 2, 2]}, "unknown setting"),
        ({"defects": [], "supercell": [2, 2, 2]}, "empty"),
        ({"defects": [{"kind": "vacancy"}, {"kind": "vacancy"}], "supercell": [2, 2, 2]}, "taken already"),
        ({"kind": "vacancy", "position": [[0, 0, 0], [2, 0, 0]], "supercell": [2, 2, 2]}, "taken already"),
        ({"kind": "vacancy", "index": 3, "supercell": [2, 2, 2]}, "unknown setting of point defects: index"),
        ({"kind": "vacancy", "position": [0.5, 0.25, 0], "supercell": [2, 2, 2]}, "no such site"),
        ({"kind": "vacancy", "position": [0.5, 0.5], "supercell": [2, 2, 2]}, "position must be"),
        ({"kind": "vacancy", "neighbour": {"shell": 1}, "supercell": [2, 2, 2]}, "0 are placed before"),
        ({"kind": "vacancy", "count": 2, "position": [0, 0, 0], "supercell": [2, 2, 2]}, "not position and count"),
        ({"kind": "vacancy", "count": 2, "supercell": [2, 2, 2]}, "need a seed"),
        ({"kind": "vacancy", "count": 2.5, "seed": 1, "supercell": [2, 2, 2]}, "count must be"),
        ({"kind": "vacancy", "concentration": 25, "seed": 1, "supercell": [2, 2, 2]}, "0.01 is 1 %"),
        (
            {"kind": "vacancy", "concentration": 0.01, "seed": 1, "supercell": [2, 2, 2]},
            "of 32 sites is not one defect",
        ),
        ({"kind": "vacancy", "count": 33, "seed": 1, "supercell": [2, 2, 2]}, "only 32 of 33"),
        ({"kind": "vacancy", "concentration": 1, "seed": 1, "supercell": [2, 2, 2]}, "no atom is left"),
        ({"kind": "vacancy", "minimum_separation": 9, "supercell": [2, 2, 2]}, "own periodic image"),
        (
            {
                "kind": "vacancy",
                "position": [[0, 0, 0], [0.5, 0.5, 0]],
                "minimum_separation": 4,
                "supercell": [2, 2, 2],
            },
            "from another defect",
        ),
    ],
)
def test_impossible_settings_are_refused(settings, fault):
    with pytest.raises(ValueError, match=fault):
        point_defect(unit("Al"), settings)


def test_interstitials_need_a_crystal_whose_sites_are_known():
    simple_cubic = Atoms("Po", positions=[[0, 0, 0]], cell=[3.3] * 3, pbc=True)
    settings = {"kind": "interstitial", "solute": "C", "site": "octahedral", "supercell": [2, 2, 2]}
    with pytest.raises(ValueError, match="fcc, bcc, diamond"):
        point_defect(simple_cubic, settings)
