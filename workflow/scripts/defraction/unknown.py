"""Patterns that no network here is trained on: other crystals, other zone axes, crystals off their zone axis.

They are the unknown side of the open-set score (`learning/openset.py`); the table of crystals is
resources/unknown_crystals.csv.
"""

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import netCDF4
import numpy as np

from defraction.dataset import members, read_split

if TYPE_CHECKING:
    from ase import Atoms

log = logging.getLogger(__name__)

COLUMNS = (
    "material", "name", "family", "space_group", "setting", "a", "b", "c", "alpha", "beta", "gamma", "sites",
    "reference",
)  # fmt: skip
FAMILIES = ("other_system", "other_extinctions", "same_extinctions")
"""Crystals that are not cubic; cubic ones with other systematic absences than the five groups; with the same."""
OTHER_AXES = ((1, 1, 5), (0, 3, 4), (1, 3, 4), (2, 2, 5), (3, 3, 4), (1, 2, 5))
PATTERNS = 32  # of each crystal
HELD_OUT = 12  # held-out crystals that are seen along other axes and tilted
TILTS = (10.0, 30.0, 100.0)  # mrad
MERGE = 0.1  # Å within which images of a site are one atom


def read_table(path: Path | str) -> list[dict[str, str]]:
    """Rows of a table of crystals outside of the label table (`COLUMNS`); raises ValueError naming file and line."""
    with Path(path).open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path}: columns {reader.fieldnames}, expected {list(COLUMNS)}")
        rows = []
        for row in reader:
            if row["family"] not in FAMILIES:
                raise ValueError(f"{path}, line {reader.line_num}: family {row['family']!r} is not one of {FAMILIES}")
            rows.append(row)
    return rows


def unknown_crystal(row: Mapping[str, str]) -> "Atoms":
    """The conventional cell of a row of `read_table` as `ase.Atoms`; raises ValueError for a setting not known."""
    import gemmi
    from ase import Atoms

    from defraction.orientation import standard_orientation

    group = gemmi.find_spacegroup_by_name(row["setting"])
    if group is None or group.number != int(row["space_group"]):
        raise ValueError(f"{row['material']}: no setting {row['setting']!r} of space group {row['space_group']}")
    cell = gemmi.UnitCell(*(float(row[key]) for key in ("a", "b", "c", "alpha", "beta", "gamma")))
    symbols, places = [], []
    for site in row["sites"].split(";"):
        element, _, text = site.partition(":")
        start = [float(value) for value in text.split(",")]
        first = len(places)
        for operation in group.operations():
            place = np.mod(operation.apply_to_xyz(start), 1.0)
            new = gemmi.Fractional(*place)
            if all(cell.find_nearest_image(cell.orthogonalize(new), cell.orthogonalize(gemmi.Fractional(*other))).dist()
                   > MERGE for other in places[first:]):  # fmt: skip
                places.append(place)
                symbols.append(element)
    lengths = [float(row[key]) for key in ("a", "b", "c", "alpha", "beta", "gamma")]
    atoms = standard_orientation(Atoms(symbols, scaled_positions=places, cell=lengths, pbc=True))
    atoms.info["reference_cell"] = atoms.cell.tolist()
    return atoms


def other_axes(zone_axes: Sequence[Sequence[int]]) -> list[list[int]]:
    """Axes without a label: those of `OTHER_AXES` that are not, up to signs and order, among the zone axes.

    Raises ValueError if none is left.
    """
    labelled = {tuple(sorted(map(abs, axis))) for axis in zone_axes}
    found = [list(axis) for axis in OTHER_AXES if tuple(sorted(axis)) not in labelled]
    if not found:
        raise ValueError("diffraction.zone_axes: all axes that are to be unknown are among them; leave one out")
    return found


