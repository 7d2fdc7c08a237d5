"""Sources of clean crystals: what is read, what is refused, and with which words."""

import csv
import json
import subprocess
import sys
import types
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import spglib
from ase.spacegroup import crystal as expand

from defraction import materials

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "resources" / "materials.csv"
ANSWERS = ROOT / "tests" / "data" / "materials_project.json"

SPINEL = {
    "material": "MgAl2O4-227",
    "formula": "MgAl2O4",
    "space_group": "227",
    "setting": "2",
    "prototype": "AB2C4_cF56_227_a_d_e",
    "prototype_name": "spinel",
    "lattice_parameter_angstrom": "8.08",
    "sites": "Mg:8a:0.125,0.125,0.125;Al:16d:0.5,0.5,0.5;O:32e:0.2624,0.2624,0.2624",
    "free_parameters": "O:32e:x=0.2624",
    "reference": "made up for this test",
}


def write_table(path, rows, columns=materials.COLUMNS):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def space_group(atoms):
    cell = (atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers)
    return spglib.get_symmetry_dataset(cell, symprec=1e-3).number


class TestTable:
    def test_a_row_becomes_a_material(self, tmp_path):
        found = materials.read_table(write_table(tmp_path / "t.csv", [SPINEL]))
        material = found["MgAl2O4-227"]
        assert list(found) == ["MgAl2O4-227"]
        assert (material.space_group, material.setting, material.lattice_parameter) == (227, 2, 8.08)
        assert material.source == str(tmp_path / "t.csv")
        atoms = materials.crystal(material)
        assert len(atoms) == 56 and space_group(atoms) == 227

    def test_to_dict_and_back(self, tmp_path):
        material = materials.read_table(write_table(tmp_path / "t.csv", [SPINEL]))["MgAl2O4-227"]
        values = material.to_dict()
        assert all(isinstance(value, str | int | float) for value in values.values())
        assert materials.Material.from_dict(json.loads(json.dumps(values))) == material

    def test_from_dict_names_the_key(self):
        with pytest.raises(ValueError, match="lattice"):
            materials.Material.from_dict({"material": "x"})

    @pytest.mark.parametrize(
        ("column", "value", "words"),
        [
            ("material", "Mg Al2O4", "file name"),
            ("material", "", "empty"),
            ("formula", "MgAl2O3", "differs from the sites"),
            ("formula", "Mg(AlO2)2", "no brackets"),
            ("formula", "XxAl2O4", "not a chemical element"),
            ("space_group", "216", "not one of 213, 221, 225, 227, 229"),
            ("space_group", "Fd-3m", "not one of"),
            ("setting", "1", "must be 2"),
            ("lattice_parameter_angstrom", "eight", "not a number"),
            ("lattice_parameter_angstrom", "nan", "not a cell edge"),
            ("lattice_parameter_angstrom", "808", "not a cell edge"),
            ("sites", "Mg:8a:0.125,0.125", "does not read as"),
            ("sites", "Mg:8a:0.125,0.125,zero", "not three numbers"),
            ("sites", "Mg:8a:0.125,0.125,nan", "not three numbers"),
            ("sites", "Mg:4a:0,0,0", "has no position 4a"),
            ("sites", "Mg:8a:0,0,0", "not of the form 1/8,1/8,1/8"),
            ("sites", "O:32e:0.2624,0.2624,0.2634", "not of the form x,x,x"),
            ("sites", "D:8a:0.125,0.125,0.125", "not a chemical element"),
            ("free_parameters", "O:32e:x=0.2625", "differs from the sites"),
            ("free_parameters", "-", "differs from the sites"),
            ("free_parameters", "O:32e:x", "differs from the sites"),
            ("reference", " ", "empty"),
        ],
    )
    def test_a_fault_is_named_with_row_and_column(self, tmp_path, column, value, words):
        path = write_table(tmp_path / "t.csv", [{**SPINEL, "material": "good"}, {**SPINEL, column: value}])
        with pytest.raises(ValueError, match=words) as error:
            materials.read_table(path)
        assert f"{path}, line 3" in str(error.value) and f"column {column}" in str(error.value)

    def test_missing_column(self, tmp_path):
        columns = [column for column in materials.COLUMNS if column != "sites"]
        with pytest.raises(ValueError, match="column sites is missing"):
            materials.read_table(write_table(tmp_path / "t.csv", [SPINEL], columns))

    def test_duplicate(self, tmp_path):
        with pytest.raises(ValueError, match="line 3, column material: 'MgAl2O4-227' occurs twice"):
            materials.read_table(write_table(tmp_path / "t.csv", [SPINEL, SPINEL]))

    def test_too_many_values(self, tmp_path):
        path = write_table(tmp_path / "t.csv", [SPINEL])
        path.write_text(path.read_text().rstrip() + ",more\n")
        with pytest.raises(ValueError, match="more values than there are columns"):
            materials.read_table(path)

    def test_crystal_refuses_coordinates_that_merge(self):
        """A general position so close to a special one that its images fall together."""
        near = materials.Material("x", "O", 225, 1, "-", "-", 5.0, "O:24e:0.000001,0,0", "O:24e:x=1e-06", "-", "t.csv")
        with pytest.raises(ValueError, match=r"x \(t.csv\)"):
            materials.crystal(near)

    def test_listing_the_shipped_table_is_light(self):
        code = (
            "import sys, time; start = time.process_time(); from defraction import materials; "
            f"materials.read_table({str(TABLE)!r}); print(time.process_time() - start); "
            "print(*[m for m in ('numpy', 'ase', 'spglib', 'pymatgen', 'torch') if m in sys.modules])"
        )
        environment = {"PYTHONPATH": str(ROOT / "workflow" / "scripts"), "PATH": "/usr/bin:/bin"}
        answer = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True, timeout=60
        )
        seconds, modules = answer.stdout.split("\n")[:2]
        assert float(seconds) < 0.3 and modules == ""


