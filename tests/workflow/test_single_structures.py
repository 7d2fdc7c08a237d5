"""`defraction build` gives the structure that a study makes of the condition of the same id: every kind that the smoke
study's settings and the library of computed structures give without GPAW."""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from repository import copy_repository

from defraction import cli, config
from defraction.conditions import seed_of
from defraction.drawn_crystals import draw
from defraction.materials import crystal, to_draw
from defraction.structures import read_structures

DRAWN = "results/structures/clean/229/drawn-229-001.cif"
SPECIMEN = {"repeat": [3, 4, 2], "supercell_repeat": [2, 3, 4]}
PAIR = [{"kind": "vacancy"}, {"kind": "interstitial", "solute": "C", "site": "octahedral", "count": 2}]
# A condition, and what `build` takes beside host, kind and repeat for the structures of it named here.
KINDS = {
    "pristine": ({}, {"al-pristine": ""}),
    "strain": ({"component": "xy", "values": [-0.03]}, {"al-strain-xy-0.03rad": "--component xy --value -0.03"}),
    "vacancy": (
        {"supercell": [2, 1, 1], "preset": "smoke"},
        {
            "al-vacancy-2x1x1-smoke": "--supercell 2 1 1 --preset smoke",
            "al-vacancy-2x1x1-smoke-unrelaxed": "--supercell 2 1 1 --preset smoke --unrelaxed",
            "al-perfect-2x1x1-smoke": "--supercell 2 1 1 --preset smoke --control",
        },
    ),
    "substitution": (
        {"supercell": [2, 2, 1], "preset": "smoke", "solute": "Si", "count": 3},
        {
            "al-substitution-si-x3-2x2x1-smoke-unrelaxed": "--supercell 2 2 1 --preset smoke --solute Si --count 3 "
            "--unrelaxed"
        },
    ),
    "interstitial": (
        {"supercell": [1, 2, 2], "preset": "smoke", "solute": "C", "site": "tetrahedral"},
        {
            "al-interstitial-c-tetrahedral-1x2x2-smoke-unrelaxed": "--supercell 1 2 2 --preset smoke --solute C "
            "--site tetrahedral --unrelaxed"
        },
    ),
    "point_defects": (
        {"supercell": [2, 2, 2], "preset": "smoke", "defects": PAIR},
        {
            None: "--supercell 2 2 2 --preset smoke --unrelaxed --defects "
            + " ".join(json.dumps(entry, separators=(",", ":")) for entry in PAIR)
        },
    ),
    "random_defects": ({"concentrations": [0.2]}, {None: "--concentration 0.2"}),
    "random_displacements": ({"fractions": [0.03], "samples": 2}, {None: "--fraction 0.03"}),
    "dislocation": (
        {"count": 2, "spacing": 20, "size": [48, 32], "line_repeat": 3},
        {None: "--count 2 --spacing 20 --size 48 32 --line-repeat 3"},
    ),
    "twin": ({"size": [24, 30, 20]}, {"al-twin": "--size 24 30 20", "al-twin-control": "--size 24 30 20 --control"}),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory, root):
    """File by id of what `build` makes, and its kind."""
    folder = tmp_path_factory.mktemp("built")
    files = {}
    for kind, (_, commands) in KINDS.items():
        for number, options in enumerate(commands.values()):
            output = folder / f"{kind}-{number}.cif"
            size = SPECIMEN["repeat" if kind in ("pristine", "strain") or "random" in kind else "supercell_repeat"]
            repeat = "" if kind in ("dislocation", "twin") else "--repeat " + " ".join(map(str, size))
            words = f"build --host Al --kind {kind} --seed 5 {repeat} {options} -o".split()
            with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
                patch.setattr(sys, "argv", ["defraction", *words, str(output)])
                cli.main()
            assert not end.value.code, words
            files[read_structures(output)[0].info["origin"]["condition"]] = output
    return files


@pytest.fixture(scope="module")
def studied(built, tmp_path_factory, root):
    """Folder of the structures that a study of these conditions makes, as far as `build` made them."""
    folder = tmp_path_factory.mktemp("study") / "defraction"
    copy_repository(root, folder)
    conditions = [
        {"kind": kind, "host": "Al", **settings} for kind, (settings, _) in KINDS.items() if kind != "pristine"
    ]
    (folder / "config/few.yaml").write_text(
        yaml.safe_dump(
            {
                "seed": 5,
                "specimen": SPECIMEN,
                "conditions": conditions,
                "materials": {"max_per_group": 2, "drawn": 2, "specimens": 1},
            }
        )
    )
    wanted = [*(f"results/structures/{name}.cif" for name in built), DRAWN]
    command = [sys.executable, "-m", "snakemake", "--configfile", "config/few.yaml", "--cores", "2", "--", *wanted]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "rule lattice" not in done.stderr and "rule relax" not in done.stderr
    return folder / "results/structures"


def test_a_drawn_crystal_is_built_like_a_measured_one(studied):
    block, other = read_structures(studied.parents[1] / DRAWN)
    drawn = draw(to_draw(229, 1), seed_of(5, "drawn-229-001"))
    said = block.info["origin"]["drawn"]
    for key in ("formula", "sites", "free_parameters", "lattice_parameter"):
        assert said[key] == getattr(drawn, key)
    assert block.get_chemical_formula() == crystal(drawn).get_chemical_formula()
    np.testing.assert_allclose(block.cell.lengths(), drawn.lattice_parameter, atol=1e-6)
    assert len(other) % len(block) == 0


def test_every_kind_without_molecular_dynamics_is_here(built):
    assert {*KINDS, "thermal"} == set(config.KINDS)
    assert len(built) == sum(len(commands) for _, commands in KINDS.values())
    for _, commands in KINDS.values():
        assert {name for name in commands if name} <= set(built)


def test_a_single_structure_is_that_of_the_study_of_the_same_id(built, studied):
    for name, output in built.items():
        for suffix in (".cif", ".extxyz"):
            found = read_structures(output.with_suffix(suffix))
            made = read_structures(studied / f"{name}{suffix}")
            assert len(made) == (2 if "displaced" in name else 1)
            for ours, theirs in zip(found, made, strict=False):  # one sample here, two there
                assert ours.get_chemical_symbols() == theirs.get_chemical_symbols(), name
                np.testing.assert_allclose(ours.positions, theirs.positions, atol=1e-9, err_msg=name)
                np.testing.assert_allclose(ours.cell.array, theirs.cell.array, atol=1e-9, err_msg=name)
                assert ours.pbc.tolist() == theirs.pbc.tolist()
                for key in ("reference_cell", "repeat"):
                    np.testing.assert_allclose(ours.info[key], theirs.info[key], atol=1e-9, err_msg=name)
