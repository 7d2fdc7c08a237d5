"""Crystals drawn at random: of their space group and no other, decided by the seed, and never held out."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import spglib

from defraction import dataset, drawn_crystals, materials

GROUPS = list(materials.SPACE_GROUPS)


def listed(number=3, groups=None, **settings):
    return materials.catalogue(
        {"table": "resources/materials.csv", "space_groups": groups, "drawn": number, **settings}
    )


@pytest.fixture(autouse=True)
def here(monkeypatch, root):
    monkeypatch.chdir(root)


@pytest.mark.parametrize("group", GROUPS)
def test_a_drawn_crystal_is_of_its_space_group_and_like_a_crystal(group):
    for seed in range(2):
        drawn = drawn_crystals.draw(listed()[f"drawn-{group}-000"], seed)
        atoms = materials.crystal(drawn)
        cell = (atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers)
        assert spglib.get_symmetry_dataset(cell, symprec=1e-3).number == group
        lattice_points = {"P": 1, "I": 2, "F": 4}[materials.SPACE_GROUPS[group][0]]
        assert len(spglib.find_primitive(cell, symprec=1e-3)[2]) * lattice_points == len(atoms)
        assert len(atoms) <= drawn_crystals.ATOMS
        assert not drawn_crystals.NOBLE_OR_SHORT_LIVED & set(atoms.numbers.tolist())
        lowest, highest = drawn_crystals.EDGE
        assert lowest <= drawn.lattice_parameter <= highest
        distances = atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)]
        assert distances.size == 0 or distances.min() >= drawn_crystals.CLOSEST
        assert materials.text_of(materials.parse_sites(drawn.sites, group)) == drawn.sites


def test_a_drawn_crystal_reads_as_a_row_of_the_table(tmp_path):
    """Formula and free parameters follow from the sites, as `read_table` checks; `crystal` gives the same atoms."""
    found = [drawn_crystals.draw(listed()[f"drawn-{group}-000"], 1) for group in GROUPS]
    rows = [{**m.to_dict(), "lattice_parameter_angstrom": m.lattice_parameter} for m in found]
    with open(tmp_path / "t.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, materials.COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    again = materials.read_table(tmp_path / "t.csv")
    assert [replace(again[m.material], source="") for m in found] == found


def test_the_seed_decides():
    one, two = (listed()[f"drawn-225-00{i}"] for i in (0, 1))
    assert drawn_crystals.draw(one, 7) == drawn_crystals.draw(one, 7)
    assert len({drawn_crystals.draw(one, seed).sites for seed in range(5)}) == 5
    assert drawn_crystals.draw(two, 7).material == "drawn-225-001"


def test_they_differ_more_than_measured_ones():
    """Many kinds of sites: of 229, whose measured crystals are bcc metals, and of 213."""
    for group in (213, 229):
        drawn = [drawn_crystals.draw(listed()[f"drawn-{group}-000"], seed) for seed in range(8)]
        kinds = {tuple(sorted(site.position for site in materials.parse_sites(d.sites, group))) for d in drawn}
        assert len(kinds) >= 5


def test_more_leave_the_first_as_they_were():
    few, many = listed(2), listed(4)
    assert {name: many[name] for name in few} == few
    assert set(many) - set(few) == {f"drawn-{group}-00{i}" for group in GROUPS for i in (2, 3)}
    assert [m.drawn for m in few.values()].count(True) == 2 * len(GROUPS)


def test_limit_and_groups():
    names = [name for name, m in listed(2, groups=[225, 229], max_per_group=1).items() if m.drawn]
    assert names == ["drawn-225-000", "drawn-225-001", "drawn-229-000", "drawn-229-001"]


def test_one_can_be_left_out_and_the_others_stay():
    every = listed(3)
    del every["drawn-225-001"]
    assert listed(3, exclude=["drawn-225-001"]) == every
    with pytest.raises(ValueError, match=r"no material 'drawn-225-003' with materials\.drawn: 0"):
        listed(0, exclude=["drawn-225-003"])


def test_a_table_cannot_take_their_names(tmp_path, root):
    rows = (root / "resources/materials.csv").read_text().splitlines()
    (al,) = [row for row in rows if row.startswith("Al-225,")]
    (tmp_path / "t.csv").write_text("\n".join([rows[0], al.replace("Al-225,", "drawn-225-000,", 1)]) + "\n")
    with pytest.raises(ValueError, match="drawn-225-000"):
        listed(1, table=str(tmp_path / "t.csv"))


def rows(count=3):
    return [
        {
            "material": name,
            "space_group": m.space_group,
            "prototype": m.prototype,
            "formula": m.formula,
            **({"drawn": True} if m.drawn else {}),
        }
        for name, m in listed(count).items()
    ]


@pytest.mark.parametrize("by", dataset.RULES)
@pytest.mark.parametrize("hosts", ["train", "held_out"])
def test_they_train_and_change_nothing_of_the_split(by, hosts):
    arguments = {
        "by": by,
        "hosts": hosts,
        "host_crystals": {"Al": 225, "Fe": 229},
        "grid": (16, 3, 3),
        "validation": 0.1,
    }
    split = dataset.split_table(rows(), 0.3, 1, **arguments)
    drawn = [row for row in split if row.material.startswith("drawn-")]
    assert len(drawn) == 15
    assert {row.part for row in drawn} == {"train"}
    assert [row for row in split if row.drawn] == drawn
    without = dataset.split_table(rows(0), 0.3, 1, **arguments)
    assert [row for row in split if row not in drawn] == without
    said = "; 15 crystals drawn at random train" if by == "image" else " crystals train, 15 of them drawn at random, "
    assert said in dataset.describe_split(split) and "drawn" not in dataset.describe_split(without)
    assert dataset.split_table(rows(), 0.3, 1, drawn=False, **arguments) == without


def test_a_group_of_drawn_crystals_alone_is_refused():
    only = [row for row in rows() if row["space_group"] != 213 or row.get("drawn")]
    with pytest.raises(ValueError, match="213 has no crystal but drawn ones"):
        dataset.split_table(only, 0.3, 1)


def test_volume_per_atom_is_that_of_crystals():
    volumes = []
    for seed in range(10):
        drawn = drawn_crystals.draw(listed()["drawn-221-000"], seed)
        volumes.append(drawn.lattice_parameter**3 / len(materials.crystal(drawn)))
    assert 8 < math.exp(np.mean(np.log(volumes))) < 30