@pytest.mark.parametrize("group", materials.SPACE_GROUPS)
def test_wyckoff_positions_are_those_of_the_space_group(group):
    """Each position, with coordinates put in, has as many atoms in the cell as its name says."""
    values = {"x": 0.0717, "y": 0.1213, "z": 0.2631, "-y": 0.8787, "y+1/4": 0.3713, "-y+1/2": 0.3787}
    for position, template in materials.WYCKOFF[group].items():
        coordinates = [values[word] if word in values else float(Fraction(word)) for word in template.split(",")]
        site = materials.parse_sites(f"O:{position}:" + ",".join(f"{value:.6f}" for value in coordinates), group)[0]
        atoms = expand(
            ["O"], [coordinates], spacegroup=group, setting=materials.SETTINGS[group], cellpar=[9, 9, 9, 90, 90, 90]
        )
        assert len(atoms) == site.multiplicity, position


def test_all_wyckoff_positions_are_there():
    assert [len(materials.WYCKOFF[group]) for group in (213, 221, 225, 227, 229)] == [5, 14, 12, 9, 12]


SILICON_PRIMITIVE = """data_Si
_cell_length_a 3.8401
_cell_length_b 3.8401
_cell_length_c 3.8401
_cell_angle_alpha 60
_cell_angle_beta 60
_cell_angle_gamma 60
_space_group_name_H-M_alt 'P 1'
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Si1 0.0 0.0 0.0
Si2 0.25 0.25 0.25
"""

SALT = """data_NaCl
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 Na 0 0 0 1
Cl1 Cl 0.5 0.5 0.5 1
"""


