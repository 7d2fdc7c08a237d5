"""`defraction build`: every kind of the configuration as a single structure, and faults in one line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import ase.io
import gemmi
import numpy as np
import pytest
from pymatgen.io.cif import CifParser
from scipy.spatial import cKDTree

from defraction import build_command, cli, config
from defraction.hosts import read_hosts
from defraction.structures import read_structures

SMALL = {
    "pristine": "",
    "strain": "--component xy --value -0.03 --repeat 4 4 4",
    "vacancy": "--supercell 2 2 2",
    "substitution": "--supercell 2 1 1 --solute Si",
    "interstitial": "--supercell 2 2 2 --solute C --site octahedral",
    "point_defects": '--supercell 2 2 2 --defects {"kind":"vacancy"} {"kind":"substitution","solute":"Si"'
    ',"neighbour":{"shell":1}}',
    "random_defects": "--concentration 0.25 --repeat 4 4 4",
    "random_displacements": "--fraction 0.03 --repeat 3 3 3",
    "dislocation": "--count 2 --spacing 20 --size 48 32 --line-repeat 3",
    "twin": "--size 24 30 20",
}


NAMES = {"random_displacements": "displaced", "random_defects": "random", "point_defects": "defects-vacancy-si"}


@pytest.fixture
def build(tmp_path, monkeypatch, capsys):
    """Runs `defraction build` in an empty folder: exit status, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(text: str):
        monkeypatch.setattr(sys, "argv", ["defraction", "build", *text.split()])
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return run


def test_the_small_set_holds_every_kind_but_the_one_that_needs_gpaw():
    assert {*SMALL, "thermal"} == set(config.KINDS)


# Options of `build`, and words of the condition's id.
READ_ALIKE = {
    **{f"--host Al --kind {kind} {options}": NAMES.get(kind, kind) for kind, options in SMALL.items()},
    "--host Al --kind thermal --supercell 3 3 3 --temperature 300 --flights 3 --preset laptop": "al-thermal-300K-3x3x3",
    "--host Al --kind dislocation --character screw --count 1 --size 40 30 --line-repeat 3": "screw-1",
    "--host Al --kind dislocation --count 2 --periodic --spacing null --size 48 32 --line-repeat 3": "edge-2-row",
    "--host Fe --kind substitution --solute Au --supercell 3 3 3": "fe-substitution-au-3x3x3",
    "--host Fe --kind strain --component yz --value 0.02 --repeat 3 4 5": "fe-strain-yz",
    "--host Fe --kind dislocation --character screw --count 1 --size 40 30 --line-repeat 3": "screw-1",
    "--host Si --kind pristine --repeat 3 2 2": "si-pristine",
    "--host Si --kind random_defects --defect substitution --solute Ge --concentration 0.2 --repeat 3 3 3": "si-random",
    "--host Si --kind random_defects --defect interstitial --solute C --site hexagonal "
    "--concentration 0.1 --repeat 2 2 2": "random-interstitial",
}


@pytest.mark.parametrize("command", READ_ALIKE)
def test_what_is_built_comes_as_two_files_that_other_programs_read_alike(build, command):
    """The same cell, and on every site the same element to 1e-5 Å, in three programs that share no code with us."""
    status, out, err = build(f"{command} -o x.cif")
    assert status == 0, err
    assert READ_ALIKE[command] in out
    frames = ase.io.read("x.extxyz", index=":")
    origin = read_structures("x.cif")[0].info["origin"]
    assert origin["command"] == "defraction build"
    assert origin["condition"] == json.loads(json.dumps(origin["condition"]))
    assert origin["host"]["name"] == command.split()[1]
    assert {"settings", "seed", "version", "code"} <= set(origin)
    assert len(frames) == (3 if "thermal" in command else 1)
    found = {
        "ase": [(atoms.cell.array, _fractions(atoms), [*atoms.symbols]) for atoms in ase.io.read("x.cif", index=":")],
        "pymatgen": [
            (structure.lattice.matrix, structure.frac_coords, [site.specie.symbol for site in structure])
            for structure in CifParser("x.cif").parse_structures(primitive=False)
        ],
        "gemmi": [
            (
                np.array(small.cell.orth.mat.tolist()).T,
                np.array([site.fract.tolist() for site in small.sites]),
                [site.element.name for site in small.sites],
            )
            for small in map(gemmi.make_small_structure_from_block, gemmi.cif.read("x.cif"))
        ],
    }
    for name, structures in found.items():
        for written, (cell, fractions, symbols) in zip(frames, structures, strict=True):
            ours = written.cell.array
            np.testing.assert_allclose(cell @ cell.T, ours @ ours.T, rtol=1e-7, atol=1e-7, err_msg=name)
            assert len(symbols) == len(written), name
            expected = _fractions(written)
            # pymatgen orients cells its own way and sorts sites
            sites = _nearest(fractions, expected) if name == "pymatgen" else np.arange(len(written))
            assert symbols == [*written.symbols[sites]], name
            shifts = fractions - expected[sites]
            shifts -= np.round(shifts)
            assert np.linalg.norm(shifts @ ours, axis=1).max() < 1e-5, name


