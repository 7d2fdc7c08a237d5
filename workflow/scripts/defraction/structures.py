"""Crystal structures in and out of files: P1 CIF and extended XYZ that describe the same Cartesian frame.

Lengths are in Å. Cells are conventional cells in the standard orientation of docs/conventions.md and are never reduced.
"""

import json
import logging
import re
from pathlib import Path

import gemmi
import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.data import chemical_symbols

from defraction.orientation import check_standard_orientation

logger = logging.getLogger(__name__)

MERGE_DISTANCE = 0.1  # Å within which symmetry images of one site are one atom on a special position
CLASH_DISTANCE = 0.3  # Å; no two atoms of a real crystal are so close
# pymatgen takes positive coordinates within 1e-4 of these, relative to them, for rounded ones and replaces them.
ROUNDED_BY_OTHERS = (1 / 3, 2 / 3)
ROUNDING_OF_OTHERS = 1.1e-4
HARMLESS = 1e-6  # Å

_CELL_TAGS = [
    f"_cell_{name}" for name in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
]
_FRACTION_TAGS = ["_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z"]
_OPERATION_TAGS = ["_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz"]
_HALL_TAGS = ["_space_group_name_Hall", "_symmetry_space_group_name_Hall"]
_HERMANN_MAUGUIN_TAGS = ["_space_group_name_H-M_alt", "_symmetry_space_group_name_H-M"]
_NUMBER_TAGS = ["_space_group_IT_number", "_symmetry_Int_Tables_number"]


BUILT = (
    "deformation", "defects", "displacement", "burgers_vector", "dislocations", "mismatch", "boundaries", "relaxation",
)  # fmt: skip
"""What the builders say of a structure in `info`; it joins the metadata."""
SNAPSHOT = ("flight", "step", "time", "temperature")
"""What molecular dynamics says of a snapshot in `info` (time in fs, temperature in K); it joins the metadata too."""


def write_structures(
    images: list[Atoms], cif: Path | str, extxyz: Path | str | None = None, metadata: dict | None = None
) -> None:
    """Write `images` as one P1 CIF with a data block each, and as extended XYZ with a frame each.

    Both files hold the same Cartesian frame to 1e-8 Å. `info["reference_cell"]` (3x3, Å; default: the cell) and
    `info["repeat"]` (default: 1, 1, 1) become CIF items and XYZ keys, as do the periodic directions. `metadata` (plain
    values) goes into every block as `_defraction_origin` and into every frame as `origin`; without it, `info["origin"]`
    of each image is kept. What `info` holds of `BUILT` joins it, and what it holds of `SNAPSHOT` under `snapshot`.
    Everything else in `info` goes into the XYZ file only. Positions are not wrapped; where pymatgen would move atoms to
    1/3 or 2/3, the CIF holds all atoms moved by whole cells to negative coordinates along that axis, and
    `_defraction_moved` by how many: `read_structures` moves them back.

    Raises ValueError for no images, non-finite numbers, or a cell that is not in standard orientation.
    """
    if not images:
        raise ValueError(f"{cif}: there are no structures to write")
    document = gemmi.cif.Document()
    frames = []
    for number, atoms in enumerate(images, start=1):
        if len(atoms) == 0:
            raise ValueError(f"{cif}: structure {number} holds no atoms")
        if not (np.isfinite(atoms.positions).all() and np.isfinite(np.asarray(atoms.cell)).all()):
            raise ValueError(
                f"{cif}: structure {number} ({_describe(atoms)}) has positions or cell vectors that are not finite"
            )
        check_standard_orientation(atoms)
        facts = _facts(atoms, metadata)
        suffix = f"_{number}" if len(images) > 1 else ""
        block = document.add_new_block(f"{atoms.get_chemical_formula('hill')[:60]}{suffix}")
        _fill_block(block, atoms, facts)
        frames.append(_frame(atoms, facts))
    document.write_file(str(cif))
    if extxyz is not None:
        from ase.io import write  # takes longer to import than all the rest of this module

        write(extxyz, frames, format="extxyz")