class TestFolder:
    def test_primitive_cell_becomes_conventional(self, tmp_path):
        (tmp_path / "silicon.cif").write_text(SILICON_PRIMITIVE)
        material = materials.list_folder(tmp_path)["silicon"]
        assert (material.space_group, material.setting, material.formula) == (227, 2, "Si")
        assert material.lattice_parameter == pytest.approx(3.8401 * np.sqrt(2), abs=1e-4)
        atoms = materials.crystal(material)
        assert len(atoms) == 8 and space_group(atoms) == 227
        np.testing.assert_allclose(atoms.cell[:], material.lattice_parameter * np.eye(3), atol=1e-9)
        # Origin choice 2 puts the atoms at 1/8 from the inversion centre.
        assert np.abs(np.mod(atoms.get_scaled_positions() * 8, 2) - 1).max() < 1e-6

    def test_conventional_cell_stays_and_a_supercell_goes_back_to_it(self, tmp_path):
        (tmp_path / "salt.cif").write_text(SALT)
        (tmp_path / "salt-2x1x1.cif").write_text(
            SALT.replace("_cell_length_a 5.64", "_cell_length_a 11.28")
            .replace("'F m -3 m'", "'P 1'")
            .split("Na1 Na")[0]
            + "".join(
                f"{element} {element} {(x + shift) / 2 % 1} {y} {z} 1\n"
                for element, start in (("Na", 0.0), ("Cl", 0.5))
                for x, y, z in [(start, 0, 0), (start, 0.5, 0.5), (start + 0.5, 0.5, 0), (start + 0.5, 0, 0.5)]
                for shift in (0, 1)
            )
        )
        found = materials.list_folder(tmp_path)
        assert {name: len(materials.crystal(m)) for name, m in found.items()} == {"salt": 8, "salt-2x1x1": 8}
        assert all(m.lattice_parameter == pytest.approx(5.64) for m in found.values())

    def test_plain_values_and_back(self, tmp_path):
        (tmp_path / "salt.cif").write_text(SALT)
        material = materials.list_folder(tmp_path)["salt"]
        again = materials.Material.from_dict(json.loads(json.dumps(material.to_dict())))
        assert again == material and len(materials.crystal(again)) == 8

    def test_the_prototype_is_that_of_the_table_whatever_the_cell(self, tmp_path):
        (tmp_path / "silicon.cif").write_text(SILICON_PRIMITIVE)
        (tmp_path / "salt.cif").write_text(SALT)
        (tmp_path / "other-origin.cif").write_text(SALT.replace("Na1 Na", "Cl1 Cl").replace("Cl1 Cl 0.5", "Na1 Na 0.5"))
        kinds = {name: material.prototype for name, material in materials.list_folder(tmp_path).items()}
        assert kinds == {"silicon": "A_cF8_227_a", "salt": "AB_cF8_225_a_b", "other-origin": "AB_cF8_225_a_b"}

    @pytest.mark.parametrize("tag", ["_space_group_name_Hall", "_symmetry_space_group_name_Hall"])
    def test_a_hall_symbol_is_a_declaration(self, tmp_path, tag):
        named = "_symmetry_space_group_name_H-M 'F m -3 m'"
        for lines in (f"{tag} '-F 4 2 3'", f"{named}\n{tag} ?"):
            (tmp_path / "salt.cif").write_text(SALT.replace(named, lines))
            assert materials.list_folder(tmp_path)["salt"].space_group == 225
        for lines in (f"{tag} 'F -4 2 3'", f"{named}\n{tag} 'F -4 2 3'"):
            (tmp_path / "salt.cif").write_text(SALT.replace(named, lines))
            with pytest.raises(
                ValueError, match=r"salt\.cif: declares space group 216, but its atoms have space group 225"
            ):
                materials.list_folder(tmp_path)

    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            ("broken.cif", "data_x\n_cell_length_a\nloop_\n", "not a valid CIF"),
            ("part.cif", SALT.replace("Na1 Na 0 0 0 1", "Na1 Na 0 0 0 0.5"), "occupied to 0.5"),
            (
                "zincblende.cif",
                SALT.replace("'F m -3 m'", "'F -4 3 m'").replace("0.5 0.5 0.5", "0.25 0.25 0.25"),
                "216",
            ),
            ("wrong.cif", SALT.replace("'F m -3 m'", "'F -4 3 m'"), "declares space group 216, but its atoms have"),
            ("two.cif", SALT + SALT.replace("data_NaCl", "data_other"), "holds 2 structures"),
            ("a name.cif", SALT, "letters, digits"),
        ],
    )
    def test_bad_files_are_named(self, tmp_path, name, text, words):
        (tmp_path / "good.cif").write_text(SALT)
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=words) as error:
            materials.list_folder(tmp_path)
        assert name in str(error.value)

    def test_empty_folder(self, tmp_path):
        with pytest.raises(ValueError, match="no CIF file"):
            materials.list_folder(tmp_path)

    def test_a_file_that_changed_is_refused(self, tmp_path):
        file = tmp_path / "salt.cif"
        file.write_text(SALT)
        material = materials.list_folder(tmp_path)["salt"]
        file.write_text(SALT.replace("5.64", "5.65"))
        with pytest.raises(ValueError, match="changed since"):
            materials.crystal(material)
        assert materials.list_folder(tmp_path)["salt"] != material


class Recorded:
    """Stands for an MPRester: answers from a file, and takes down what it was asked."""

    db_version = "2026.1.1"

    def __init__(self, fault=None):
        self.asked, self.fault = [], fault
        self.materials = types.SimpleNamespace(summary=types.SimpleNamespace(search=self.search))

    def search(self, material_ids, fields):
        from pymatgen.core import Structure

        if self.fault:
            raise self.fault
        self.asked += material_ids
        answers = json.loads(ANSWERS.read_text())
        return [
            types.SimpleNamespace(**{**answer, "structure": Structure.from_dict(answer["structure"])})
            for answer in answers
            if answer["material_id"] in material_ids
        ]


