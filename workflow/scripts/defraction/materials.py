"""Clean crystals of five cubic space groups: from a table of measured ones, a folder of CIF files, the Materials
Project, and drawn at random.

All four give `Material` records, which list ids and space groups in milliseconds; `crystal` turns one record into
atoms, in its own job. Lengths are in Å, fractional coordinates refer to the conventional cubic cell, and space group
227 has its origin at the inversion centre (origin choice 2).
"""

import csv
import difflib
import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from functools import cache
from math import gcd, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms

logger = logging.getLogger(__name__)

SPACE_GROUPS = {213: "P4_132", 221: "Pm-3m", 225: "Fm-3m", 227: "Fd-3m", 229: "Im-3m"}
SETTINGS = {213: 1, 221: 1, 225: 1, 227: 2, 229: 1}  # origin choice
SPACE_GROUP_NAMES = {213: "P 41 3 2", 221: "P m -3 m", 225: "F m -3 m", 227: "F d -3 m:2", 229: "I m -3 m"}
HALL_NUMBERS = {213: 509, 221: 517, 225: 523, 227: 526, 229: 529}  # of these settings, in spglib's list

# Wyckoff positions with their first coordinate triplet: International Tables for Crystallography A (2016),
# doi:10.1107/97809553602060000114.
WYCKOFF = {
    213: {"4a": "3/8,3/8,3/8", "4b": "7/8,7/8,7/8", "8c": "x,x,x", "12d": "1/8,y,y+1/4", "24e": "x,y,z"},
    221: {
        "1a": "0,0,0", "1b": "1/2,1/2,1/2", "3c": "0,1/2,1/2", "3d": "1/2,0,0", "6e": "x,0,0", "6f": "x,1/2,1/2",
        "8g": "x,x,x", "12h": "x,1/2,0", "12i": "0,y,y", "12j": "1/2,y,y", "24k": "0,y,z", "24l": "1/2,y,z",
        "24m": "x,x,z", "48n": "x,y,z",
    },
    225: {
        "4a": "0,0,0", "4b": "1/2,1/2,1/2", "8c": "1/4,1/4,1/4", "24d": "0,1/4,1/4", "24e": "x,0,0", "32f": "x,x,x",
        "48g": "x,1/4,1/4", "48h": "0,y,y", "48i": "1/2,y,y", "96j": "0,y,z", "96k": "x,x,z", "192l": "x,y,z",
    },
    227: {
        "8a": "1/8,1/8,1/8", "8b": "3/8,3/8,3/8", "16c": "0,0,0", "16d": "1/2,1/2,1/2", "32e": "x,x,x",
        "48f": "x,1/8,1/8", "96g": "x,x,z", "96h": "0,y,-y", "192i": "x,y,z",
    },
    229: {
        "2a": "0,0,0", "6b": "0,1/2,1/2", "8c": "1/4,1/4,1/4", "12d": "1/4,0,1/2", "12e": "x,0,0", "16f": "x,x,x",
        "24g": "x,0,1/2", "24h": "0,y,y", "48i": "1/4,y,-y+1/2", "48j": "0,y,z", "48k": "x,x,z", "96l": "x,y,z",
    },
}  # fmt: skip

# Wyckoff letters that change places, two by two, where the origin moves by (1/2, 1/2, 1/2) to a point like it.
OTHER_ORIGIN = {213: "ab", 221: "abcdefijkl", 225: "abhi", 227: "abcd", 229: ""}

COLUMNS = (
    "material", "formula", "space_group", "setting", "prototype", "prototype_name", "lattice_parameter_angstrom",
    "sites", "free_parameters", "reference",
)  # fmt: skip
COORDINATE_TOLERANCE = 2e-6  # by which a written fractional coordinate may miss its Wyckoff position
SYMMETRY_TOLERANCE = 1e-2  # Å; CIF files give coordinates to four or five decimals
LARGEST_EDGE = 60.0  # Å; a longer one is taken for a slip in the unit
CACHE = Path("resources/materials_project")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
_SITE = re.compile(r"([A-Z][a-z]?):(\d+[a-n]):([^:;,]+),([^:;,]+),([^:;,]+)")
_TERM = re.compile(r"(-?)([xyz])(?:\+(\d/\d))?")


