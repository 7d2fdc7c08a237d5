"""docs/validation.md: its tables are those of the shipped results, the results are where they should be, and what is
quick is computed here."""

import json
import resource
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read
from ase.md.verlet import VelocityVerlet

from defraction.first_principles import aimd, formation, relax
from defraction.first_principles.aimd import displacement_statistics, thermal_momenta
from defraction.first_principles.settings import settings_for

ALL_ELECTRON = {"Al": 4.0396, "Fe": 2.8309}  # [Å], WIEN2k with PBE, Delta project (10.1126/science.aad3000)
ARTICLE = {100: (0.086, 0.04, 85), 300: (0.15, 0.08, 88)}  # largest, threshold [Å], atoms of 108 below it


def rows(root, name):
    return json.loads((root / f"resources/validation/{name}.json").read_text())["rows"]


@pytest.fixture
def benchmark(root, monkeypatch):
    """The script that makes the tables."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import first_principles

    return first_principles


def test_the_tables_of_the_page_are_those_of_the_results(root, benchmark):
    text = (root / "docs/validation.md").read_text()
    tables = benchmark.tables()
    assert len(tables) >= 3
    for name, table in tables.items():
        assert f"<!-- table {name} -->\n{table}\n<!-- end -->" in text, name


@pytest.mark.parametrize("host", ["Al", "Fe"])
def test_cells_have_the_lattice_constant_of_their_own_host(root, benchmark, host):
    arguments = SimpleNamespace(host=host, lattice_parameter=None)
    found = json.loads((root / f"resources/structures/lattice/{host}-paper.json").read_text())
    assert benchmark.lattice_parameter(arguments) == pytest.approx(found["lattice_parameter"], abs=5e-5)
    assert benchmark.lattice_parameter(SimpleNamespace(host=host, lattice_parameter=3.0)) == 3.0
    with pytest.raises(SystemExit, match="give --lattice-parameter"):
        benchmark.lattice_parameter(SimpleNamespace(host="Cu", lattice_parameter=None))


def test_formation_energies_stand_on_one_cell_as_on_the_whole_supercell(benchmark, tmp_path):
    """EMT knows no mesh, so the perfect crystal is the same either way; energies of the last rung are refused."""

    def summary(atoms, points, name):
        overrides = {"electronic": {"kpoints": points}}
        settings = settings_for("Al", "laptop", "relax", overrides=overrides)
        return relax.relax(atoms, settings, lambda *_: EMT(), tmp_path / name)[1]

    cell = bulk("Al", cubic=True, a=3.994)
    vacant = cell * (2, 2, 2)
    del vacant[0]
    defect = summary(vacant, [6, 6, 6], "vacancy")
    whole, one = summary(cell * (2, 2, 2), [6, 6, 6], "whole"), summary(cell, [12, 12, 12], "one")
    folded = benchmark.folded(one, [2, 2, 2])
    assert folded["settings"] == whole["settings"]
    assert formation.vacancy(defect, folded) == pytest.approx(formation.vacancy(defect, whole), abs=1e-9)
    with pytest.raises(ValueError, match="not comparable"):
        formation.vacancy(defect, {**folded, "energies_comparable": False})
    with pytest.raises(ValueError, match="kpoints"):
        formation.vacancy(defect, benchmark.folded(summary(cell, [8, 8, 8], "other mesh"), [2, 2, 2]))


def test_every_vacancy_of_the_library_gives_a_formation_energy(root, tmp_path):
    """Summaries of older versions, which state the number of atoms in the formula alone, too."""
    found = sorted((root / "resources/structures").glob("*-vacancy-*.extxyz"))
    assert {"al-vacancy-2x2x2", "fe-vacancy-4x4x4"} < {path.stem for path in found}
    for path in found:
        sites = len(read(path)) + 1
        defect = json.loads(path.with_suffix(".json").read_text())
        perfect = {**defect, "atoms": sites, "energy": defect["energy"] * sites / (sites - 1) - 1.0}
        (tmp_path / "perfect.json").write_text(json.dumps(perfect))
        formation.vacancy_file(path.with_suffix(".json"), tmp_path / "perfect.json", tmp_path / "energy.json")
        energy = json.loads((tmp_path / "energy.json").read_text())
        assert energy["formation_energy"] == pytest.approx((sites - 1) / sites)
        assert energy["unrelaxed_formation_energy"] > energy["formation_energy"] - 1e-9


def test_no_result_names_a_machine_or_a_folder(root):
    for path in (root / "resources/validation").glob("*.json"):
        text = path.read_text()
        assert '"/' not in text and " /" not in text, path.name


@pytest.mark.parametrize("host", ["Al", "Fe"])
def test_lattice_constants_are_those_of_all_electron_calculations(root, host):
    found = json.loads((root / f"resources/structures/lattice/{host}-paper.json").read_text())
    assert found["lattice_parameter"] == pytest.approx(ALL_ELECTRON[host], rel=0.005)
    if host == "Fe":
        assert 2.1 < found["magnetic_moment_per_atom"] < 2.3


def test_every_vacancy_of_the_library_has_its_row(root):
    """But for that of the preset `smoke`, which means nothing."""
    found = {path.stem for path in (root / "resources/structures").glob("*-vacancy-*.extxyz")}
    assert {row["key"]["entry"] for row in rows(root, "vacancy-library")} == found - {"al-vacancy-2x1x1"}


TOO_SMALL_A_CUTOFF = pytest.mark.xfail(strict=True, reason="2.301 and 2.318 eV at 300 eV (docs/validation.md)")


@pytest.mark.parametrize(
    "entry",
    [
        "al-vacancy-2x2x2",
        "al-vacancy-3x3x3",
        "fe-vacancy-3x3x3-paper",
        pytest.param("fe-vacancy-3x3x3", marks=TOO_SMALL_A_CUTOFF),
        pytest.param("fe-vacancy-4x4x4", marks=TOO_SMALL_A_CUTOFF),
    ],
)
def test_vacancies_cost_what_they_should(root, entry):
    low, high = {"al": (0.5, 0.75), "fe": (2.0, 2.3)}[entry[:2]]
    (row,) = [row for row in rows(root, "vacancy-library") if row["key"]["entry"] == entry]
    assert low < row["formation_energy"] < high


def test_elastic_constants_of_aluminium_are_those_measured(root):
    """Within a tenth of Kamm and Alers 1964 (10.1063/1.1713309), extrapolated to 0 K [GPa]."""
    found = [row for row in rows(root, "elastic-al") if row["key"]["kpoints"] == [33, 33, 33]]
    assert found
    for row in found:
        for name, measured in {"c11": 114.3, "c12": 61.9, "c44": 31.6}.items():
            assert row[name] == pytest.approx(measured, rel=0.1), name


def test_the_row_of_elastic_constants_has_the_electronic_settings_of_the_preset_laptop(root):
    """Those of `paper` differ in the cutoff alone."""
    (row,) = [r for r in rows(root, "elastic-al") if r["key"]["lattice_parameter"] == 4.0408]
    presets = [settings_for("Al", preset, "elastic")["electronic"] for preset in ("laptop", "paper")]
    assert row["settings"]["electronic"] == presets[0] == {**presets[1], "cutoff": 200.0}


def test_the_shear_modulus_by_mesh_is_what_the_pages_say(root):
    """Each number of C44 in the text of docs/first-principles.md is a row that ships."""
    pages = [(root / f"docs/{name}.md").read_text() for name in ("first-principles", "validation")]
    first, second = (" ".join(page.split()) for page in pages)
    c44 = {
        (row["key"]["width"], row["key"]["kpoints"][0]): row["c44"]
        for row in rows(root, "shear-al")
        if (row["key"]["cutoff"], row["key"]["lattice_parameter"]) == (200.0, 4.0408)
    }
    narrow, wide, between = ([f"{c44[width, n]:.0f}" for n in points] for width, points in (
        (0.2, (17, 21, 25, 29, 33, 37)), (0.5, (17, 21)), (0.4, (25,)),
    ))  # fmt: skip
    settled = [value for (width, points), value in c44.items() if width == 0.4 and points >= 28]
    assert len(settled) == 4
    assert f"with 0.2 eV {', '.join(narrow[:3])} GPa at 17³, 21³, 25³" in first
    assert f"then {', '.join(narrow[3:5])} and {narrow[5]} at 29³, 33³ and 37³" in first
    assert f"with 0.5 eV {' and '.join(wide)} at 17³ and 21³; with 0.4 eV {between[0]} at 25³" in first
    assert f"and {min(settled):.0f} to {max(settled):.0f} GPa from 28³ to 37³" in first
    assert f"it is {min(settled):.1f} to {max(settled):.1f} GPa from 28³ on" in second
    # The bound of `tables.ELASTIC_LEAST` stands on these: within a tenth of the 31.6 GPa measured, and beyond.
    assert all(abs(value / 31.6 - 1) < 0.1 for value in settled)
    assert all(abs(c44[key] / 31.6 - 1) > 0.1 for key in ((0.5, 21), (0.4, 25), (0.2, 25)))


def test_iron_is_not_said_to_be_converged_beyond_its_rows(root):
    found = [row for row in rows(root, "vacancy-fe") if row["key"]["cutoff"] == 400]
    energies = [row["formation_energy"] for row in sorted(found, key=lambda row: row["key"]["kpoints"])]
    page = " ".join((root / "docs/validation.md").read_text().split())
    assert "Not shown: that its energy is converged to 0.05 eV" in page
    assert f"it is {energies[0]:.2f}, {energies[1]:.2f} and {energies[2]:.2f} eV" in page
    assert f"the last two {energies[1] - energies[2]:.3f} eV apart" in page
    assert len(energies) == 3 and energies[1] - energies[2] > 0.05, "the page may say more now"


def test_the_articles_vacancy_in_iron_stands_beside_the_finest_of_the_library(root):
    groups = json.loads((root / "resources/structures/fe-vacancy-3x3x3-paper.json").read_text())["displacements"][
        "groups"
    ]
    first = ", ".join(f"{group['atoms']} by {group['length']:.3f} Å" for group in groups[:3])
    rest, largest = sum(group["atoms"] for group in groups[3:]), groups[3]["length"]
    line = f"| {first}, {rest} by at most {largest:.3f} Å (`fe-vacancy-3x3x3-paper`, 400 eV) |"
    assert line in (root / "docs/validation.md").read_text()


def test_a_run_of_gpaw_that_was_killed_has_the_statistics_of_the_unbroken_one(root):
    found = rows(root, "resumed-al")
    assert len(found) == 3
    for row in found:
        assert row["settings"]["task"] == "aimd" and row["killed_after"] < 60
        for key in ("temperature", "mean_square"):
            assert row["resumed"][key] == pytest.approx(row["unbroken"][key], rel=1e-3)
    # Other noise gives other numbers, so the comparison means something.
    squares = [row["unbroken"]["mean_square"] for row in found]
    assert max(squares) > 1.3 * min(squares)
    largest = max(row["farthest_apart"] for row in found)
    assert 0 < largest < 0.004, "f / k of the preset smoke (docs/first-principles.md)"
    assert f"by at most {largest:.4f} Å" in " ".join((root / "docs/validation.md").read_text().split())


@pytest.fixture
def library(benchmark, tmp_path, monkeypatch):
    """For the tables of molecular dynamics: EMT's runs in the place of two entries of the library, and three flights of
    32 atoms at 300 K as rows of the script; all else is absent."""
    entries, results = tmp_path / "entries", tmp_path / "results"
    for name, folder in (("LIBRARY", entries), ("RESULTS", results)):
        folder.mkdir()
        monkeypatch.setattr(benchmark, name, folder)
    summaries = {}
    for kelvin, protocol, n in ((300, "published", 3), (100, "equilibrated", 2)):
        overrides = {"aimd": {"flights": 2, "equilibration": 6, "every": 2}}
        settings = settings_for(
            "Al", "laptop", "aimd", temperature=kelvin, protocol=protocol, supercell=[n] * 3, overrides=overrides
        )
        atoms = bulk("Al", cubic=True, a=3.994) * (n, n, n)
        summary = aimd.run(atoms, settings, lambda *_: EMT(), tmp_path / f"{kelvin}")[1]
        name = f"al-thermal-{'equilibrated-' * (protocol == 'equilibrated')}{kelvin}K-{n}x{n}x{n}"
        (entries / f"{name}.json").write_text(json.dumps(summary))
        (entries / f"{name}.record.json").write_text(json.dumps({"params": {}}))
        summaries[name] = summary
    atoms = bulk("Al", cubic=True, a=3.994) * (2, 2, 2)
    found = []
    for seed in (1, 2, 3):
        settings = settings_for("Al", "laptop", "aimd", temperature=300, supercell=[2, 2, 2], seed=seed)
        found.append(aimd.run(atoms, settings, lambda *_: EMT(), tmp_path / f"seed{seed}")[1])
    (results / "motion-al-published-300K-2x2x2.json").write_text(json.dumps({"rows": found}))
    return summaries, found


def test_flights_stand_beside_the_article_in_both_readings(benchmark, library):
    summaries, found = library
    lines = benchmark.tables()["motion-article"].splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert {len(row) for row in cells} == {9}
    article = [row for row in cells if row[2] == "**article**"]
    for row, (kelvin, (largest, _, count)) in zip(article, ARTICLE.items(), strict=True):
        assert (row[0], row[6], row[7]) == (f"{kelvin}", f"{largest:g}", f"{count}")
    assert [row[:3] for row in cells if row[0] == "100"][1:] == [["100", n, "not computed yet"] for n in ("108", "32")]
    entry = summaries["al-thermal-300K-3x3x3"]["snapshots"]
    seeds = [row["snapshots"][0] for row in found]
    for number, (snapshots, atoms) in enumerate([(entry, 108), (seeds, 32)]):
        for reading, row in zip(("x", "length"), cells[4 + 2 * number :], strict=False):
            largest = np.array([s[f"{reading}_largest"] for s in snapshots])
            below = np.array([s[f"{reading}_below_0.08"] for s in snapshots])
            assert row[1:4] == [str(atoms), row[2], str(len(snapshots))]
            assert "150 eV" in row[2]
            assert "4 x 5 fs" in row[2]
            assert row[5].startswith(reading)
            assert row[6] == f"{largest.mean():.3f} ± {largest.std(ddof=1):.3f}"
            assert row[7] == f"{below.mean():.1f} ± {below.std(ddof=1):.1f}"
            assert row[8] == f"{below.mean() / atoms:.0%}"


def test_motion_in_equilibrium_stands_beside_the_debye_model(benchmark, library):
    summaries, _ = library
    lines = benchmark.tables()["motion-debye"].splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert [row[:3] for row in cells if row[2] == "not computed yet"] == [
        [kelvin, atoms, "not computed yet"] for kelvin, atoms in (("100", "108"), ("300", "108"), ("300", "32"))
    ]
    row = next(row for row in cells if row[:2] == ["100", "32"])
    snapshots = summaries["al-thermal-equilibrated-100K-2x2x2"]["snapshots"]
    assert row[3] == "2 x 2"
    for cell, key, part in ((row[5], "x_rms", 1), (row[6], "length_rms", 3)):
        squares = np.array([s[key] ** 2 / part for s in snapshots])
        assert cell == f"{np.sqrt(squares.mean()):.3f} ± {np.sqrt(squares).std(ddof=1):.3f}"
    # 3 hbar^2 T / (m k Theta^2) by hand: hbar^2 / k is 48.51 u K Å^2, the mass of Al 26.98 u, its Theta 412 K.
    classical = np.sqrt(3 * 48.51 * 100 / (26.98 * 412**2))
    assert row[7:9] == [f"{classical * np.sqrt(1 - 32 ** (-1 / 3)):.3f}", f"{classical:.3f}"]


def test_runs_of_different_settings_make_no_mean(benchmark, library, tmp_path):
    path = tmp_path / "results/motion-al-published-300K-2x2x2.json"
    found = json.loads(path.read_text())["rows"]
    found[1]["settings"]["aimd"]["timestep"] = 2.0
    path.write_text(json.dumps({"rows": found}))
    with pytest.raises(ValueError, match="motion-al-published-300K-2x2x2"):
        benchmark.tables()


def test_a_table_without_a_place_is_an_error(benchmark):
    text = "a\n<!-- table x -->\nold\n<!-- end -->\n"
    assert benchmark.with_tables(text, {"x": "new"}) == text.replace("old", "new")
    with pytest.raises(SystemExit, match="table y"):
        benchmark.with_tables(text, {"x": "new", "y": "lost"})


@pytest.fixture(scope="module")
def flights():
    """Displacements of 108 atoms in free flight from the perfect lattice, by temperature and seed: (times, n, 3) [Å] at
    10, 12, ... 20 fs. Motion so short hardly depends on the forces, so EMT serves."""
    out = {}
    for kelvin in ARTICLE:
        for seed in range(12):
            atoms = bulk("Al", cubic=True, a=3.994) * (3, 3, 3)
            start = atoms.positions.copy()
            atoms.calc = EMT()
            atoms.set_momenta(thermal_momenta(atoms, kelvin, np.random.default_rng([kelvin, seed])))
            integrator = VelocityVerlet(atoms, 2 * units.fs, logfile=None)
            integrator.run(4)
            moved = []
            for _ in range(6):
                integrator.run(1)
                shift = atoms.positions - start
                moved.append(shift - shift.mean(axis=0))
            out[kelvin, seed] = np.array(moved)
    return out


def misses(flights, reading, step):
    """How far the article's four numbers lie from the mean of the seeds, in standard deviations of one flight."""
    out = []
    for kelvin, (largest, threshold, count) in ARTICLE.items():
        found = [displacement_statistics(flights[kelvin, seed][step]) for seed in range(12)]
        for key, published in ((f"{reading}_largest", largest), (f"{reading}_below_{threshold:g}", count)):
            values = np.array([row[key] for row in found])
            out.append(abs(published - values.mean()) / values.std(ddof=1))
    return out


