"""Electron scattering factors. Their agreement with other programs is in tests/physics/test_peers.py."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import gemmi
import numpy as np
import pytest

from defraction.diffraction import laue, scattering
from defraction.diffraction.scattering import TABLES, Factors

BOHR = 0.529177210544  # Å


def elements_of(table):
    names = [gemmi.Element(number).name for number in range(1, 104)]
    found = []
    for name in names:
        try:
            Factors(table).of(name, np.zeros(1))
            found.append(name)
        except ValueError:
            assert gemmi.Element(name).atomic_number > 98  # every table reaches californium
    assert len(found) >= 98
    return found


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(("q_max", "names"), [(1.5, None), (8.0, ["H", "K", "Sr", "Cs", "Au"])])
def test_interpolation(table, q_max, names):
    """As the compiled methods read the table, by their function; every element where its narrowest terms are."""
    names = names or elements_of(table)
    rng = np.random.default_rng(1)
    q = np.concatenate([0.3 * rng.random(300), q_max * rng.random(300), [0.0, q_max]])
    values = Factors(table).tabulate(names, q_max)
    for name, row in zip(names, values, strict=True):
        # helium's parameters hold a peak of 1e-6 of f(0), 0.005 / Å wide, that no table can follow (and none need)
        bound = 2e-6 if (name, table) == ("He", "kirkland") else 1e-7
        found = laue.cubic.py_func(row, q**2 / scattering.STEP)
        assert found == pytest.approx(Factors(table).of(name, q), rel=bound)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("element", ["C", "Al", "Si", "Cl", "Fe", "Au"])
def test_mott_bethe(table, element):
    """f = (Z - f_x) / (2 pi^2 a_0 q^2), f_x the X-ray factor: a factor 2 in q, or 4 in q^2, would be far off.

    The fit of f_x to 0.02 electrons and those of f allow 3 % between q = 0.4 and 3 / Å.
    """
    q = np.linspace(0.4, 3.0, 27)
    entry = gemmi.Element(element)
    x_ray = np.array([entry.it92.calculate_sf(0.25 * value**2) for value in q])
    expected = (entry.atomic_number - x_ray) / (2.0 * np.pi**2 * BOHR * q**2)
    assert Factors(table).of(element, q) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("table", ["lobato", "kirkland"])
def test_high_angles_see_the_bare_nucleus(table):
    # these two forms fall off as Z / q^2, as Rutherford scattering does; 4 electrons of aluminium screen at most
    f = Factors(table).of("Al", np.array([10.0, 20.0]))
    charge = f * 2.0 * np.pi**2 * BOHR * np.array([10.0, 20.0]) ** 2
    assert 12.3 < charge[0] < charge[1] < 13.3


def test_tables_are_different_tables():
    q = np.array([0.0, 0.4, 1.0, 2.5, 5.5])
    values = np.array([Factors(table).of("Fe", q) for table in TABLES])
    difference = np.abs(values[:, None] / values[None] - 1.0).max(axis=-1)
    assert (difference[~np.eye(4, dtype=bool)] > 1e-3).all()
    assert values[:, 1:4] == pytest.approx(np.broadcast_to(values.mean(axis=0)[1:4], (4, 3)), rel=0.04)


def test_scattering_factor_at_zero():
    entry = gemmi.Element("Al").c4322
    assert Factors().of("Al", np.zeros(1))[0] == pytest.approx(sum(entry.a))
    assert Factors().of("Al", np.zeros((2, 3))).shape == (2, 3)
    for table in TABLES:
        assert Factors(table).of("Al", np.zeros(1))[0] == pytest.approx(5.889, abs=0.01)  # Å


def test_unknown_table_names_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown table 'doyle'.*c4322, lobato, kirkland, peng"):
        Factors("doyle")


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("element", ["Xx", "al", "Og"])
def test_unknown_element(table, element):
    with pytest.raises(ValueError, match=f"{table} has no element '{element}'"):
        Factors(table).of(element, np.zeros(1))


# --- Debye-Waller factors


def test_debye_waller():
    q = np.linspace(0.0, 3.0, 7)
    cold, warm = Factors("lobato"), Factors("lobato", {"Al": 0.8})
    assert warm.of("Al", q) == pytest.approx(cold.of("Al", q) * np.exp(-0.8 * (q / 2.0) ** 2), rel=1e-14)
    assert (warm.of("Ni", q) == cold.of("Ni", q)).all()
    table = warm.tabulate(["Al"], 3.0)[0]
    assert laue.cubic.py_func(table, q**2 / scattering.STEP) == pytest.approx(warm.of("Al", q), rel=1e-7)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"Al": -0.1}, "debye_waller: B of Al is -0.1"),
        ({"Al": float("nan")}, "debye_waller: B of Al is nan"),
        ({"Al": float("inf")}, "debye_waller: B of Al is inf"),
        ({"Al": "0.5"}, "debye_waller: B of Al is '0.5'"),
        ({"Al": True}, "debye_waller: B of Al is True"),
        ({"Q": 0.5}, "debye_waller: 'Q' is not the symbol of an element"),
        ({"al": 0.5}, "debye_waller: 'al'"),
        ({13: 0.5}, "debye_waller: 13"),
    ],
)
def test_bad_debye_waller(values, message):
    with pytest.raises(ValueError, match=message):
        Factors(debye_waller=values)


def test_factors_do_not_change_afterwards():
    given = {"Al": 0.8}
    factors = Factors(debye_waller=given)
    given["Al"] = 5.0
    assert factors.debye_waller["Al"] == 0.8


# --- where the parameters come from


def test_missing_package_is_named(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(scattering, "distribution", absent)
    monkeypatch.setattr(scattering, "_read", scattering._read.__wrapped__)
    monkeypatch.setattr(scattering, "_parameters", scattering._parameters.__wrapped__)
    with pytest.raises(RuntimeError, match="lobato is read from the data files of the package abtem"):
        Factors("lobato").of("Al", np.zeros(1))
    Factors().of("Al", np.zeros(1))  # the default table does not need it


def test_tables_are_read_without_importing_their_package(root):
    code = (
        "import sys, numpy; from defraction.diffraction.scattering import Factors;"
        "Factors('lobato').of('Al', numpy.zeros(1)); print('abtem' in sys.modules, 'numba' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(root / "workflow/scripts")}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == ["False", "False"]