@dataclass(frozen=True)
class Material:
    """One crystal: a row of the table, a CIF file, or one that is drawn at random.

    `sites` holds one atom of each Wyckoff site, `element:multiplicity+letter:x,y,z` separated by `;`; it is empty for a
    crystal that is read from the file `source`, whose sha256 is then `digest`, and for one that `drawn_crystals.draw`
    will draw, which has no `source` either.
    """

    material: str
    formula: str
    space_group: int
    setting: int
    prototype: str
    prototype_name: str
    lattice_parameter: float  # Å, edge of the conventional cubic cell
    sites: str
    free_parameters: str
    reference: str
    source: str
    digest: str = ""

    @property
    def drawn(self) -> bool:
        """Whether a seed decides this crystal."""
        return not self.sites and not self.digest

    def to_dict(self) -> dict[str, str | int | float]:
        """Plain values by name, fit to be parameters of a rule."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Material":
        """The inverse of `to_dict`. Raises ValueError naming a key that is missing or not known."""
        known = {field.name for field in fields(cls)}
        if faults := sorted(known.symmetric_difference(values)):
            raise ValueError(f"a material is described by {sorted(known)}; missing or not known: {faults}")
        return cls(**values)


@dataclass(frozen=True)
class Site:
    """An occupied Wyckoff position (such as `32e`) with the fractional coordinates of one of its atoms."""

    element: str
    position: str
    multiplicity: int
    coordinates: tuple[float, float, float]
    free: tuple[tuple[str, float], ...]


def catalogue(settings: Mapping[str, Any], fetched: Path | str = CACHE) -> dict[str, Material]:
    """The crystals that a configuration asks for, by id: the table, the folder, the Materials Project, drawn ones.

    Args:
        settings: `table`, `folder` (paths or None), `materials_project` (ids), `space_groups` (numbers to keep),
            `exclude` (ids to leave out), `max_per_group` (at most so many of each group, the first ones; None: all),
            `drawn` (so many more of each group, drawn at random; `max_per_group` does not count them).
        fetched: folder with the CIF files of Materials Project entries; entries that are not there are fetched into it.

    Raises ValueError for anything that cannot be read, an id that two sources share, an id to exclude that is not
    there, or if nothing is left.
    """
    sources = []
    if settings.get("table"):
        sources.append(read_table(settings["table"]))
    if settings.get("folder"):
        sources.append(list_folder(settings["folder"]))
    if ids := settings.get("materials_project"):
        if missing := [name for name in ids if not _cached(name, fetched).is_file()]:
            fetch_materials_project(missing, fetched)
        sources.append({name: _from_file(_cached(name, fetched)) for name in ids})
    found: dict[str, Material] = {}
    for source in sources:
        for name, material in source.items():
            if name in found:
                raise ValueError(
                    f"material {name} comes from {found[name].source} and from {material.source}; rename one of them"
                )
            found[name] = material
    groups = settings.get("space_groups") or list(SPACE_GROUPS)
    limit, excluded, number = settings.get("max_per_group"), settings.get("exclude") or [], settings.get("drawn") or 0
    drawn = [to_draw(group, i) for group in groups for i in range(number)]
    known = {*found, *(material.material for material in drawn)}
    for name in excluded:
        if name not in known:
            hint = difflib.get_close_matches(name, sorted(known), 1)
            raise ValueError(
                f"materials.exclude: there is no material {name!r}"
                + (f" with materials.drawn: {number}" if name.startswith("drawn-") else "")
                + (f"; do you mean {hint[0]}?" if hint else "")
            )
    kept: dict[str, Material] = {}
    count = dict.fromkeys(groups, 0)
    for name, material in found.items():
        group = material.space_group
        if name in excluded or group not in count or (limit and count[group] >= limit):
            continue
        count[group] += 1
        kept[name] = material
    if not kept:
        raise ValueError(
            "materials: no crystal is left; name a table, a folder or Materials Project ids, and look at space_groups "
            "and exclude"
        )
    for material in drawn:
        name = material.material
        if name in found:
            raise ValueError(f"material {name}: the names drawn-GROUP-NUMBER are those of drawn crystals; rename it")
        if name not in excluded:
            kept[name] = material
    return kept


def to_draw(group: int, number: int) -> Material:
    """A crystal of which its name and space group are known, and nothing else yet; its prototype is its own."""
    name = f"drawn-{group}-{number:03d}"
    return Material(
        material=name,
        formula="",
        space_group=group,
        setting=SETTINGS[group],
        prototype=name,
        prototype_name="drawn at random",
        lattice_parameter=0.0,
        sites="",
        free_parameters="-",
        reference="-",
        source="",
    )


def read_table(path: Path | str) -> dict[str, Material]:
    """Read a table of crystals (CSV with the columns `COLUMNS`) and check each row without building the crystal.

    A row holds its id (`material`), `formula`, `space_group` (213, 221, 225, 227 or 229), `setting` (origin choice: 2
    for 227, else 1), `prototype` and `prototype_name`, the measured `lattice_parameter_angstrom` [Å], the occupied
    `sites` with one atom each, the `free_parameters` (the free coordinates of these sites once more, `-` for none) and
    the `reference`.

    Raises ValueError naming the line, the material and the column for the first fault found, FileNotFoundError without
    the file.
    """
    materials: dict[str, Material] = {}
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if missing := [name for name in COLUMNS if name not in (rows.fieldnames or [])]:
            raise ValueError(f"{path}: column {missing[0]} is missing; the first line must name {', '.join(COLUMNS)}")
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            material = _from_row(row, where, str(path))
            if material.material in materials:
                raise ValueError(f"{where}, column material: {material.material!r} occurs twice; add a suffix to one")
            materials[material.material] = material
    return materials


def list_folder(path: Path | str) -> dict[str, Material]:
    """The crystals of a folder of CIF files, one per file, named after the file and sorted by name.

    The space group is found from the atoms (spglib) and must be the one that the file declares, if it declares one.
    Primitive cells and supercells stand for the conventional cubic cell (see `crystal`). The prototype is written as in
    the table, from the Wyckoff letters that spglib gives.

    Raises ValueError naming the file for one that does not parse, holds several structures, is partly occupied,
    contradicts its declared space group, or belongs to none of the five groups; or if there are no CIF files.
    """
    folder = Path(path)
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() == ".cif")
    if not files:
        raise ValueError(f"{folder}: there is no CIF file in this folder; it should hold files named <material>.cif")
    materials: dict[str, Material] = {}
    for file in files:
        material = _from_file(file)
        if material.material in materials:
            raise ValueError(f"{file}: another file has the same name up to its suffix; rename one")
        materials[material.material] = material
    return materials


def fetch_materials_project(ids: Sequence[str], out_dir: Path | str, client: Any = None) -> dict[str, Material]:
    """Fetch entries of the Materials Project and write `<id>.cif` with the conventional cubic cell into `out_dir`.

    The structures are relaxed by density functional theory, so their lattice parameters are calculated ones.

    Args:
        ids: Materials Project ids, such as `mp-149`.
        out_dir: folder, created if need be.
        client: an `mp_api.client.MPRester`, or anything with its `materials.summary.search` and
            `db_version`; by default one is opened with the key in the environment variable MP_API_KEY.

    Raises ValueError for a missing key, an id that is malformed or not known there, or a crystal of another space
    group; ModuleNotFoundError without `mp-api`; ConnectionError if no answer comes. Nothing is written then.
    """
    for name in ids:
        _cached(name, out_dir)
    if client is None:
        with _client() as opened:
            return fetch_materials_project(ids, out_dir, opened)
    try:
        answers = client.materials.summary.search(
            material_ids=list(ids), fields=["material_id", "formula_pretty", "structure"]
        )
        version = str(client.db_version)
    except (OSError, *_refusals()) as error:
        raise ConnectionError(
            f"the Materials Project does not answer ({type(error).__name__}: {error}); check the network and the key "
            "in MP_API_KEY, or leave materials_project empty"
        ) from error
    entries = {str(answer.material_id): answer for answer in answers}
    if missing := [name for name in ids if name not in entries]:
        raise ValueError(f"the Materials Project has no entry {', '.join(missing)}; look the ids up there")
    crystals = {}
    for name in ids:
        atoms, group, _ = _standard_cell(_atoms_of_answer(entries[name].structure), f"Materials Project entry {name}")
        _check_group(group, f"Materials Project entry {name} ({entries[name].formula_pretty})")
        crystals[name] = atoms

    from defraction.structures import write_structures

    Path(out_dir).mkdir(parents=True, exist_ok=True)
    for name, atoms in crystals.items():
        origin = {"source": "Materials Project (CC BY 4.0)", "material_id": name, "database_version": version}
        file = _cached(name, out_dir)
        partial = file.with_suffix(".part")
        write_structures([atoms], partial, metadata=origin)
        partial.replace(file)
        logger.info("fetched %s (%s)", name, entries[name].formula_pretty)
    return {name: _from_file(_cached(name, out_dir)) for name in ids}


def crystal(material: Material) -> "Atoms":
    """All atoms of the conventional cubic cell of `material`, a, b, c along x, y, z.

    `info` holds `reference_cell` (the cell [Å]) and `repeat` ([1, 1, 1]).

    Raises ValueError if the sites do not give the number of atoms that their multiplicities promise, or if the file
    of the material changed since it was listed.
    """
    if material.sites:
        atoms = _expand(material)
    else:
        file = Path(material.source)
        if _digest(file) != material.digest:
            raise ValueError(f"{file}: the file changed since the crystals were listed; start the run again")
        atoms, _, _ = _standard_cell(_read_one(file), str(file))
    atoms.info = {"reference_cell": atoms.cell.tolist(), "repeat": [1, 1, 1]}
    return atoms


def parse_sites(text: str, space_group: int) -> list[Site]:
    """Take `element:multiplicity+letter:x,y,z;...` apart and check each against the Wyckoff positions of the group.

    Coordinates must be those of the first triplet of the position in International Tables A, within 2e-6.

    Raises ValueError saying what is wrong with which site.
    """
    sites = []
    for part in text.split(";"):
        match = _SITE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part!r} does not read as element:position:x,y,z, such as O:32e:0.26,0.26,0.26")
        element, position = match[1], match[2]
        _check_element(element)
        try:
            coordinates = tuple(float(match[i]) for i in (3, 4, 5))
        except ValueError:
            raise ValueError(f"{part!r}: the coordinates are not three numbers") from None
        if not all(isfinite(value) for value in coordinates):
            raise ValueError(f"{part!r}: the coordinates are not three numbers")
        if position not in WYCKOFF[space_group]:
            raise ValueError(
                f"{part!r}: space group {space_group} has no position {position}; it has "
                + ", ".join(WYCKOFF[space_group])
            )
        free = _free_values(WYCKOFF[space_group][position], coordinates)
        if free is None:
            raise ValueError(
                f"{part!r}: the coordinates are not of the form {WYCKOFF[space_group][position]} of position {position}"
            )
        sites.append(Site(element, position, multiplicity(position), coordinates, tuple(free.items())))
    return sites


def multiplicity(position: str) -> int:
    """Atoms of a Wyckoff position in the conventional cell: 32 of `32e`."""
    return int(re.match(r"\d+", position)[0])


def free_names(template: str) -> list[str]:
    """The free coordinates of a first triplet such as `1/8,y,y+1/4`: here y."""
    return sorted({name for _, name, _ in _template(template) if name})


def place(element: int | str, position: str, template: str, values: Mapping[str, float]) -> Site:
    """A site from the first triplet of its Wyckoff position and values of x, y, z; those that are not free are ignored.

    `element` is a symbol or an atomic number.
    """
    import gemmi

    coordinates = tuple(sign * values.get(name, 0.0) + constant for sign, name, constant in _template(template))
    symbol = element if isinstance(element, str) else gemmi.Element(element).name
    free = tuple((name, values[name]) for name in free_names(template))
    return Site(symbol, position, multiplicity(position), coordinates, free)


def text_of(sites: Iterable[Site]) -> str:
    """Sites as `parse_sites` reads them."""
    return ";".join(f"{s.element}:{s.position}:" + ",".join(f"{value:.8g}" for value in s.coordinates) for s in sites)


def true_cell(atoms: "Atoms") -> tuple[int, float]:
    """Space group that spglib finds, 0 for none, and the edge of its standard conventional cell [Å]."""
    try:
        standard, group, _ = _standard_cell(atoms, "")
    except ValueError:
        return 0, 0.0
    return group, float(standard.cell[0, 0])


def describe_free(sites: Iterable[Site]) -> str:
    """The free coordinates of `sites`, as in the column free_parameters: `O:32e:x=0.2624`, `-` for none."""
    parts = [
        f"{site.element}:{site.position}:" + ",".join(f"{name}={value:.10g}" for name, value in site.free)
        for site in sites
        if site.free
    ]
    return ";".join(parts) or "-"


def formula_of(atoms: "Atoms") -> str:
    """The formula without brackets and common factors, such as `MgAl2O4`; metals come first."""
    return str(atoms.symbols.formula.reduce()[0].format("metal"))


def composition(formula: str) -> dict[str, int]:
    """Atoms of each element in a formula without brackets, such as `MgAl2O4`. Raises ValueError if it is not one."""
    if not re.fullmatch(r"([A-Z][a-z]?\d*)+", formula):
        raise ValueError(f"{formula!r} is not a formula such as MgAl2O4 (whole numbers, no brackets)")
    counts: dict[str, int] = {}
    for element, number in re.findall(r"([A-Z][a-z]?)(\d*)", formula):
        _check_element(element)
        counts[element] = counts.get(element, 0) + int(number or 1)
    return counts


def _from_row(row: Mapping[str, str | None], where: str, source: str) -> Material:
    name = (row["material"] or "").strip()
    where += f" ({name})" if name else ""

    def fault(column: str, text: str) -> ValueError:
        return ValueError(f"{where}, column {column}: {text}")

    values = {column: (row[column] or "").strip() for column in COLUMNS}
    for column, value in values.items():
        if not value:
            raise fault(column, "is empty")
    if row.get(None):
        raise ValueError(f"{where}: has more values than there are columns; put text with commas into quotes")
    if not _ID.fullmatch(name):
        raise fault("material", f"{name!r} cannot be a file name; use letters, digits, dots and hyphens")
    groups = ", ".join(map(str, SPACE_GROUPS))
    try:
        group = int(values["space_group"])
    except ValueError:
        raise fault("space_group", f"{values['space_group']!r} is not one of {groups}") from None
    if group not in SPACE_GROUPS:
        raise fault("space_group", f"{group} is not one of {groups}")
    if values["setting"] != str(SETTINGS[group]):
        raise fault("setting", f"{values['setting']!r} must be {SETTINGS[group]} for space group {group}")
    try:
        edge = float(values["lattice_parameter_angstrom"])
    except ValueError:
        raise fault("lattice_parameter_angstrom", f"{values['lattice_parameter_angstrom']!r} is not a number") from None
    if not 1.0 < edge < LARGEST_EDGE:
        raise fault("lattice_parameter_angstrom", f"{edge:g} is not a cell edge in Å (1 to {LARGEST_EDGE:g})")
    try:
        formula = composition(values["formula"])
    except ValueError as error:
        raise fault("formula", str(error)) from None
    try:
        sites = parse_sites(values["sites"], group)
    except ValueError as error:
        raise fault("sites", str(error)) from None
    if (given := _described(values["free_parameters"])) is None or given != _described(describe_free(sites)):
        raise fault(
            "free_parameters", f"{values['free_parameters']!r} differs from the sites: {describe_free(sites)!r}"
        )
    if _reduced(formula) != _reduced(_content(sites)):
        raise fault("formula", f"{values['formula']!r} differs from the sites, which hold {_content(sites)} per cell")
    return Material(
        material=name,
        formula=values["formula"],
        space_group=group,
        setting=SETTINGS[group],
        prototype=values["prototype"],
        prototype_name=values["prototype_name"],
        lattice_parameter=edge,
        sites=values["sites"],
        free_parameters=values["free_parameters"],
        reference=values["reference"],
        source=source,
    )


def _described(text: str) -> list[tuple[str, str, str, float]] | None:
    """The free parameters as (element, position, name, value rounded to 1e-6); None if they do not parse."""
    if text == "-":
        return []
    found = []
    for part in text.split(";"):
        match = re.fullmatch(r"([A-Z][a-z]?):(\d+[a-n]):([xyz]=[^,;:=]+(?:,[xyz]=[^,;:=]+)*)", part.strip())
        if match is None:
            return None
        for word in match[3].split(","):
            name, value = word.split("=")
            try:
                found.append((match[1], match[2], name, round(float(value) % 1.0, 6)))
            except ValueError:
                return None
    return found


def _content(sites: Iterable[Site]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for site in sites:
        counts[site.element] = counts.get(site.element, 0) + site.multiplicity
    return counts


def _reduced(counts: Mapping[str, int]) -> dict[str, int]:
    divisor = gcd(*counts.values())
    return {element: number // divisor for element, number in counts.items()}


@cache
def _template(text: str) -> tuple[tuple[int, str, float], ...]:
    """A triplet such as `1/8,y,y+1/4` as (sign, variable or empty, constant) for each coordinate."""
    terms = []
    for term in text.split(","):
        match = _TERM.fullmatch(term)
        if match:
            terms.append((-1 if match[1] else 1, match[2], float(Fraction(match[3] or 0))))
        else:
            terms.append((0, "", float(Fraction(term))))
    return tuple(terms)


def _free_values(template: str, coordinates: Sequence[float]) -> dict[str, float] | None:
    """Values of x, y, z with which the template gives the coordinates modulo 1; None if there are none."""
    free: dict[str, float] = {}
    for (sign, name, constant), value in zip(_template(template), coordinates, strict=True):
        rest = value - constant
        if name and name not in free:
            free[name] = round(sign * rest, 10) % 1.0
        else:
            miss = rest - (sign * free[name] if name else 0.0)
            if abs(miss - round(miss)) > COORDINATE_TOLERANCE:
                return None
    return free


@cache
def _check_element(symbol: str) -> None:
    import gemmi

    if gemmi.Element(symbol).atomic_number == 0 or symbol in ("D", "X"):
        raise ValueError(f"{symbol!r} is not a chemical element")


def _expand(material: Material) -> "Atoms":
    import gemmi
    from ase import Atoms

    edge = material.lattice_parameter
    sites = parse_sites(material.sites, material.space_group)
    small = gemmi.SmallStructure()
    small.cell = gemmi.UnitCell(edge, edge, edge, 90, 90, 90)
    small.spacegroup = gemmi.SpaceGroup(SPACE_GROUP_NAMES[material.space_group])
    for site in sites:
        first = gemmi.SmallStructure.Site()
        first.element, first.fract = gemmi.Element(site.element), gemmi.Fractional(*site.coordinates)
        small.add_site(first)
    small.setup_cell_images()
    full = small.get_all_unit_cell_sites()
    symbols = [image.element.name for image in full]
    promised = _content(sites)
    got = {element: symbols.count(element) for element in promised}
    if got != promised:
        raise ValueError(
            f"{material.material} ({material.source}): the sites give {got} atoms instead of {promised}; check the "
            "coordinates"
        )
    fractions = [image.fract.tolist() for image in full]
    return Atoms(symbols, scaled_positions=fractions, cell=[edge] * 3, pbc=True)


def _from_file(file: Path) -> Material:
    name = file.stem
    if not _ID.fullmatch(name):
        raise ValueError(f"{file}: the file name becomes the material's id; use letters, digits, dots and hyphens only")
    atoms, group, letters = _standard_cell(_read_one(file), str(file))
    _check_group(group, str(file))
    for declared in _declared_groups(file):
        if declared not in (1, group):
            raise ValueError(
                f"{file}: declares space group {declared}, but its atoms have space group {group}; correct the file, "
                "or take the declaration out if the atoms are right"
            )
    return Material(
        material=name,
        formula=formula_of(atoms),
        space_group=group,
        setting=SETTINGS[group],
        prototype=_prototype(letters, group),
        prototype_name="-",
        lattice_parameter=float(atoms.cell[0, 0]),
        sites="",
        free_parameters="-",
        reference=file.name,
        source=str(file),
        digest=_digest(file),
    )


def _read_one(file: Path) -> "Atoms":
    from defraction.structures import read_structures

    images = read_structures(file)
    if len(images) != 1:
        raise ValueError(f"{file}: holds {len(images)} structures; give each crystal a file of its own")
    return images[0]


def _declared_groups(file: Path) -> list[int]:
    """Space group numbers that the CIF file names, by number, Hermann-Mauguin and Hall symbol; none for other words."""
    import gemmi

    readers = (
        (("_space_group_IT_number", "_symmetry_Int_Tables_number"), lambda text: int(text) if text.isdigit() else None),
        (("_space_group_name_H-M_alt", "_symmetry_space_group_name_H-M"), _group_of_name),
        (("_space_group_name_Hall", "_symmetry_space_group_name_Hall"), _group_of_hall),
    )
    blocks = [block for block in gemmi.cif.read(str(file)) if block.find_values("_atom_site_fract_x")]
    found = [
        read(gemmi.cif.as_string(text).strip())
        for tags, read in readers
        for tag in tags
        for block in blocks
        if (text := block.find_value(tag)) is not None
    ]
    return [number for number in found if number is not None]


def _group_of_name(symbol: str) -> int | None:
    import gemmi

    group = gemmi.find_spacegroup_by_name(symbol)
    return group.number if group else None


def _group_of_hall(symbol: str) -> int | None:
    """Space group number of a Hall symbol with whatever axes and origin."""
    import gemmi
    import spglib

    try:
        operations = list(gemmi.symops_from_hall(symbol))
    except (RuntimeError, ValueError):
        return None
    rotations = [[[value // op.DEN for value in row] for row in op.rot] for op in operations]
    shifts = [[value / op.DEN for value in op.tran] for op in operations]
    try:
        found = spglib.get_spacegroup_type_from_symmetry(rotations, shifts)
    except spglib.SpglibError as error:
        logger.debug("spglib: %s", error)
        return None
    return int(found.number) if found else None


def _prototype(letters: Mapping[tuple[str, str], int], group: int) -> str:
    """Stoichiometry, Pearson symbol, group and Wyckoff letters by element, as in the column prototype of the table.

    `letters`: atoms of the conventional cell by element and Wyckoff letter. Elements stand by growing count; of the two
    origins of a group, and of elements of equal count, that which comes first in the alphabet.
    """
    counts: dict[str, int] = {}
    for (element, _), number in letters.items():
        counts[element] = counts.get(element, 0) + number
    reduced = _reduced(counts)
    pairs = OTHER_ORIGIN[group]
    shifted = str.maketrans(pairs, "".join(pairs[i ^ 1] for i in range(len(pairs))))
    atoms_of = {position[-1]: multiplicity(position) for position in WYCKOFF[group]}
    ways = []
    for names in ({}, shifted):
        words = dict.fromkeys(counts, "")
        for (element, letter), number in sorted(letters.items(), key=lambda site: site[0][1].translate(names)):
            words[element] += _several(number // atoms_of[letter]) + letter.translate(names)
        ways.append("_".join(word for _, word in sorted((reduced[element], word) for element, word in words.items())))
    kinds = "".join(chr(ord("A") + i) + _several(number) for i, number in enumerate(sorted(reduced.values())))
    return f"{kinds}_c{SPACE_GROUPS[group][0]}{sum(counts.values())}_{group}_{min(ways)}"


def _several(number: int) -> str:
    return str(number) if number > 1 else ""


def _standard_cell(atoms: "Atoms", where: str) -> tuple["Atoms", int, dict[tuple[str, str], int]]:
    """The conventional cell in the standard setting, the space group number, and the number of atoms in that cell by
    element and Wyckoff letter; other groups give back `atoms` and no letters."""
    import spglib
    from ase import Atoms

    cell = (atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers)
    dataset = _dataset(spglib, cell, 0)
    if dataset is None:
        raise ValueError(f"{where}: no space group is found; check that no two atoms are at the same place")
    group = int(dataset.number)
    if group not in SPACE_GROUPS:
        return atoms, group, {}
    dataset = _dataset(spglib, cell, HALL_NUMBERS[group])
    edge = float(dataset.std_lattice[0, 0])
    standard = Atoms(dataset.std_types, scaled_positions=dataset.std_positions % 1.0, cell=[edge] * 3, pbc=True)
    here = Counter(zip(atoms.symbols, dataset.wyckoffs, strict=True))
    return standard, group, {site: number * len(standard) // len(atoms) for site, number in here.items()}


def _dataset(spglib: Any, cell: tuple, hall_number: int) -> Any:
    try:
        return spglib.get_symmetry_dataset(cell, symprec=SYMMETRY_TOLERANCE, hall_number=hall_number)
    except spglib.SpglibError as error:
        logger.debug("spglib: %s", error)
        return None


def _check_group(group: int, where: str) -> None:
    if group not in SPACE_GROUPS:
        listed = ", ".join(f"{number} ({symbol})" for number, symbol in SPACE_GROUPS.items())
        raise ValueError(f"{where}: has space group {group}; only {listed} are treated")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _cached(name: str, folder: Path | str) -> Path:
    if not re.fullmatch(r"mp-[A-Za-z0-9]+", name):
        raise ValueError(f"materials_project: {name!r} is not an id such as mp-149")
    return Path(folder) / f"{name}.cif"


def _client() -> Any:
    key = os.environ.get("MP_API_KEY", "").strip()
    if not key:
        raise ValueError(
            "materials_project needs your key: set the environment variable MP_API_KEY (it is shown on your page of "
            "the Materials Project), or leave materials_project empty"
        )
    try:
        from mp_api.client import MPRester
    except ImportError as error:
        raise ModuleNotFoundError(
            "materials_project needs the package mp-api: pip install mp-api, or leave materials_project empty"
        ) from error
    try:
        return MPRester(key)
    except (OSError, *_refusals()) as error:
        raise ConnectionError(
            f"the Materials Project cannot be reached ({type(error).__name__}: {error}); check the network and the key "
            "in MP_API_KEY, or leave materials_project empty"
        ) from error


def _refusals() -> tuple[type[Exception], ...]:
    try:
        from mp_api.client.core.exceptions import MPRestError
    except ImportError:
        return ()
    return (MPRestError,)


def _atoms_of_answer(structure: Any) -> "Atoms":
    """Atoms of a pymatgen structure, without importing pymatgen."""
    from ase import Atoms

    return Atoms(
        list(structure.atomic_numbers),
        scaled_positions=structure.frac_coords,
        cell=structure.lattice.matrix,
        pbc=True,
    )