def _fractions(atoms):
    return atoms.get_scaled_positions(wrap=False)


def _nearest(fractions, expected):
    """Number of the expected point nearest to each point."""
    tree = cKDTree(expected % 1 % 1, boxsize=1)  # the remainder of a tiny negative number is 1
    nearest = tree.query(fractions % 1 % 1)[1]
    assert len(set(nearest)) == len(expected)
    return nearest


def test_several_defects_stand_in_one_supercell(build):
    build("--host Al --kind vacancy --supercell 3 3 3 --count 4 --minimum-separation 5 --seed 3 -o x.cif")
    atoms = read_structures("x.cif")[0]
    assert len(atoms) == 104
    build("--host Al --kind substitution --solute Si --supercell 2 2 2 --positions [[0,0,0],[1,0.5,0.5]] -o y.cif")
    silicon = read_structures("y.cif")[0]
    fractions = silicon.get_scaled_positions()[silicon.symbols == "Si"]
    np.testing.assert_allclose(sorted(fractions.tolist()), [[0, 0, 0], [0.5, 0.25, 0.25]], atol=1e-9)
    for words in ("[0.5,0.5,0]", "0.5 0.5 0", "[[0.5,0.5,0]]"):
        status, _, err = build(f"--host Al --kind vacancy --supercell 2 2 2 --positions {words} -o z.cif")
        assert status == 0, err
        assert len(read_structures("z.cif")[0]) == 31


def test_tensors_of_stress_and_strain_by_components(build):
    status, _, err = build("--host Al --kind strain --mode stress --stress xx=0.5 xy=-0.1 --repeat 2 2 2 -o x.cif")
    assert status == 0, err
    stress = read_structures("x.cif")[0].info["origin"]["deformation"]["stress"]
    np.testing.assert_allclose(stress, [[0.5, -0.1, 0], [-0.1, 0, 0], [0, 0, 0]], atol=1e-12)
    build("--host Fe --kind strain --tensor zz=0.01 yz=-0.02 --repeat 2 2 2 -o y.cif")
    strain = read_structures("y.cif")[0].info["origin"]["deformation"]["strain"]
    np.testing.assert_allclose(strain, [[0, 0, 0], [0, 0, -0.01], [0, -0.01, 0.01]], atol=1e-12)


def test_a_solute_beside_a_vacancy(build):
    command = "--host Al --kind point_defects --supercell 3 3 3 --defects "
    build(command + '{"kind":"vacancy"} {"kind":"substitution","solute":"Si","neighbour":{"shell":1}} -o x.cif')
    (atoms,) = read_structures("x.cif")
    a = read_hosts(build_command.ROOT / "resources/hosts.csv")["Al"].lattice_parameter
    silicon = atoms.positions[atoms.symbols == "Si"]
    assert len(atoms) == 107 and len(silicon) == 1
    vector = silicon[0] - 3 * a * np.round(silicon[0] / (3 * a))  # from the vacancy at the origin
    assert np.linalg.norm(vector) == pytest.approx(a / np.sqrt(2))
    status, _, err = build(command + '{"kind":"vacancy"} -o y.cif')  # a list of one
    assert status == 0, err


def test_elastic_constants_by_gpaw_are_computed_beside_the_structure(build, monkeypatch):
    """EMT in the place of GPAW; after the run summary and log lie beside the structure and the state is gone."""
    from ase.calculators.emt import EMT

    from defraction.first_principles import elastic, lattice

    for module in (elastic, lattice):
        compute = module.compute
        monkeypatch.setattr(
            module, "compute", lambda *a, compute=compute: compute(*a, calculator_factory=lambda *_: EMT())
        )
    status, out, err = build("--host Cu --kind strain --component xx --value 0.02 --elastic gpaw -o x.cif")
    assert status == 0, err
    assert "cu-strain-xx+2pct-gpaw" in out
    computed = json.loads(Path("x.json").read_text())
    origin = read_structures("x.cif")[0].info["origin"]
    assert origin["deformation"]["constants"] == {key: computed[key] for key in ("c11", "c12", "c44")}
    assert origin["first_principles"]["preset"] == "laptop"
    assert origin["first_principles"]["elastic"]["settings"] == computed["settings"]
    atoms = ase.io.read("x.extxyz")
    poisson = computed["c12"] / (computed["c11"] + computed["c12"])
    table = read_hosts(build_command.ROOT / "resources/hosts.csv")["Cu"]
    assert atoms.cell.lengths()[1] == pytest.approx(table.lattice_parameter * (1 - 0.02 * poisson))
    assert not [name for name in os.listdir() if name.startswith(".")]