def simulate_unknown(
    table: Path | str,
    structures: Mapping[str, Path | str],
    split: Path | str,
    output: Path | str,
    settings: Mapping[str, Any],
    repeat: Sequence[int],
    seed: int,
    device: str = "auto",
    memory: float = 2.0,
    patterns: int = PATTERNS,
) -> None:
    """Simulate every family into one netCDF file, `intensity (pattern, y, x)`, which `openset.read_unknown` reads.

    Args:
        table: crystals (`read_table`), a family each. structures: file by material id of the crystals of the label
            table. split: the split table of a model, of whose held-out crystals some (`HELD_OUT`, evenly over the
            table) make the families `other_axes` and `tilted_{t}_mrad`: seen along axes without a label, or tilted by
            t about an axis in the plane of the pattern drawn at random. A crystal of the training would look better
            known than it is. (Of a split by image, every crystal has patterns in training.)
        settings: section `diffraction` of the patterns that the network is trained on. repeat: cells along a, b, c.
        patterns: of each crystal: all zone axes, with as many voltages and camera lengths, drawn at random, as needed.

    Raises ValueError for a row that cannot be built, or a split without held-out crystals.
    """
    from defraction.diffraction.patterns import simulate
    from defraction.structures import read_structures

    base = {**settings, "debye_waller": {}, "average_snapshots": False}
    work = [(row["family"], row["material"], unknown_crystal(row), base, repeat) for row in read_table(table)]
    held_out = members(read_split(split), "held_out")
    if not held_out:
        raise ValueError(f"{split}: no held-out crystals to tilt; hold some out of the training")
    places = np.linspace(0, len(held_out) - 1, min(HELD_OUT, len(held_out))).round().astype(int)
    names = [held_out[place].material for place in places]
    known = [(name, read_structures(structures[name])[0]) for name in names]
    others = other_axes(settings["zone_axes"])
    for name, atoms in known:
        away = {**base, "zone_axes": others}
        work.append(("other_axes", name, atoms, away, None))
    for tilt in TILTS:
        for number, (name, atoms) in enumerate(known):
            turned = np.random.default_rng([seed, round(tilt), number]).uniform(0, 2 * np.pi)
            away = {**base, "tilt": [tilt * np.cos(turned), tilt * np.sin(turned)]}
            work.append((f"tilted_{tilt:g}_mrad", name, atoms, away, None))

    images, families, crystals = [], [], []
    for number, (family, name, atoms, wanted, cells) in enumerate(work):
        rng = np.random.default_rng([seed, number])
        beams = -(-patterns // len(wanted["zone_axes"]))
        lengths = rng.permutation(wanted["camera_lengths"])[:beams]
        voltages = rng.permutation(wanted["voltages"])[: -(-beams // len(lengths))]
        chosen = {**wanted, "camera_lengths": lengths.tolist(), "voltages": voltages.tolist()}
        data = simulate(atoms, chosen, device, memory, **({} if cells is None else {"repeat": tuple(cells)}))
        flat = data["intensity"].values.reshape(-1, *data["intensity"].shape[-2:])
        keep = np.sort(rng.permutation(len(flat))[:patterns])
        images.append(flat[keep])
        families += [family] * len(keep)
        crystals += [name] * len(keep)
    with netCDF4.Dataset(output, "w") as file:
        file.title = "patterns unlike those of training"
        file.settings = json.dumps(base, sort_keys=True)
        for name, size in (("pattern", len(families)), ("y", flat.shape[1]), ("x", flat.shape[2])):
            file.createDimension(name, size)
        for name, values in (("family", families), ("crystal", crystals)):
            file.createVariable(name, str, ("pattern",))[:] = np.array(values, dtype=object)
        for name in ("y", "x"):
            axis = file.createVariable(name, "f8", (name,))
            axis[:] = data[name].values
            axis.units = "mm"
        stored = file.createVariable(
            "intensity", "f4", ("pattern", "y", "x"), compression="zlib", complevel=1, chunksizes=(1, *flat.shape[1:])
        )
        stored[:] = np.concatenate(images)
        stored.long_name, stored.units = "fraction of the incident electrons", "1"