def read_structures(path: Path | str) -> list[Atoms]:
    """Read every structure of a file, in the cell in which it is written.

    CIF files are expanded to all atoms of the written cell by their symmetry operations (images of a site that fall
    together on a special position are one atom, put exactly there) and come in the standard orientation. Any other
    format is read by ASE. `info["reference_cell"]` (3x3, Å) and `info["repeat"]` are restored; a file without them gets
    the cell and [1, 1, 1]. `info["origin"]` is the metadata given to `write_structures`, if any.

    Raises FileNotFoundError, or ValueError that names the file, the fault and the mend.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such structure file")
    images = _read_cif(path) if path.suffix.lower() == ".cif" else _read_with_ase(path)
    for atoms in images:
        info = atoms.info
        info["reference_cell"] = (
            np.reshape(info.get("reference_cell", np.asarray(atoms.cell)), (3, 3)).astype(float).tolist()
        )
        info["repeat"] = [int(n) for n in np.ravel(info.get("repeat", [1, 1, 1]))]
    return images


def _describe(atoms: Atoms) -> str:
    return f"structure {atoms.get_chemical_formula('hill')}"


def _facts(atoms: Atoms, metadata: dict | None) -> dict:
    reference_cell = np.asarray(atoms.info.get("reference_cell", np.asarray(atoms.cell)), float)
    repeat = [int(n) for n in atoms.info.get("repeat", [1, 1, 1])]
    if reference_cell.shape != (3, 3) or len(repeat) != 3 or min(repeat) < 1:
        raise ValueError(
            f"{_describe(atoms)}: info['reference_cell'] must be 3x3 and info['repeat'] three positive whole numbers, "
            f"not {reference_cell.tolist()} and {repeat}"
        )
    origin = metadata if metadata is not None else atoms.info.get("origin")
    built = {key: _plain(atoms.info[key]) for key in BUILT if key in atoms.info}
    if snapshot := {key: _plain(atoms.info[key]) for key in SNAPSHOT if key in atoms.info}:
        built["snapshot"] = snapshot
    if built:
        origin = {**(origin or {}), **built}
    return {"reference_cell": reference_cell, "repeat": repeat, "origin": origin}


def _plain(value):
    """Numbers and lists as Python's own: ASE's readers give NumPy's."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _decimals(values: np.ndarray) -> list[str]:
    return [f"{value:.10f}" for value in (np.round(values, 10) + 0.0).tolist()]


def _fill_block(block: gemmi.cif.Block, atoms: Atoms, facts: dict) -> None:
    for tag, value in zip(_CELL_TAGS, _decimals(atoms.cell.cellpar()), strict=True):
        block.set_pair(tag, value)
    block.set_pair("_space_group_name_H-M_alt", "'P 1'")
    block.set_pair("_space_group_IT_number", "1")
    block.set_pair("_defraction_reference_cell", "'" + " ".join(_decimals(facts["reference_cell"].ravel())) + "'")
    block.set_pair("_defraction_repeat", "'" + " ".join(map(str, facts["repeat"])) + "'")
    block.set_pair("_defraction_periodic", "'" + " ".join(str(int(p)) for p in atoms.pbc) + "'")
    if facts["origin"] is not None:
        block.set_pair("_defraction_origin", gemmi.cif.quote(json.dumps(facts["origin"], sort_keys=True)))
    block.init_loop("_space_group_symop_", ["operation_xyz"]).add_row(["'x, y, z'"])
    fractions = atoms.cell.scaled_positions(atoms.positions)
    if (moved := _moved(fractions, atoms.cell.lengths())).any():
        block.set_pair("_defraction_moved", "'" + " ".join(map(str, moved.tolist())) + "'")
        fractions = fractions + moved
    symbols = atoms.get_chemical_symbols()
    labels = [f"{symbol}{i}" for i, symbol in enumerate(symbols, start=1)]
    columns = [labels, symbols, *(_decimals(fractions[:, i]) for i in range(3)), ["1"] * len(atoms)]
    loop = block.init_loop("_atom_site_", ["label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy"])
    loop.set_all_values(columns)