def test_the_table_of_free_flights_is_what_they_give(root, flights):
    """Mean and standard deviation of one flight, as docs/validation.md prints them."""
    text = (root / "docs/validation.md").read_text()
    rows = (("x", "x component", 5, 20), ("length", "length", 1, 12), ("length", "length", 5, 20))
    for reading, name, step, time in rows:
        cells = []
        for kelvin, (_, threshold, _) in ARTICLE.items():
            found = [displacement_statistics(flights[kelvin, seed][step]) for seed in range(12)]
            largest, below = (
                np.array([row[key] for row in found])
                for key in (f"{reading}_largest", f"{reading}_below_{threshold:g}")
            )
            cells.append(
                f"{largest.mean():.3f} ± {largest.std(ddof=1):.3f}, {below.mean():.0f} ± {below.std(ddof=1):.0f}"
            )
        assert f"| {name} | {time} fs | {cells[0]} | {cells[1]} |" in text


def test_the_articles_counts_are_those_of_x_after_twenty_femtoseconds(flights):
    assert max(misses(flights, "x", 5)) < 2


def test_as_lengths_they_would_be_those_of_a_still_shorter_flight(flights):
    assert max(misses(flights, "length", 1)) < 2  # 12 fs
    assert max(misses(flights, "length", 5)) > 4  # 20 fs


START = """
import defraction.job
from defraction.defects.point import build
from defraction.first_principles.ranks import calculators
from defraction.first_principles.relax import relax, relax_file
from defraction.first_principles.settings import settings_for
from defraction.first_principles.trajectory import segment
from defraction.hosts import Host, read_hosts

hosts = read_hosts("resources/hosts.csv")
atoms = build(hosts["Al"], {"defect": {"kind": "vacancy"}, "supercell": [2, 1, 1]})
settings = settings_for(vars(hosts["Al"]), "smoke", "relax", supercell=[2, 1, 1])
with calculators(1) as factory:
    atoms.calc = factory(settings, atoms, None)
    atoms.calc.create_new_calculation(atoms)
"""


def test_a_gpaw_job_starts_within_four_seconds(root):
    """CPU time of Python, of all that a job of the rule `relax` imports, and of a calculator that is ready for its
    first iteration; the best of two, as the first may have to compile."""
    spent = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = {"PYTHONPATH": str(root / "workflow/scripts"), "OMP_NUM_THREADS": "1", "PATH": ""}
        subprocess.run([sys.executable, "-c", START], check=True, env=environment, cwd=root)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 4.0, spent
