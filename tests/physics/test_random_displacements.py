"""Random displacements: their distribution, their seeds, and what they leave of the Bragg spots."""

from pathlib import Path

import numpy as np
import pytest

from defraction.defects.displacements import build, build_samples, displace
from defraction.hosts import read_hosts, unit_cell

HOSTS = read_hosts(Path(__file__).parents[2] / "resources" / "hosts.csv")
CELLS = [12, 11, 10]


def moved(name, distribution="gaussian", fraction=0.05, seed=3):
    displacement = {"distribution": distribution, "fraction": fraction, "seed": seed}
    return build(HOSTS[name], {"block": CELLS, "displacement": displacement})


def shifts(atoms, name):
    return atoms.positions - build(HOSTS[name], {"block": CELLS}).positions


@pytest.mark.parametrize("name", ["Al", "Fe", "Si"])
@pytest.mark.parametrize(("distribution", "factor", "kurtosis"), [("gaussian", 1, 3), ("uniform", 1 / np.sqrt(3), 1.8)])
def test_each_component_has_the_stated_distribution(name, distribution, factor, kurtosis):
    atoms = moved(name, distribution)
    found = shifts(atoms, name)
    sigma = 0.05 * HOSTS[name].nearest_neighbour * factor
    n = found.size
    assert atoms.info["displacement"]["sigma"] == pytest.approx(sigma)
    assert atoms.info["displacement"]["debye_waller"] == pytest.approx(8 * np.pi**2 * sigma**2)
    # five standard errors of mean, variance and covariance; that of the fourth moment is sqrt(96/n) for a Gaussian
    assert np.abs(found.mean(axis=0)).max() < 5 * sigma / np.sqrt(n / 3)
    covariance = np.cov(found.T, ddof=0) / sigma**2
    assert np.abs(covariance - np.eye(3)).max() < 5 * np.sqrt(2 / (n / 3))
    assert (found**4).mean() / sigma**4 == pytest.approx(kurtosis, abs=5 * np.sqrt(96 / n))
    if distribution == "uniform":
        assert np.abs(found).max() <= 0.05 * HOSTS[name].nearest_neighbour


def test_the_bragg_spots_weaken_by_the_stated_debye_waller_factor():
    atoms = moved("Al", fraction=0.04)
    a, b_factor = HOSTS["Al"].lattice_parameter, atoms.info["displacement"]["debye_waller"]
    for hkl in ([2, 0, 0], [2, 2, 0], [3, 1, 1], [4, 0, 0]):
        amplitude = np.exp(2j * np.pi * atoms.positions @ np.array(hkl) / a).mean()
        expected = np.exp(-b_factor * np.dot(hkl, hkl) / a**2 / 4)
        # the amplitude of n atoms at random scatters by less than 1/sqrt(n); five times that
        assert abs(amplitude - expected) < 5 / np.sqrt(len(atoms))


def test_a_seed_gives_the_same_displacements_in_proportion_to_the_fraction():
    atoms = moved("Fe")
    assert (atoms.positions == moved("Fe").positions).all()
    assert not np.allclose(atoms.positions, moved("Fe", seed=4).positions, atol=0.01)
    assert np.allclose(shifts(moved("Fe", fraction=0.1), "Fe"), 2 * shifts(atoms, "Fe"), atol=1e-12)
    assert np.abs(shifts(moved("Fe", fraction=0.0), "Fe")).max() == 0


def test_the_order_of_atoms_does_not_matter():
    atoms = build(HOSTS["Si"], {"supercell": [3, 3, 3]})
    order = np.random.default_rng(0).permutation(len(atoms))
    settings = {"distribution": "uniform", "fraction": 0.03, "seed": 8}
    straight, shuffled = displace(atoms, settings, 2.35), displace(atoms[order], settings, 2.35)
    assert (straight.positions[order] == shuffled.positions).all()
    assert "displacement" not in atoms.info


def test_blocks_and_supercells_keep_what_they_are():
    displacement = {"distribution": "uniform", "fraction": 0.02, "seed": 0}
    vacancies = [{"kind": "vacancy", "concentration": 0.1}]
    block = build(HOSTS["Al"], {"block": CELLS, "defects": vacancies, "seed": 5, "displacement": displacement})
    assert len(block) == round(0.9 * 4 * np.prod(CELLS))
    assert (not block.pbc.any()) and block.info["repeat"] == [1, 1, 1]
    assert np.allclose(block.info["reference_cell"], unit_cell(HOSTS["Al"]).cell)
    displacement = {"distribution": "gaussian", "fraction": 0.02, "seed": 0}
    cell = build(HOSTS["Al"], {"supercell": [3, 3, 3], "repeat": [10, 9, 8], "displacement": displacement})
    assert cell.pbc.all() and cell.info["repeat"] == [10, 9, 8] and len(cell) == 108
    assert cell.info["displacement"]["sigma"] == pytest.approx(0.02 * HOSTS["Al"].nearest_neighbour)


def test_the_lattice_parameter_of_the_functional_counts(tmp_path):
    (tmp_path / "lattice.json").write_text('{"lattice_parameter": 8.0}')
    settings = {"supercell": [2, 2, 2], "displacement": {"distribution": "gaussian", "fraction": 0.01, "seed": 0}}
    atoms = build(HOSTS["Al"], settings, lattice=tmp_path / "lattice.json")
    assert atoms.info["displacement"]["sigma"] == pytest.approx(0.01 * 8 / np.sqrt(2))


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"distribution": "gauss"}, "unknown distribution"),
        ({"fraction": 3}, "0.01 is 1 %"),
        ({"fraction": -0.01}, "0.01 is 1 %"),
        ({"fraction": float("nan")}, "0.01 is 1 %"),
        ({"seed": 1.5}, "whole number"),
        ({"seed": None}, "missing: seed"),
        ({"sigma": 0.1}, "unknown: sigma"),
    ],
)
def test_impossible_settings_are_refused(settings, fault):
    displacement = {"distribution": "gaussian", "fraction": 0.05, "seed": 1, **settings}
    with pytest.raises(ValueError, match=fault):
        build(HOSTS["Al"], {"supercell": [2, 2, 2], "displacement": displacement})


def test_samples_are_independent_and_follow_from_the_seed():
    settings = {
        "family": "block",
        "block": [5, 4, 3],
        "samples": 3,
        "defects": [{"kind": "vacancy", "solute": None, "site": None, "concentration": 0.1}],
        "displacement": {"distribution": "gaussian", "fraction": 0.02},
    }
    first, again, other = (build_samples(HOSTS["Al"], settings, seed) for seed in (5, 5, 6))
    assert [len(a) for a in first] == [216] * 3  # 10 % of 240 sites are empty
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(first, again, strict=True))
    drawn = [a.positions for a in (*first, *other)]
    assert all(not np.array_equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
