"""Rows of equal edge dislocations on one slip plane of a finite block, by anisotropic elasticity or by half planes.

Frame: x along the Burgers vector b, y along the normal of the slip plane, z along the line. The line runs along +z and
the Burgers vector is that of the finish-to-start, right-hand rule (J. P. Hirth and J. Lothe, Theory of Dislocations,
2nd ed., 1982): with b along +x the extra half planes stand above the slip plane (y > 0). Lengths in Å, stiffness in
GPa.
"""

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from defraction.defects.strain import cubic_stiffness
from defraction.hosts import Host, oriented_cell

# Orthogonal lattice vectors along x, y, z in units of a. The first is the Burgers vector.
# fcc: b = 1/2 [-110], plane (111), line [11-2]; bcc: b = 1/2 [111], plane (1-10), line [11-2].
FRAMES = {
    "fcc": np.array([[-0.5, 0.5, 0.0], [1.0, 1.0, 1.0], [0.5, 0.5, -1.0]]),
    "bcc": np.array([[0.5, 0.5, 0.5], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]),
}
PLANES = {"fcc": (2, 3), "bcc": (3, 2)}  # atomic planes per lattice vector along x and y
METHODS = ("elastic", "half-planes")
CLOSEST = 0.75  # shortest allowed distance in units of the nearest-neighbour distance