def _moved(fractions: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """By how many cells along each axis atoms must move so that no reader takes a coordinate for a rounded third."""
    moved = np.zeros(3, int)
    for axis in range(3):
        along = fractions[:, axis]
        for third in ROUNDED_BY_OTHERS:
            off = np.abs(along - third)
            if ((off < ROUNDING_OF_OTHERS * third) & (off * lengths[axis] > HARMLESS)).any():
                moved[axis] = -int(np.floor(along.max())) - 1
    return moved


def _frame(atoms: Atoms, facts: dict) -> Atoms:
    frame = Atoms(atoms.numbers, positions=atoms.positions, cell=np.tril(atoms.cell), pbc=atoms.pbc)
    if atoms.has("initial_magmoms"):
        frame.set_initial_magnetic_moments(atoms.get_initial_magnetic_moments())
    frame.info = {key: value for key, value in atoms.info.items() if key not in facts}
    frame.info["reference_cell"] = facts["reference_cell"].tolist()
    frame.info["repeat"] = np.array(facts["repeat"])
    if facts["origin"] is not None:
        # ASE undoes one level of backslashes on reading but does not add it on writing.
        frame.info["origin"] = "_JSON " + json.dumps(facts["origin"], sort_keys=True).replace("\\", "\\\\")
    return frame


def _read_with_ase(path: Path) -> list[Atoms]:
    from ase.io import read

    try:
        images = read(path, index=":")
    except Exception as error:  # ASE's many readers each raise their own kinds
        raise ValueError(
            f"{path}: cannot be read as a structure ({type(error).__name__}: {error}); check the format"
        ) from error
    if not images:
        raise ValueError(f"{path}: holds no structures")
    return images


def _read_cif(path: Path) -> list[Atoms]:
    try:
        document = gemmi.cif.read(str(path))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: is not a valid CIF file ({error}); mend or export it again") from error
    images = []
    for block in document:
        if not block.find_values(_FRACTION_TAGS[0]):
            continue
        try:
            images.append(_atoms_of_block(block))
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{path}, data block {block.name!r}: {error}") from error
    if not images:
        raise ValueError(f"{path}: no data block lists atoms by fractional coordinates ({', '.join(_FRACTION_TAGS)})")
    return images


def _atoms_of_block(block: gemmi.cif.Block) -> Atoms:
    parameters = [gemmi.cif.as_number(block.find_value(tag) or "?") for tag in _CELL_TAGS]
    for tag, value in zip(_CELL_TAGS, parameters, strict=True):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{tag} is missing or not a positive number")
    cell = Cell.fromcellpar(parameters)
    if not cell.volume > 0:
        raise ValueError(f"the cell {parameters} has no volume; check the angles")
    numbers, fractions, labels = _listed_sites(block)
    operations = _operations(block, parameters)
    written_here = block.find_value("_defraction_repeat") is not None
    if len(operations) > 1:
        numbers, fractions, labels = _expand(numbers, fractions, labels, operations, np.asarray(cell))
    if (text := block.find_value("_defraction_moved")) is not None:
        fractions = fractions - [int(word) for word in gemmi.cif.as_string(text).split()]
    if not written_here:  # our own finite specimens may hold atoms near each other across the outline
        numbers, fractions = _merge(numbers, fractions, labels, np.asarray(cell))
    atoms = Atoms(numbers, scaled_positions=fractions, cell=cell, pbc=True)
    for tag, key, kind in (("reference_cell", "reference_cell", float), ("repeat", "repeat", int)):
        if (text := block.find_value(f"_defraction_{tag}")) is not None:
            values = [kind(word) for word in gemmi.cif.as_string(text).split()]
            if len(values) != (9 if key == "reference_cell" else 3):
                raise ValueError(f"_defraction_{tag} holds {len(values)} numbers")
            atoms.info[key] = values
    if (text := block.find_value("_defraction_periodic")) is not None:
        atoms.pbc = [word == "1" for word in gemmi.cif.as_string(text).split()]
    if (text := block.find_value("_defraction_origin")) is not None:
        atoms.info["origin"] = json.loads(gemmi.cif.as_string(text))
    return atoms


def _listed_sites(block: gemmi.cif.Block) -> tuple[np.ndarray, np.ndarray, list[str]]:
    columns = [block.find_values(tag) for tag in _FRACTION_TAGS]
    if not all(columns):
        raise ValueError(f"the atoms lack one of {', '.join(_FRACTION_TAGS)}")
    fractions = np.array([[gemmi.cif.as_number(text) for text in column] for column in columns]).T
    types, labels = (list(block.find_values(f"_atom_site_{name}")) for name in ("type_symbol", "label"))
    if not types and not labels:
        raise ValueError("the atoms have neither _atom_site_type_symbol nor _atom_site_label")
    names = labels or [f"{symbol} (atom {i})" for i, symbol in enumerate(types, start=1)]
    if (bad := ~np.isfinite(fractions).all(axis=1)).any():
        raise ValueError(f"the coordinates of site {names[int(np.argmax(bad))]} are not numbers")
    known = {}
    symbols = [gemmi.cif.as_string(text) for text in types or labels]
    for symbol in set(symbols):
        known[symbol] = _atomic_number(symbol)
    for text, name in zip(block.find_values("_atom_site_occupancy"), names, strict=False):
        occupancy = 1.0 if text in ("?", ".") else gemmi.cif.as_number(text)
        if not occupancy > 0.999:
            raise ValueError(f"site {name} is occupied to {occupancy:g} only; an ordered model is needed")
    return np.array([known[symbol] for symbol in symbols]), fractions, names


def _atomic_number(symbol: str) -> int:
    letters = re.match("[A-Za-z]*", symbol).group()
    for length in (2, 1):
        number = gemmi.Element(letters[:length]).atomic_number if len(letters) >= length else 0
        if 0 < number < len(chemical_symbols):
            return number
    raise ValueError(f"{symbol!r} is not a chemical element")


def _first_value(block: gemmi.cif.Block, tags: list[str]) -> str | None:
    for tag in tags:
        text = block.find_value(tag)
        if text is not None and (value := gemmi.cif.as_string(text).strip()) not in ("", "?", "."):
            return value
    return None


def _operations(block: gemmi.cif.Block, parameters: list[float]) -> list[gemmi.Op]:
    for tag in _OPERATION_TAGS:
        if texts := block.find_values(tag):
            return [gemmi.Op(gemmi.cif.as_string(text)) for text in texts]
    if (hall := _first_value(block, _HALL_TAGS)) is not None:
        return list(gemmi.symops_from_hall(hall))
    name, number = _first_value(block, _HERMANN_MAUGUIN_TAGS), _first_value(block, _NUMBER_TAGS)
    if name is None and number is None:
        logger.warning("data block %r names no symmetry: its list of atoms is taken as complete (P1)", block.name)
        return [gemmi.Op("x,y,z")]
    if name is not None:
        group = gemmi.find_spacegroup_by_name(name, parameters[3], parameters[5])
    else:
        group = gemmi.find_spacegroup_by_number(int(number))
        if group is not None:  # by its name, because that tells hexagonal from rhombohedral axes
            group = gemmi.find_spacegroup_by_name(group.hm, parameters[3], parameters[5])
    if group is None:
        raise ValueError(
            f"the space group {name or number!r} is not known; list its operations in {_OPERATION_TAGS[0]}"
        )
    if group.ext in ("1", "2") and not (name or "").replace(" ", "").endswith(f":{group.ext}"):
        raise ValueError(
            f"space group {group.hm} has two origins and the file does not say which; add ':1' or ':2' to "
            f"{_HERMANN_MAUGUIN_TAGS[0]}, or list the operations in {_OPERATION_TAGS[0]}"
        )
    return list(group.operations())


def _expand(
    numbers: np.ndarray, fractions: np.ndarray, labels: list[str], operations: list[gemmi.Op], cell: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    matrices = np.array([operation.float_seitz() for operation in operations])
    sites, counts = [], []
    for fraction, label in zip(fractions, labels, strict=True):
        images = matrices[:, :3, :3] @ fraction + matrices[:, :3, 3]
        shifts = images[:, None] - images[None]
        shifts -= np.round(shifts)
        near = np.linalg.norm(shifts @ cell, axis=-1) < MERGE_DISTANCE
        leaders = np.unique(near.argmax(axis=1))
        if len({int(near[leader].sum()) for leader in leaders}) > 1:
            raise ValueError(
                f"site {label} lies near a special position but not on it; give its coordinates with more digits"
            )
        centres = np.array([(images[leader] + shifts[near[leader], leader]).mean(axis=0) for leader in leaders])
        centres = np.round(centres, 12) % 1.0
        sites.append(centres)
        counts.append(len(centres))
    return (
        np.repeat(numbers, counts),
        np.concatenate(sites),
        [x for x, n in zip(labels, counts, strict=True) for _ in range(n)],
    )


def _merge(
    numbers: np.ndarray, fractions: np.ndarray, labels: list[str], cell: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Drop atoms that a file lists twice; refuse different elements, or atoms 0.1 to 0.3 Å apart."""
    from scipy.spatial import cKDTree

    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    radius = min(np.sqrt(3) * CLASH_DISTANCE / heights.min(), 0.49)
    pairs = cKDTree(np.mod(fractions, 1.0) % 1.0, boxsize=1.0).query_pairs(radius, output_type="ndarray")
    shifts = fractions[pairs[:, 0]] - fractions[pairs[:, 1]]
    distances = np.linalg.norm((shifts - np.round(shifts)) @ cell, axis=1)
    keep = np.ones(len(numbers), bool)
    for (i, j), distance in zip(pairs, distances, strict=True):
        if distance >= CLASH_DISTANCE:
            continue
        if numbers[i] != numbers[j] or distance >= MERGE_DISTANCE:
            raise ValueError(
                f"sites {labels[i]} and {labels[j]} are {distance:.2f} Å apart; check the coordinates and the symmetry"
            )
        keep[max(i, j)] = False
    return numbers[keep], fractions[keep]
