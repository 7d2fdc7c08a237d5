"""Coherent Sigma 3 twin boundaries, one in a finite bicrystal or several in a stack. Lengths in Å.

Frame: x along the twinning direction, y along the normal of the twin plane, z along their cross product (the direction
in which the article looks, up to its sign).
"""

import numpy as np
from ase import Atoms

from defraction.hosts import Host, oriented_cell

# Orthogonal lattice vectors along x, y, z in units of a, and the number of atomic planes per lattice vector along y.
# fcc: plane (111), direction [11-2], z [1-10]; bcc: plane (1-21), direction [111], z [10-1].
FRAMES = {
    "fcc": (np.array([[0.5, 0.5, -1.0], [1.0, 1.0, 1.0], [0.5, -0.5, 0.0]]), 3),
    "bcc": (np.array([[0.5, 0.5, 0.5], [1.0, -2.0, 1.0], [1.0, 0.0, -1.0]]), 6),
}


def build(host: Host, settings: dict) -> Atoms:
    """Bicrystal of `host`: the matrix below, its mirror image above, one atomic plane shared between them.

    `settings["size"]` is the extent [Å] along x, y and z, rounded to whole periods along x and z and to an odd number
    of atomic planes along y. The cell is one period in the plane times the whole stack, with one plane's distance left
    above and below: the uppermost plane is the image of the lowest one, and programs that know periodic cells only
    would else see the two face each other at the distance of neighbouring planes, far too close. Now one plane is
    missing there. `info["repeat"]` is [n_x, 1, n_z]. The reference cell, to which zone axes refer, is the conventional
    cube of the matrix. In fcc the boundary is the usual stacking ...ABCACBA... without further faults; in
    bcc it is the reflection boundary without the rigid shift along the twinning direction that some potentials prefer.

    `settings["thickness"]` [Å] makes a stack instead: matrix and twin alternate from the matrix at the bottom, each so
    thick, rounded to whole planes; their number is the one that comes nearest to the height. Every boundary is such
    a shared plane and mirror. `info["boundaries"]` then lists their y [Å].

    `settings["potential"]`, the name or file of an interatomic potential, relaxes the stack (`potentials.relax`, whose
    `fmax`, `rim` and `steps` are settings too). Without it nothing is relaxed.

    Raises ValueError for sizes that are missing, not positive, or too thin for a plane on either side of a boundary.
    """
    matrix, planes, lamella = _matrix(host, settings)
    spacing = matrix.cell[1, 1] / (planes + 1)
    if lamella is None:
        middle = matrix.cell[1, 1] / 2
        plane = np.round((matrix.positions[:, 1] - middle) / spacing).astype(int)
        mirrored = matrix[plane < 0]
        mirrored.positions[:, 1] = 2 * middle - mirrored.positions[:, 1]
        atoms = matrix[plane <= 0] + mirrored
        atoms.info = matrix.info
    else:
        atoms = _stack(host, matrix, planes, lamella)
    if settings.get("potential") is not None:
        from defraction.defects.potentials import find_potential, relax

        chosen = {key: settings[key] for key in ("fmax", "rim", "steps") if key in settings}
        atoms = relax(atoms, find_potential(settings["potential"], host), **chosen)
    return atoms


def build_control(host: Host, settings: dict) -> Atoms:
    """Single crystal of the matrix: same outline, cell, repeat, number of atoms and reference cell, no boundary."""
    return _matrix(host, settings)[0]


def _stack(host: Host, matrix: Atoms, planes: int, lamella: int) -> Atoms:
    """Planes of the matrix put in the order in which mirrors at every `lamella`-th plane would show them."""
    vectors, per_period = FRAMES[host.crystal_structure]
    cell = oriented_cell(host, vectors)
    spacing = matrix.cell[1, 1] / (planes + 1)
    members = [np.flatnonzero(np.round(cell.positions[:, 1] / spacing) == number) for number in range(per_period)]
    first = lamella - 1  # planes below the first boundary
    phase = (np.arange(planes) - first) % (2 * lamella)
    source = first - np.minimum(phase, 2 * lamella - phase)  # the distance to the next even mirror, in the first grain
    rows = [members[number % per_period] for number in source]
    atoms = cell[np.concatenate(rows)]
    atoms.positions[:, 1] = (np.repeat(np.arange(planes), [len(row) for row in rows]) + 1) * spacing
    atoms.set_cell(matrix.cell)
    atoms.pbc = matrix.pbc
    boundaries = (np.arange(first, planes - 1, lamella) + 1) * spacing
    atoms.info = {**matrix.info, "boundaries": boundaries.tolist()}
    return atoms


def _matrix(host: Host, settings: dict) -> tuple[Atoms, int, int | None]:
    """Single crystal of all planes, the number of these, and how many lie from boundary to boundary of a stack."""
    if host.crystal_structure not in FRAMES:
        raise ValueError(f"twins are known for {' and '.join(FRAMES)} hosts, not {host.crystal_structure}")
    size = settings.get("size")
    if size is None or len(size) != 3 or not min(size) > 0:
        raise ValueError(f"a twin needs the setting size: three positive lengths [Å], not {size}")
    vectors, per_period = FRAMES[host.crystal_structure]
    cell = oriented_cell(host, vectors)
    lengths = cell.cell.lengths()
    spacing = lengths[1] / per_period
    thickness, lamella = settings.get("thickness"), None
    if thickness is None:
        planes = 2 * round((size[1] / spacing - 1) / 2) + 1
        if planes < 3:
            raise ValueError(f"a twin {size[1]} Å high has no plane beside the boundary; give {3 * spacing:.1f} Å")
    else:
        lamella = round(thickness / spacing)
        if lamella < 2:
            raise ValueError(
                f"twin lamellae {thickness} Å thick have no plane between boundaries; give {2 * spacing:.1f} Å or more"
            )
        planes = lamella * max(2, round((size[1] / spacing + 1) / lamella)) - 1
    atoms = cell.repeat((1, -(-planes // per_period), 1))
    plane = np.round(atoms.positions[:, 1] / spacing).astype(int)
    atoms = atoms[plane < planes]
    atoms.positions[:, 1] += spacing
    atoms.set_cell(np.diag([lengths[0], (planes + 1) * spacing, lengths[2]]))
    atoms.pbc = [True, False, True]
    repeat = [max(1, round(size[0] / lengths[0])), 1, max(1, round(size[2] / lengths[2]))]
    atoms.info = {"reference_cell": cell.info["reference_cell"], "repeat": repeat}
    return atoms, planes, lamella