def build(host: Host, settings: dict) -> Atoms:
    """Block of `host` with `count` edge dislocations of equal sign on the slip plane at half its height.

    `settings`: `count`, `spacing` [Å] between neighbours (rounded to a multiple of b/2 in fcc, b/3 in bcc, so that
    all cores are alike), `size` [width, height] of the cross-section along x and y [Å] (rounded to whole lattice
    periods), `line_repeat` periods along the line, and `method`:

    * "elastic" (default): every atom of a larger crystal is displaced by the sum of the anisotropic fields of single
      straight dislocations in an infinite medium (`row_displacement`), then the rectangle is cut out of it. The slip
      plane lies midway between two atomic planes, and the displacement jumps by b across it on one side of each core:
      a lattice vector, so the atomic planes match there and no atom has to be put in or taken out.
    * "half-planes": above the slip plane each dislocation gets one more lattice period b than below, and the planes
      there are compressed linearly over the width count * spacing; below, the crystal stays perfect.

    The cell is the cross-section times one period along the line, `info["repeat"]` is [1, 1, line_repeat], and the
    block is periodic along z only. Zone axes refer to the undistorted host (`info["reference_cell"]`).
    `info["dislocations"]` lists the (x, y) of the lines [Å], `info["burgers_vector"]` the vector of each [Å].
    The free surfaces relax nothing (no image forces), cores are neither relaxed nor dissociated.

    Raises ValueError for settings that are missing or impossible, and if the cores of the host bring atoms closer than
    0.75 nearest-neighbour distances.
    """
    count, spacing, counts, cell = _geometry(host, settings)
    method = settings.get("method", "elastic")
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r} for dislocations; choose one of {', '.join(METHODS)}")
    outline = np.array(counts) * cell.cell.lengths()
    b = cell.cell.lengths()[0]
    planes_x, planes_y = PLANES[host.crystal_structure]
    # In fcc every core then has the mirror plane normal to b; in bcc there is none.
    slip_plane = outline[1] * (counts[1] * planes_y // 2) / (counts[1] * planes_y)
    step = b / planes_x
    first = step * round((outline[0] - (count - 1) * spacing) / 2 / step)
    lines = first + spacing * np.arange(count)

    margin = np.append(np.ceil((count * b + 15.0) / cell.cell.lengths()[:2]).astype(int), 0)
    atoms = cell.repeat(np.append(counts[:2], 1) + 2 * margin)
    atoms.positions -= margin * cell.cell.lengths()
    relative = atoms.positions[:, :2] - [0.0, slip_plane]
    if method == "elastic":
        stiffness = rotate_stiffness(cubic_stiffness(host.c11, host.c12, host.c44), FRAMES[host.crystal_structure])
        atoms.positions += row_displacement(relative, lines, b, stiffness)
    else:
        # Above the slip plane count * (spacing + b) of crystal is squeezed into count * spacing. Outside of it the
        # two halves must match, so the shifts to the left and right are whole Burgers vectors.
        shift = (count + 1) // 2 * b
        start = lines[0] - spacing / 2 - shift
        inside = np.clip(relative[:, 0] - start, 0.0, count * (spacing + b))
        above = relative[:, 1] > 0
        atoms.positions[above, 0] += (shift - inside * b / (spacing + b))[above]

    atoms = _cut(atoms, outline, host)
    atoms.info = {
        "reference_cell": cell.info["reference_cell"],
        "repeat": [1, 1, int(settings["line_repeat"])],
        "burgers_vector": [float(b), 0.0, 0.0],
        "dislocations": [[float(line), float(slip_plane)] for line in lines],
    }
    return atoms


def build_control(host: Host, settings: dict) -> Atoms:
    """The same block without dislocations: same outline, orientation, lattice, cell and repeat.

    It holds close to, not exactly, as many atoms: the dislocated lattice is cut to the same outline, and the number of
    half planes differs above and below the slip plane.
    """
    _, _, counts, cell = _geometry(host, settings)
    atoms = cell.repeat((counts[0], counts[1], 1))
    atoms.pbc = [False, False, True]
    atoms.info = {"reference_cell": cell.info["reference_cell"], "repeat": [1, 1, int(settings["line_repeat"])]}
    return atoms


def rotate_stiffness(stiffness: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Stiffness tensor (3, 3, 3, 3) [GPa] in the frame of `axes` (perpendicular rows) from Voigt (6, 6)."""
    voigt = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    tensor = np.asarray(stiffness)[voigt[:, :, None, None], voigt[None, None]]
    rotation = axes / np.linalg.norm(axes, axis=1)[:, None]
    return np.einsum("ia,jb,kc,ld,abcd->ijkl", rotation, rotation, rotation, rotation, tensor, optimize=True)


def edge_displacement(points: np.ndarray, burgers: np.ndarray, stiffness: np.ndarray) -> np.ndarray:
    """Displacement (n, 3) [Å] at `points` (n, 2) [Å] around a straight dislocation along z through the origin.

    Stroh's sextic solution for an infinite anisotropic medium with `stiffness` (3, 3, 3, 3) (A. N. Stroh, Philos. Mag.
    3, 625 (1958), 10.1080/14786435808565804; notation of Hirth and Lothe, chapter 13): with Im p > 0 and 2 a.l = 1,
    u = Re[ sum over three roots of a (l.b) ln(x + p y) / (pi i) ]. The jump by b lies on y = 0, x < 0. Near isotropy,
    where roots merge and their vectors become dependent, the stiffness is changed by 1 in 10^4 to keep them apart.
    """
    roots, a, stress = _stroh_roots(stiffness)
    if np.abs(np.subtract.outer(roots, roots))[np.triu_indices(3, 1)].min() < 1e-3:
        separated = stiffness.copy()
        for i in range(3):
            separated[i, i, i, i] *= 1 + 1e-4
        roots, a, stress = _stroh_roots(separated)
    weight = (stress.T @ np.asarray(burgers, float)) / (2 * np.einsum("ik,ik->k", a, stress))
    x, y = np.asarray(points, float).T
    logarithms = np.log(x[:, None] + roots[None] * y[:, None])
    return (logarithms @ (a * weight).T / (1j * np.pi)).real


def row_displacement(points: np.ndarray, lines: np.ndarray, b: float, stiffness: np.ndarray) -> np.ndarray:
    """Displacement (n, 3) [Å] of lattice points (n, 2) [Å] by edge dislocations at x = `lines` [Å], y = 0, b along x.

    The field at an atom is that at its displaced x: the halves of the crystal shift against each other by whole Burgers
    vectors, and only so do the fields above and below the slip plane meet at one and the same line. The rigid shift
    is such that the atoms next to the lines keep their height on average.
    """
    x = points[:, 0]
    for _ in range(200):
        relative = [np.column_stack([x - line, points[:, 1]]) for line in lines]
        displacement = sum(edge_displacement(place, [b, 0.0, 0.0], stiffness) for place in relative)
        change = points[:, 0] + displacement[:, 0] - x
        x = x + change
        if np.abs(change).max() < 1e-8:
            break
    else:
        raise ValueError("the displacements around the dislocations do not settle; the cores are too near each other")
    near = np.min([np.linalg.norm(place, axis=1) for place in relative], axis=0) < 1.5 * b
    displacement[:, 1] -= displacement[near, 1].mean()
    return displacement


def burgers_vector(atoms: Atoms, box: tuple[float, float, float, float]) -> np.ndarray:
    """Burgers vector (3,) [Å] inside the rectangle `box` = (x0, x1, y0, y1) [Å], from the atoms alone.

    A right-handed circuit about +z steps from neighbour to neighbour along the sides of the box, and each step is
    booked as the lattice vector of the perfect crystal (`info["reference_cell"]`) that it resembles. The steps close;
    what the lattice vectors lack to close is the Burgers vector, finish to start. `atoms` is a block built here:
    periodic along z only, fcc or bcc.

    Raises ValueError where a step resembles no lattice vector: the circuit then runs through a core.
    """
    cube = np.array(atoms.info["reference_cell"])
    a = np.linalg.norm(cube[0])
    period = atoms.cell[2, 2]
    structure = "fcc" if round(len(atoms) / atoms.cell.volume * a**3) == 4 else "bcc"
    # First neighbours; in bcc the second ones too, which are hardly farther.
    corners = np.array(list(np.ndindex(5, 5, 5))) / 2 - 1
    kind = np.abs(corners).sum(axis=1), np.abs(corners).max(axis=1)
    wanted = (kind[0] == 1) & (kind[1] == 0.5) if structure == "fcc" else (corners != 0).all(axis=1) & (kind[1] == 0.5)
    if structure == "bcc":
        wanted |= (kind[0] == 1) & (kind[1] == 1)
    bonds = corners[wanted] @ cube
    reach = 1.2 * np.linalg.norm(bonds, axis=1).max()
    images = np.concatenate([atoms.positions + np.array([0.0, 0.0, k * period]) for k in (-1, 0, 1)])
    tree = cKDTree(images)

    def walk(start: int, target: np.ndarray) -> tuple[int, np.ndarray]:
        """Step towards `target` (2 or 3 coordinates) as long as that brings it nearer; the misclosure on the way."""
        here, misclosure = start, np.zeros(3)
        while True:
            near = np.array(tree.query_ball_point(atoms.positions[here], reach))
            ends = atoms.positions[near % len(atoms)]
            distances = np.linalg.norm(
                (ends - target)[:, : len(target)] if len(target) == 3 else ends[:, :2] - target, axis=1
            )
            best = distances.argmin()
            if near[best] % len(atoms) == here:
                return here, misclosure
            step = images[near[best]] - atoms.positions[here]
            misfit = np.linalg.norm(bonds - step, axis=1)
            if misfit.min() > 0.35 * a / np.sqrt(2):
                raise ValueError(f"the circuit around {box} runs through a core near {atoms.positions[here].round(1)}")
            misclosure += step - bonds[misfit.argmin()]
            here = int(near[best] % len(atoms))

    x0, x1, y0, y1 = box
    start, _ = walk(int(np.linalg.norm(atoms.positions[:, :2] - [x0, y0], axis=1).argmin()), np.array([x0, y0]))
    here, total = start, np.zeros(3)
    for target in ([x1, y0], [x1, y1], [x0, y1]):
        here, misclosure = walk(here, np.array(target))
        total += misclosure
    here, misclosure = walk(here, atoms.positions[start])
    if here != start:
        raise ValueError(f"the circuit around {box} does not close; keep it inside the block")
    return total + misclosure


def _stroh_roots(stiffness: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three roots p with Im p > 0 and, as columns, their vectors a and l (not normalised)."""
    q, r, t = stiffness[:, 0, :, 0], stiffness[:, 0, :, 1], stiffness[:, 1, :, 1]
    inverse = np.linalg.inv(t)
    roots, vectors = np.linalg.eig(np.block([[-inverse @ r.T, inverse], [r @ inverse @ r.T - q, -r @ inverse]]))
    upper = roots.imag > 0
    return roots[upper], vectors[:3, upper], vectors[3:, upper]


def _geometry(host: Host, settings: dict) -> tuple[int, float, list[int], Atoms]:
    """Number of dislocations, spacing [Å], lattice periods of the block along x, y and 1 along z, and the cell."""
    if host.crystal_structure not in FRAMES:
        raise ValueError(f"edge dislocations are known for {' and '.join(FRAMES)} hosts, not {host.crystal_structure}")
    missing = {"count", "spacing", "size", "line_repeat"} - set(settings)
    if missing:
        raise ValueError(f"dislocations need the settings {', '.join(sorted(missing))}")
    count, line_repeat = settings["count"], settings["line_repeat"]
    if count < 1 or count != int(count) or line_repeat < 1 or line_repeat != int(line_repeat):
        raise ValueError(f"count and line_repeat must be positive whole numbers, not {count} and {line_repeat}")
    cell = oriented_cell(host, FRAMES[host.crystal_structure])
    b, rise, _ = cell.cell.lengths()
    planes = PLANES[host.crystal_structure]
    cell.positions += [b / planes[0] / 2, rise / planes[1] / 2, 0.0]
    cell.wrap()
    width, height = settings["size"]
    counts = [round(width / b), round(height / rise), 1]
    spacing = b / planes[0] * round(settings["spacing"] * planes[0] / b)
    if spacing < 2 * b:
        raise ValueError(
            f"dislocations {settings['spacing']} Å apart have no lattice between them; give {2 * b:.1f} Å or more"
        )
    if counts[1] < 2 or counts[0] * b < count * spacing:
        raise ValueError(
            f"a cross-section of {width} x {height} Å is too small for {count} dislocations {spacing:.1f} Å apart; "
            f"give at least {count * spacing:.0f} x {2 * rise:.0f} Å"
        )
    return int(count), spacing, counts, cell


def _cut(atoms: Atoms, outline: np.ndarray, host: Host) -> Atoms:
    """The atoms inside the block from the origin to `outline`, which becomes the cell, periodic along z only.

    Where the strained lattice would put an atom closer to the far side's neighbours than the shortest allowed
    distance, were the block repeated sideways, the atom at the upper edge is left out: so the file is a sensible
    crystal for programs that know periodic cells only.
    """
    inside = ((atoms.positions[:, :2] >= 0) & (atoms.positions[:, :2] < outline[:2])).all(axis=1)
    atoms = atoms[inside]
    atoms.set_cell(np.diag(outline))
    atoms.positions[:, 2] %= outline[2]
    atoms.positions[:, 2] %= outline[2]  # a remainder may round up to the period itself
    shortest = CLOSEST * host.nearest_neighbour
    i, j = cKDTree(atoms.positions, boxsize=outline).query_pairs(shortest, output_type="ndarray").T
    separation = (atoms.positions[i] - atoms.positions[j])[:, :2]
    across = np.abs(separation) > outline[:2] / 2
    if not across.any(axis=1).all():
        k = int(np.argmin(across.any(axis=1)))
        raise ValueError(
            f"the core near {atoms.positions[i[k]].round(1)} brings atoms of {host.name} to "
            f"{atoms.get_distance(i[k], j[k], mic=True):.2f} Å, less than {shortest:.2f} Å: an unrelaxed core does not "
            "suit this host or spacing"
        )
    first_is_upper = separation[np.arange(len(i)), across.argmax(axis=1)] > 0
    keep = np.ones(len(atoms), bool)
    keep[np.where(first_is_upper, i, j)] = False
    atoms = atoms[keep]
    atoms.pbc = [False, False, True]
    return atoms