def test_what_a_failed_command_left_is_not_taken_for_another_host(build, monkeypatch):
    from ase.calculators.emt import EMT

    from defraction.first_principles import elastic, lattice

    def fail(*_):
        raise ValueError("not today")

    compute, found = lattice.compute, elastic.compute
    monkeypatch.setattr(lattice, "compute", lambda *a: compute(*a, calculator_factory=lambda *_: EMT()))
    monkeypatch.setattr(elastic, "compute", fail)
    command = "--kind strain --component xx --value 0.02 --elastic gpaw -o x.cif"
    status, _, err = build(f"--host Cu {command}")
    assert status != 0 and "not today" in err and Path(".x.state").is_dir()
    monkeypatch.setattr(elastic, "compute", lambda *a: found(*a, calculator_factory=lambda *_: EMT()))
    status, _, err = build(f"--host Ag {command}")
    assert status == 0, err
    origin = read_structures("x.cif")[0].info["origin"]["first_principles"]
    assert origin["lattice"]["parameter"] == pytest.approx(4.06, abs=0.05)  # of EMT; copper has 3.6


def test_a_structure_is_that_of_the_study_with_the_same_seed(build):
    from defraction.conditions import seed_of
    from defraction.defects.displacements import build_samples

    build("--host Fe --kind random_defects --concentration 0.1 --repeat 3 3 3 --seed 7 -o x.cif")
    found = read_structures("x.extxyz")[0]
    origin = found.info["origin"]
    settings = {key: value for key, value in origin["settings"].items() if key != "family"}
    hosts = read_hosts(build_command.ROOT / "resources/hosts.csv")
    expected = build_samples(hosts["Fe"], settings, seed_of(7, origin["condition"]))[0]
    np.testing.assert_allclose(found.positions, expected.positions, atol=1e-8)  # as written


def test_the_control_is_the_same_specimen_without_the_defect(build):
    build("--host Al --kind twin --size 24 30 20 -o x.cif")
    build("--host Al --kind twin --size 24 30 20 --control -o y.cif")
    twin, control = read_structures("x.cif")[0], read_structures("y.cif")[0]
    assert len(twin) == len(control)
    np.testing.assert_allclose(twin.cell, control.cell)
    assert not np.allclose(twin.positions, control.positions)


def test_a_relaxed_cell_comes_from_the_library_where_it_is_there(build, root):
    status, _, err = build("--host Al --kind vacancy --supercell 2 2 2 --preset paper -o x.cif")
    assert status == 0, err
    atoms = read_structures("x.cif")[0]
    shipped = ase.io.read(root / "resources/structures/al-vacancy-2x2x2.extxyz")
    np.testing.assert_allclose(atoms.cell.lengths(), shipped.cell.lengths(), atol=1e-7)
    shifts = atoms.positions - shipped.positions
    shifts -= np.round(shifts / atoms.cell.lengths()) * atoms.cell.lengths()
    assert np.abs(shifts).max() < 1e-7
    assert atoms.info["origin"]["first_principles"]["relax"]["library"] == "al-vacancy-2x2x2"


def test_a_point_defect_on_the_measured_lattice_is_no_condition_of_a_study(build, root):
    """Its id says so; with --unrelaxed it is one, on the lattice constant of the functional."""
    found = {}
    for options in ("", "--control", "--preset paper --unrelaxed"):
        status, _, err = build(f"--host Al --kind vacancy --supercell 2 2 2 {options} -o x.cif")
        assert status == 0, err
        (atoms,) = read_structures("x.cif")
        origin = atoms.info["origin"]
        found[origin["condition"]] = (atoms.cell.lengths()[0] / 2, origin.get("lattice"))
    measured = read_hosts(root / "resources/hosts.csv")["Al"].lattice_parameter
    computed = json.loads((root / "resources/structures/lattice/Al-paper.json").read_text())["lattice_parameter"]
    assert found == {
        "al-vacancy-2x2x2-measured": (pytest.approx(measured), "measured"),
        "al-perfect-2x2x2-measured": (pytest.approx(measured), "measured"),
        "al-vacancy-2x2x2-paper-unrelaxed": (pytest.approx(computed), None),
    }