class TestMaterialsProject:
    def test_answers_become_conventional_cells(self, tmp_path):
        found = materials.fetch_materials_project(["mp-1", "mp-2"], tmp_path / "mp", Recorded())
        assert {name: (m.formula, m.space_group) for name, m in found.items()} == {
            "mp-1": ("Si", 227),
            "mp-2": ("MgO", 225),
        }
        assert [len(materials.crystal(m)) for m in found.values()] == [8, 8]
        assert found["mp-1"].lattice_parameter == pytest.approx(5.47, abs=1e-3)
        text = (tmp_path / "mp" / "mp-1.cif").read_text()
        assert "CC BY 4.0" in text and "2026.1.1" in text

    def test_other_space_group_is_refused_and_nothing_written(self, tmp_path):
        with pytest.raises(ValueError, match=r"mp-3 \(ZnS\): has space group 216"):
            materials.fetch_materials_project(["mp-1", "mp-3"], tmp_path / "mp", Recorded())
        assert not (tmp_path / "mp").exists()

    def test_unknown_id(self, tmp_path):
        with pytest.raises(ValueError, match="no entry mp-99"):
            materials.fetch_materials_project(["mp-1", "mp-99"], tmp_path, Recorded())

    def test_malformed_id(self, tmp_path):
        with pytest.raises(ValueError, match=r"'\.\./Si' is not an id"):
            materials.fetch_materials_project(["../Si"], tmp_path, Recorded())

    def test_no_network(self, tmp_path):
        with pytest.raises(ConnectionError, match="check the network"):
            materials.fetch_materials_project(["mp-1"], tmp_path, Recorded(ConnectionRefusedError("refused")))

    def test_no_key(self, tmp_path, monkeypatch):
        monkeypatch.delenv("MP_API_KEY", raising=False)
        with pytest.raises(ValueError, match="MP_API_KEY"):
            materials.fetch_materials_project(["mp-1"], tmp_path)

    def test_no_package(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MP_API_KEY", "secret")
        monkeypatch.setitem(sys.modules, "mp_api", None)
        monkeypatch.setitem(sys.modules, "mp_api.client", None)
        with pytest.raises(ModuleNotFoundError, match="pip install mp-api"):
            materials.fetch_materials_project(["mp-1"], tmp_path)

    def test_client_is_opened_with_the_key_and_closed(self, tmp_path, monkeypatch):
        events = []

        class Rester(Recorded):
            def __init__(self, key):
                super().__init__()
                events.append(key)

            def __enter__(self):
                return self

            def __exit__(self, *_):
                events.append("closed")

        module = types.ModuleType("mp_api.client")
        module.MPRester = Rester
        monkeypatch.setenv("MP_API_KEY", "secret")
        monkeypatch.setitem(sys.modules, "mp_api", types.ModuleType("mp_api"))
        monkeypatch.setitem(sys.modules, "mp_api.client", module)
        assert list(materials.fetch_materials_project(["mp-1"], tmp_path)) == ["mp-1"]
        assert events == ["secret", "closed"]


class TestCatalogue:
    def settings(self, **values):
        return {"table": None, "folder": None, "materials_project": [], **values}

    def test_the_shipped_table(self):
        found = materials.catalogue(self.settings(table=str(TABLE)))
        assert found == materials.read_table(TABLE)

    def test_groups_exclusions_and_limit(self):
        found = materials.catalogue(
            self.settings(table=TABLE, space_groups=[225, 229], exclude=["Al-225"], max_per_group=5)
        )
        groups = [material.space_group for material in found.values()]
        assert (groups.count(225), groups.count(229), len(groups)) == (5, 5, 10)
        assert "Al-225" not in found

    def test_three_sources_together(self, tmp_path):
        folder, fetched = tmp_path / "own", tmp_path / "mp"
        folder.mkdir()
        (folder / "salt.cif").write_text(SALT)
        materials.fetch_materials_project(["mp-2"], fetched, Recorded())
        table = write_table(tmp_path / "t.csv", [SPINEL])
        found = materials.catalogue(self.settings(table=table, folder=folder, materials_project=["mp-2"]), fetched)
        assert list(found) == ["MgAl2O4-227", "salt", "mp-2"]
        assert [len(materials.crystal(material)) for material in found.values()] == [56, 8, 8]
        assert all(Path(material.source).is_file() for material in found.values())

    def test_entries_that_are_not_there_are_fetched(self, tmp_path, monkeypatch):
        asked = []
        monkeypatch.setattr(
            materials,
            "fetch_materials_project",
            lambda ids, folder, real=materials.fetch_materials_project: (
                asked.append(ids) or real(ids, folder, Recorded())
            ),
        )
        settings = self.settings(materials_project=["mp-1", "mp-2"])
        first = materials.catalogue(settings, tmp_path)
        assert asked == [["mp-1", "mp-2"]] and materials.catalogue(settings, tmp_path) == first
        assert len(asked) == 1

    def test_an_id_from_two_sources(self, tmp_path):
        (tmp_path / "MgAl2O4-227.cif").write_text(SALT)
        table = write_table(tmp_path / "t.csv", [SPINEL])
        with pytest.raises(ValueError, match=r"comes from .* and from"):
            materials.catalogue(self.settings(table=table, folder=tmp_path))

    def test_unknown_exclusion(self):
        with pytest.raises(ValueError, match="do you mean Al-225"):
            materials.catalogue(self.settings(table=TABLE, exclude=["Al225"]))

    def test_nothing_left(self):
        with pytest.raises(ValueError, match="no crystal is left"):
            materials.catalogue(self.settings())