def test_gpaw_computes_what_the_library_lacks_and_keeps_log_and_summary(tmp_path, root):
    command = "build --host Al --kind thermal --supercell 1 1 1 --temperature 300 --preset smoke -o x.cif"
    environment = {**os.environ, "PYTHONPATH": str(root / "workflow/scripts")}
    done = subprocess.run(
        [sys.executable, "-m", "defraction.cli", *command.split()],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "al-thermal-300K-1x1x1-smoke" in done.stdout
    summary = json.loads((tmp_path / "x.json").read_text())
    assert summary["settings"]["aimd"]["temperature"] == 300
    assert (tmp_path / "x.gpaw.txt").stat().st_size > 1000
    assert not list(tmp_path.glob(".*")), "restart state is gone once it is done"
    assert "settings" in read_structures(tmp_path / "x.cif")[0].info["origin"]["first_principles"]["aimd"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--kind twin -o x.cif", "build needs --host"),
        ("--host Alu --kind twin -o x.cif", "--host: unknown host 'Alu'; did you mean"),
        ("--host Al --kind twinn -o x.cif", "unknown kind 'twinn'; did you mean 'twin'?"),
        ("--host Al --kind twin --thicknes 3 -o x.cif", "unknown option --thicknes; did you mean --thickness?"),
        ("--host Al --kind twin --solute C -o x.cif", "--solute: twin takes no such option"),
        ("--host Al --kind twin --size 20 30 -o x.cif", "--size: takes 3 values, not 2"),
        ("--host Al --kind strain --component xx -o x.cif", "--value: is missing"),
        ("--host Al --kind strain --component xx --value 2 -o x.cif", "--value: strain 2 is beyond 0.2"),
        ("--host Al --kind strain --component xx --value 0.01 0.02 -o x.cif", "a sweep belongs into a configuration"),
        ("--host Al --kind substitution --supercell 2 2 2 --solute Sj -o x.cif", "solute 'Sj' is not a"),
        ("--host Al --kind twin --potential no -o x.cif", "potential 'no' is neither a file nor one of"),
        ("--host Al --kind twin --repeat 2 2 2 -o x.cif", "--repeat: twin takes no repeat"),
        ("--host Al --kind twin --relax -o x.cif", "takes --potential default"),
        ("--host Al --kind thermal --supercell 2 2 2 --temperature 300 -o x.cif", "add --preset smoke"),
        ("--host Al --kind twin -o x.xyz", "ends in .cif or .extxyz"),
        ("--host Al --kind vacancy --supercell 2 2 2 --cell relaxed -o x.cif", "--cell: a relaxed cell takes GPAW"),
        ("--host Al --kind twin --unrelaxed -o x.cif", "--unrelaxed: is for vacancy"),
        ("--host Al --kind vacancy --supercell 2 2 2 --relax --unrelaxed -o x.cif", "does not go with --relax"),
        ("--host Al --kind twin --source net -o x.cif", "neither library nor compute"),
        ("--host Al --kind strain --mode stress --stress xq=1 -o x.cif", "--stress.xq: unknown key; did you mean"),
        ("--host Al --kind strain --mode stress --stress xx -o x.cif", "--stress.xx: input should be a valid number"),
        ("--host Si --kind twin -o x.cif", "fcc"),
    ],
)
def test_faults_are_one_line_that_says_how_to_mend_them(build, tmp_path, text, words):
    status, out, err = build(text)
    assert status == 2
    assert words in err
    assert err.count("\n") == 1
    assert not out and not list(tmp_path.iterdir())


def test_the_table_shows_every_option_of_every_kind_and_every_host(build, root):
    status, out, _ = build("--list")
    assert status == 0
    for kind, model in config.KINDS.items():
        section = out[out.index(f"\n{kind}: ") :].split("\n\n")[0]
        for key in model.model_fields:
            if key not in build_command.NOT_OPTIONS:
                option = f"--{build_command.SWEEPS.get(key, key).replace('_', '-')}"
                assert f"  {option} " in section, (kind, key)
    for host in read_hosts(root / "resources/hosts.csv"):
        assert f" {host} " in out
    assert re.search(r"--count +1 ", out)  # one, not "yes"
    assert max(map(len, out.splitlines())) < 260


def test_every_sweep_of_the_configuration_is_known():
    lists = {
        key
        for model in config.KINDS.values()
        for key, field in model.model_fields.items()
        if str(field.annotation).startswith(("list", "typing.Annotated[list", "typing.Union[typing.Annotated[list"))
        or "Tag(tag='list')" in str(field.annotation)
    }
    assert lists == {*build_command.SWEEPS, *build_command.LISTS, "positions"}  # several sites are one structure
    tensors = {
        key
        for model in config.KINDS.values()
        for key, field in model.model_fields.items()
        if config.Tensor in get_args(field.annotation)
    }
    assert tensors == set(build_command.TENSORS)
