"""Rows of equal straight dislocations on one slip plane, by anisotropic elasticity or by the geometry of half planes.

Frame: x in the slip plane across the lines, y along its normal, z along the lines. The Burgers vector is that of the
finish-to-start, right-hand rule about +z (J. P. Hirth and J. Lothe, Theory of Dislocations, 2nd ed., 1982): with b
along +x the extra half planes stand above the slip plane (y > 0). Lengths in Å, stiffness in GPa.
"""

import logging
from itertools import combinations
from typing import NamedTuple

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from defraction.defects.strain import cubic_stiffness
from defraction.hosts import Host, oriented_cell

logger = logging.getLogger(__name__)

# Orthogonal lattice vectors along x, y, z of the edge dislocation, in units of a. The first is the Burgers vector.
# fcc: b = 1/2 [-110], plane (111), line [11-2]; bcc: b = 1/2 [111], plane (1-10), line [11-2].
FRAMES = {
    "fcc": np.array([[-0.5, 0.5, 0.0], [1.0, 1.0, 1.0], [0.5, 0.5, -1.0]]),
    "bcc": np.array([[0.5, 0.5, 0.5], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]),
}
PLANES = {"fcc": (2, 3), "bcc": (3, 2)}  # rows of atoms along the line, per lattice vector along x and y
# The line along 1/2 [-110] in fcc, 1/2 [111] in bcc, on the same planes: for screw and mixed dislocations.
ALONG_B = {
    "fcc": np.array([[-0.5, -0.5, 1.0], [1.0, 1.0, 1.0], [-0.5, 0.5, 0.0]]),
    "bcc": np.array([[-1.0, -1.0, 2.0], [1.0, -1.0, 0.0], [0.5, 0.5, 0.5]]),
}
MIXED = {"fcc": np.array([-0.5, 0.0, 0.5]), "bcc": np.array([-0.5, -0.5, 0.5])}  # 60 degrees, 70.5 degrees
CHARACTERS = ("edge", "screw", "mixed")
METHODS = ("elastic", "half-planes")
CLOSEST = 0.75  # shortest allowed distance in units of the nearest-neighbour distance
NEIGHBOUR_KINDS = {  # common neighbours, bonds among them, longest chain of these bonds; how often
    "fcc": {(4, 2, 1): 12},
    "hcp": {(4, 2, 1): 6, (4, 2, 2): 6},
    "bcc": {(6, 6, 6): 8, (4, 4, 4): 6},
}


def build(host: Host, settings: dict) -> Atoms:
    """Block of `host` with `count` straight dislocations of equal sign on the slip plane at half its height.

    `settings`: `count`, `spacing` [Å] between neighbours (rounded to whole rows of atoms, so that all cores are alike),
    `size` [width, height] of the cross-section along x and y [Å] (rounded to whole lattice periods), `line_repeat`
    periods along the line, and

    * `character`: "edge" (default), "screw" (the line along b) or "mixed" (60 degrees between line and b in fcc, 70.5
      in bcc: the line along another of the shortest lattice vectors of the slip plane);
    * `method`: "elastic" (default): every atom of a larger crystal is displaced by the sum of the anisotropic fields of
      single straight dislocations in an infinite medium (`row_displacement`), then the rectangle is cut out of it. The
      slip plane lies midway between two atomic planes, and the displacement jumps by b across it on one side of each
      core: a lattice vector, so the atomic planes match there and no atom has to be put in or taken out. Or
      "half-planes": above the slip plane the lattice is shifted by one b less from each line to the next, evenly over
      the width count * spacing; below, the crystal stays perfect. For edges this is one more period b above than below
      for each, compressed linearly; for screws, with no half planes, the shift is along the line.
    * `periodic` (false): the row is repeated without end along x with the width as its period, in closed form. Per
      period the crystal above is displaced by count b against that below, half of it each ("half-planes": all of it
      above), so they are strained against each other by `info["mismatch"]` = count b / width [x, y, z]. `count` must
      be even for the elastic method. Without `spacing` the row is even: the lines share the width, which is rounded
      to suit. Only such a row is in equilibrium: lines of one sign in a finite block drive each other apart.
    * `potential` (none): name or file of an interatomic potential with which the block is relaxed
      (`potentials.relax`, whose `fmax`, `rim` and `steps` are settings too). The field is then that of the elastic
      constants of the potential, and the circuit around all lines must give the same Burgers vector afterwards.

    The cell is the cross-section times one period along the line, `info["repeat"]` is [1, 1, line_repeat], and the
    block is periodic along z only, or x and z. Zone axes refer to the undistorted host (`info["reference_cell"]`).
    `info["dislocations"]` lists the (x, y) of the lines [Å] as built, before any relaxation, and
    `info["burgers_vector"]` the vector of each [Å]. Without a potential the free surfaces relax nothing (no image
    forces), cores are neither relaxed nor dissociated.

    Raises ValueError for settings that are missing or impossible, if the cores of the host bring atoms closer than
    0.75 nearest-neighbour distances, and for a relaxation that loses a dislocation.
    """
    block = _geometry(host, settings)
    method = settings.get("method", "elastic")
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r} for dislocations; choose one of {', '.join(METHODS)}")
    if block.periodic and method == "elastic" and block.count % 2:
        raise ValueError(
            f"an endless row of {block.count} dislocations per period fits no lattice: give an even count, so that the "
            "cell holds a perfect crystal too, its control"
        )
    potential = settings.get("potential")
    if potential is not None:
        from defraction.defects.potentials import find_potential, with_elastic_constants

        potential = find_potential(potential, host)
        host = with_elastic_constants(host, potential)
    count, spacing, cell, burgers = block.count, block.spacing, block.cell, block.burgers
    outline = np.array(block.counts) * cell.cell.lengths()
    slip_plane = outline[1] * (block.counts[1] * block.rows[1] // 2) / (block.counts[1] * block.rows[1])
    step = cell.cell.lengths()[0] / block.rows[0]
    core = _core(block, slip_plane, step)
    first = step * round((outline[0] - (count - 1) * spacing) / 2 / step) + core[0]
    lines = first + spacing * np.arange(count)

    margin = np.ceil((count * np.linalg.norm(burgers) + 15.0) / cell.cell.lengths()[:2]).astype(int)
    margin = np.append(margin, 0)
    atoms = cell.repeat(np.append(block.counts[:2], 1) + 2 * margin)
    atoms.positions -= margin * cell.cell.lengths()
    relative = atoms.positions[:, :2] - [0.0, slip_plane + core[1]]
    if method == "elastic":
        stiffness = rotate_stiffness(cubic_stiffness(host.c11, host.c12, host.c44), block.vectors)
        period = outline[0] if block.periodic else None
        atoms.positions += row_displacement(relative, lines, burgers, stiffness, period)
    else:
        # Above the slip plane count * (spacing + b_x) of crystal is squeezed into count * spacing. Outside of it the
        # two halves must match, so the shifts to the left and right are whole Burgers vectors.
        shift = (count + 1) // 2 * burgers
        start = lines[0] - spacing / 2 - shift[0]
        inside = np.clip(relative[:, :1] - start, 0.0, count * (spacing + burgers[0]))
        above = relative[:, 1] > 0
        atoms.positions[above] += (shift - inside * burgers / (spacing + burgers[0]))[above]
        if block.periodic:  # one period of the squeezed part, wherever the block begins
            begin = lines[0] - spacing / 2 - 1e-6
            atoms = atoms[(atoms.positions[:, 0] >= begin) & (atoms.positions[:, 0] < begin + outline[0])]
            atoms.positions[:, 0] = (atoms.positions[:, 0] + 1e-6) % outline[0] - 1e-6

    atoms = _cut(atoms, outline, host, block.periodic)
    atoms.info = {
        "reference_cell": cell.info["reference_cell"],
        "repeat": [1, 1, int(settings["line_repeat"])],
        "burgers_vector": [float(component) for component in burgers],
        "dislocations": [[float(line), float(slip_plane + core[1])] for line in lines],
    }
    if block.periodic:
        atoms.info["mismatch"] = [float(component) for component in count * burgers / outline[0]]
    if potential is not None:
        from defraction.defects.potentials import relax

        if count > 1 and not block.periodic:
            logger.warning(
                "dislocations of one sign in a finite block drive each other apart in a relaxation, up to the rim; an "
                "even endless row (periodic, without spacing) stays in place"
            )
        atoms = relax(atoms, potential, **{key: settings[key] for key in ("fmax", "rim", "steps") if key in settings})
        found = total_burgers_vector(atoms)
        if not np.allclose(found, count * burgers, atol=1e-3):
            raise ValueError(
                f"after relaxation the circuit around all dislocations gives {found.round(3)} Å instead of "
                f"{(count * burgers).round(3)} Å: one has left the block; give a larger block or fewer of them"
            )
    return atoms


def build_control(host: Host, settings: dict) -> Atoms:
    """The same block without dislocations: same outline, orientation, lattice, cell, periodic directions and repeat.

    It holds close to, not exactly, as many atoms: the dislocated lattice is cut to the same outline, and the number of
    half planes differs above and below the slip plane.
    """
    block = _geometry(host, settings)
    atoms = block.cell.repeat((*block.counts[:2], 1))
    atoms.pbc = [block.periodic, False, True]
    atoms.info = {
        "reference_cell": block.cell.info["reference_cell"],
        "repeat": [1, 1, int(settings["line_repeat"])],
    }
    return atoms


def rotate_stiffness(stiffness: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Stiffness tensor (3, 3, 3, 3) [GPa] in the frame of `axes` (perpendicular rows) from Voigt (6, 6)."""
    voigt = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    tensor = np.asarray(stiffness)[voigt[:, :, None, None], voigt[None, None]]
    rotation = axes / np.linalg.norm(axes, axis=1)[:, None]
    return np.einsum("ia,jb,kc,ld,abcd->ijkl", rotation, rotation, rotation, rotation, tensor, optimize=True)


def line_displacement(
    points: np.ndarray, burgers: np.ndarray, stiffness: np.ndarray, period: float | None = None
) -> np.ndarray:
    """Displacement (n, 3) [Å] at `points` (n, 2) [Å] around a straight dislocation along z through the origin.

    Stroh's sextic solution for an infinite anisotropic medium with `stiffness` (3, 3, 3, 3) (A. N. Stroh, Philos. Mag.
    3, 625 (1958), 10.1080/14786435808565804; notation of Hirth and Lothe, chapter 13): with Im p > 0 and 2 a.l = 1,
    u = Re[ sum over three roots of a (l.b) ln(x + p y) / (pi i) ]. The jump by b lies on y = 0, x < 0. Near isotropy,
    where roots merge and their vectors become dependent, the stiffness is changed by 1 in 10^4 to keep them apart.

    With `period` [Å] there is a line at every whole multiple of it along x: the sum over all of ln(x - n period + p y)
    is ln sin(pi (x + p y) / period) up to a constant. Far above and below the row the displacement changes by -b/2 and
    +b/2 per period; these two states of uniform strain balance, and no stress acts on planes parallel to the row.
    """
    roots, a, stress = _separate_roots(stiffness)
    weight = (stress.T @ np.asarray(burgers, float)) / (2 * np.einsum("ik,ik->k", a, stress))
    x, y = np.asarray(points, float).T
    z = x[:, None] + roots[None] * y[:, None]
    if period is None:
        logarithms = np.log(z)
    else:
        # sin(w) = sign * (i/2) exp(-sign i w) (1 - exp(2 sign i w)), sign = that of Im w, does not overflow.
        sign = np.where(y >= 0, 1, -1)[:, None]
        exponent = 1j * sign * np.pi * z / period
        logarithms = -exponent + np.log(-np.expm1(2 * exponent)) + 0.5j * np.pi * sign
    return (logarithms @ (a * weight).T / (1j * np.pi)).real


def energy_factor(burgers: np.ndarray, stiffness: np.ndarray) -> float:
    """K [GPa] of the elastic energy K b^2 / (4 pi) ln(R/r) per length of a straight dislocation along z.

    mu / (1 - nu) for an edge and mu for a screw in an isotropic medium (Hirth and Lothe, 1982, chapter 13).
    """
    _, a, stress = _separate_roots(stiffness)
    normalised = stress / np.sqrt(2 * np.einsum("ik,ik->k", a, stress))
    burgers = np.asarray(burgers, float)
    return float(2 * burgers @ (normalised @ normalised.T).imag @ burgers / (burgers @ burgers))


def row_displacement(
    points: np.ndarray, lines: np.ndarray, b: float | np.ndarray, stiffness: np.ndarray, period: float | None = None
) -> np.ndarray:
    """Displacement (n, 3) [Å] of lattice points (n, 2) [Å] by dislocations at x = `lines` [Å], y = 0.

    `b` [Å] is the Burgers vector (3,), or its length along x; `period` [Å] repeats all lines along x. The field at an
    atom is that at its displaced x: the halves of the crystal shift against each other by whole Burgers vectors, and
    only so do the fields above and below the slip plane meet at one and the same line. The rigid shift is such that
    the atoms next to the lines keep their height on average.

    Raises ValueError where no displacement satisfies this.
    """
    burgers = np.array([b, 0.0, 0.0]) if np.ndim(b) == 0 else np.asarray(b, float)
    x = points[:, 0]
    for _ in range(200):
        relative = [np.column_stack([x - line, points[:, 1]]) for line in lines]
        displacement = sum(line_displacement(place, burgers, stiffness, period) for place in relative)
        change = points[:, 0] + displacement[:, 0] - x
        x = x + change
        if np.abs(change).max() < 1e-8:
            break
    else:
        raise ValueError("the displacements around the dislocations do not settle; the cores are too near each other")
    near = np.min([np.linalg.norm(place, axis=1) for place in relative], axis=0) < 1.5 * np.linalg.norm(burgers)
    displacement[:, 1] -= displacement[near, 1].mean()
    return displacement


def total_burgers_vector(atoms: Atoms) -> np.ndarray:
    """Burgers vector (3,) [Å] inside the largest circuit that keeps 8 Å away from the faces of the block."""
    width, height, _ = atoms.cell.lengths()
    return burgers_vector(atoms, (8.0, width - 8.0, 8.0, height - 8.0))


def burgers_vector(atoms: Atoms, box: tuple[float, float, float, float]) -> np.ndarray:
    """Burgers vector (3,) [Å] inside the rectangle `box` = (x0, x1, y0, y1) [Å], from the atoms alone.

    A right-handed circuit about +z steps from neighbour to neighbour along the sides of the box, and each step is
    booked as the lattice vector of the perfect crystal (`info["reference_cell"]`) that it resembles. The steps close,
    up to whole periods along the line; what the lattice vectors lack to close is the Burgers vector, finish to start.
    `atoms` is a block built here, fcc or bcc.

    Raises ValueError where a step resembles no lattice vector: the circuit then runs through a core.
    """
    cube = np.array(atoms.info["reference_cell"])
    a = np.linalg.norm(cube[0])
    period = atoms.cell[2, 2]
    structure = _structure(atoms)
    # First neighbours; in bcc the second ones too, which are hardly farther.
    corners = np.array(list(np.ndindex(5, 5, 5))) / 2 - 1
    kind = np.abs(corners).sum(axis=1), np.abs(corners).max(axis=1)
    wanted = (kind[0] == 1) & (kind[1] == 0.5) if structure == "fcc" else (corners != 0).all(axis=1) & (kind[1] == 0.5)
    if structure == "bcc":
        wanted |= (kind[0] == 1) & (kind[1] == 1)
    bonds = corners[wanted] @ cube
    reach = 1.2 * np.linalg.norm(bonds, axis=1).max()
    copies = int(np.ceil(reach / period))
    images = np.concatenate([atoms.positions + [0.0, 0.0, k * period] for k in range(-copies, copies + 1)])
    tree = cKDTree(images)

    def walk(start: int, target: np.ndarray) -> tuple[int, np.ndarray]:
        """Step towards `target` (2 or 3 coordinates) as long as that brings it nearer; the misclosure on the way."""
        here, misclosure = start, np.zeros(3)
        while True:
            near = np.array(tree.query_ball_point(atoms.positions[here], reach))
            ends = atoms.positions[near % len(atoms)]
            distances = np.linalg.norm(ends[:, : len(target)] - target, axis=1)
            best = distances.argmin()
            # Atoms of one row are equally near up to rounding: a step between them would never end.
            if distances[best] > distances[near == here + copies * len(atoms)][0] - 1e-9:
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


def neighbour_kinds(atoms: Atoms) -> np.ndarray:
    """Surroundings of every atom of a block built here: an array (n,) of "fcc", "hcp", "bcc" or "other".

    Common neighbour analysis (J. D. Honeycutt and H. C. Andersen, J. Phys. Chem. 91, 4950 (1987),
    10.1021/j100303a014), with neighbours up to halfway between the second shell and the first (fcc) or third (bcc). A
    stacking fault in fcc is two neighbouring planes of "hcp", a twin boundary one; cores and surfaces are "other".
    """
    a = np.linalg.norm(atoms.info["reference_cell"][0])
    cutoff = a * ((np.sqrt(0.5) + 1) / 2 if _structure(atoms) == "fcc" else (1 + np.sqrt(2)) / 2)
    periodic = np.array(atoms.pbc)
    copies = np.where(periodic, np.ceil(cutoff / atoms.cell.lengths()), 0).astype(int)
    shifts = np.array(list(np.ndindex(*(2 * copies + 1)))) - copies
    shifts = shifts[np.argsort(np.abs(shifts).sum(axis=1), kind="stable")]  # the atoms themselves come first
    images = np.concatenate([atoms.positions + shift @ np.asarray(atoms.cell) for shift in shifts])
    tree = cKDTree(images)
    kinds = {frozenset(counts.items()): name for name, counts in NEIGHBOUR_KINDS.items()}
    result = np.full(len(atoms), "other", dtype="<U5")
    for number, place in enumerate(atoms.positions):
        near = [k for k in tree.query_ball_point(place, cutoff) if k != number]
        if len(near) not in (12, 14):
            continue
        vectors = images[near]
        bonded = np.linalg.norm(vectors[:, None] - vectors[None], axis=2) < cutoff
        np.fill_diagonal(bonded, False)
        counts: dict[tuple[int, int, int], int] = {}
        for row in bonded:
            signature = _signature(np.flatnonzero(row), bonded)
            counts[signature] = counts.get(signature, 0) + 1
        result[number] = kinds.get(frozenset(counts.items()), "other")
    return result


def misfit_profile(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Slip of the lower against the upper half along x [units of b], and the x [Å] where it holds.

    For edge dislocations: the columns of atoms of the two planes beside the slip plane are counted along x from the
    left, and the surplus of the upper plane over the lower one rises by one Burgers vector at every line. The partials
    of a dissociated dislocation are where it passes a quarter and three quarters.
    """
    b = atoms.info["burgers_vector"][0]
    plane = atoms.info["dislocations"][0][1]
    middle = np.mean([x for x, _ in atoms.info["dislocations"]])
    cube = np.array(atoms.info["reference_cell"])
    structure = _structure(atoms)
    distance = np.linalg.norm(cube[0]) * np.linalg.norm(FRAMES[structure][1]) / PLANES[structure][1]
    period = b / PLANES[structure][0]
    sides = []
    for sign in (-1, 1):
        y = sign * (atoms.positions[:, 1] - plane)
        columns = np.sort(atoms.positions[(y > 0) & (y < distance), 0])
        starts = np.concatenate([[True], np.diff(columns) > period / 4])
        sides.append(np.array([part.mean() for part in np.split(columns, np.flatnonzero(starts)[1:])]))
    lower, upper = sides
    x = np.arange(max(lower[0], upper[0]), min(lower[-1], upper[-1]), 0.1)
    slip = (np.interp(x, upper, np.arange(len(upper))) - np.interp(x, lower, np.arange(len(lower)))) * period / b
    at_middle = np.interp(middle, x, slip)
    return x, slip - at_middle + len(atoms.info["dislocations"]) / 2


class _Block(NamedTuple):
    """What the settings come to."""

    count: int
    spacing: float  # Å
    counts: list[int]  # lattice periods along x and y, and 1
    cell: Atoms  # one period
    vectors: np.ndarray  # its axes in units of a
    rows: tuple[int, int]  # of atoms along the line, per period along x and y
    burgers: np.ndarray  # (3,) [Å] along x, y, z
    character: str
    periodic: bool


def _structure(atoms: Atoms) -> str:
    a = np.linalg.norm(atoms.info["reference_cell"][0])
    return "fcc" if round(len(atoms) / atoms.cell.volume * a**3) == 4 else "bcc"


def _signature(common: np.ndarray, bonded: np.ndarray) -> tuple[int, int, int]:
    """Number of common neighbours, of bonds among them, and of bonds in the largest connected set of these."""
    bonds = [{int(i), int(j)} for i, j in combinations(common, 2) if bonded[i, j]]
    number, longest = len(bonds), 0
    while bonds:
        reached, size = bonds.pop(), 1
        while linked := [bond for bond in bonds if bond & reached]:
            size += len(linked)
            reached = reached.union(*linked)
            bonds = [bond for bond in bonds if bond not in linked]
        longest = max(longest, size)
    return len(common), number, longest


def _separate_roots(stiffness: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_stroh_roots`, of a stiffness changed by 1 in 10^4 where roots would merge."""
    roots, a, stress = _stroh_roots(stiffness)
    if np.abs(np.subtract.outer(roots, roots))[np.triu_indices(3, 1)].min() < 1e-3:
        separated = stiffness.copy()
        for i in range(3):
            separated[i, i, i, i] *= 1 + 1e-4
        roots, a, stress = _stroh_roots(separated)
    return roots, a, stress


def _stroh_roots(stiffness: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three roots p with Im p > 0 and, as columns, their vectors a and l (not normalised)."""
    q, r, t = stiffness[:, 0, :, 0], stiffness[:, 0, :, 1], stiffness[:, 1, :, 1]
    inverse = np.linalg.inv(t)
    roots, vectors = np.linalg.eig(np.block([[-inverse @ r.T, inverse], [r @ inverse @ r.T - q, -r @ inverse]]))
    upper = roots.imag > 0
    return roots[upper], vectors[:3, upper], vectors[3:, upper]


def _geometry(host: Host, settings: dict) -> _Block:
    """The block of the settings. Raises ValueError for settings that are missing or impossible."""
    if host.crystal_structure not in FRAMES:
        raise ValueError(f"dislocations are known for {' and '.join(FRAMES)} hosts, not {host.crystal_structure}")
    periodic = bool(settings.get("periodic", False))
    needed = {"count", "size", "line_repeat"} | (set() if periodic else {"spacing"})
    missing = needed - {key for key, value in settings.items() if value is not None}
    if missing:
        raise ValueError(f"dislocations need the settings {', '.join(sorted(missing))}")
    character = settings.get("character", "edge")
    if character not in CHARACTERS:
        raise ValueError(f"unknown character {character!r} of dislocations; choose one of {', '.join(CHARACTERS)}")
    count, line_repeat = settings["count"], settings["line_repeat"]
    if count < 1 or count != int(count) or line_repeat < 1 or line_repeat != int(line_repeat):
        raise ValueError(f"count and line_repeat must be positive whole numbers, not {count} and {line_repeat}")
    vectors = (FRAMES if character == "edge" else ALONG_B)[host.crystal_structure]
    rows = PLANES[host.crystal_structure]
    cell = oriented_cell(host, vectors)
    width_period, rise, _ = cell.cell.lengths()
    cell.positions += [width_period / rows[0] / 2, rise / rows[1] / 2, 0.0]
    cell.wrap()
    in_crystal = {"edge": vectors[0], "screw": vectors[2], "mixed": MIXED[host.crystal_structure]}[character]
    axes = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    burgers = host.lattice_parameter * np.round(axes @ in_crystal, 15)
    if character == "edge":
        burgers = np.array([width_period, 0.0, 0.0])
    b = np.linalg.norm(burgers)
    width, height = settings["size"]
    counts = [round(width / width_period), round(height / rise), 1]
    spacing = settings.get("spacing")
    if spacing is None:  # an even row: as many periods as `count` whole spacings fill
        unit = count // np.gcd(int(count), rows[0])
        counts[0] = int(unit * max(1, round(width / width_period / unit)))
        spacing = counts[0] * width_period / count
    wanted, spacing = spacing, width_period / rows[0] * round(spacing * rows[0] / width_period)
    if spacing < 2 * b:
        raise ValueError(f"dislocations {wanted:g} Å apart have no lattice between them; give {2 * b:.1f} Å or more")
    if counts[1] < 2 or counts[0] * width_period < count * spacing - 1e-6:
        raise ValueError(
            f"a cross-section of {width} x {height} Å is too small for {count} dislocations {spacing:.1f} Å apart; "
            f"give at least {count * spacing:.0f} x {2 * rise:.0f} Å"
        )
    return _Block(int(count), spacing, counts, cell, vectors, rows, burgers, character, periodic)


def _core(block: _Block, slip_plane: float, step: float) -> np.ndarray:
    """Where a line lies (2,) [Å]: its x modulo the distance of rows `step`, its height above the middle of the planes.

    Edge: at a multiple of that distance in the middle; in fcc the lattice then has its mirror normal to b (bcc has
    none). Line along b in fcc: the twofold axis midway between a row below and a row above. In bcc: the middle of three
    neighbouring rows, one below and two above. Round these the perfect lattice rises by b/3 from row to row, the screw
    makes it 2 b/3 or -b/3: the easy core, of reversed winding. (Round two below and one above it falls by b/3, and the
    screw would bring all three to one height, the hard core. V. Vitek, Philos. Mag. 84, 415 (2004),
    10.1080/14786430310001611644.)
    """
    if block.character == "edge":
        return np.zeros(2)
    rise = block.cell.cell.lengths()[1]
    distance = rise / block.rows[1]
    places = block.cell.positions
    heights = (slip_plane + np.array([-0.5, 0.5]) * distance) % rise
    below, above = (places[np.abs(places[:, 1] - height) < distance / 4, 0][0] for height in heights)
    if block.rows == PLANES["fcc"]:
        return np.array([(below + above) / 2 % (step / 2), 0.0])
    return np.array([below % step, distance / 6])


def _cut(atoms: Atoms, outline: np.ndarray, host: Host, periodic: bool) -> Atoms:
    """The atoms inside the block from the origin to `outline`, which becomes the cell, periodic along z, or x and z.

    Where the strained lattice would put an atom closer to the far side's neighbours than the shortest allowed
    distance, were the block repeated sideways, the atom at the upper edge is left out: so the file is a sensible
    crystal for programs that know periodic cells only.
    """
    tolerance = np.array([1e-6 if periodic else 0.0, 0.0])  # a period is cut where rounding cannot split it
    inside = ((atoms.positions[:, :2] >= -tolerance) & (atoms.positions[:, :2] < outline[:2] - tolerance)).all(axis=1)
    atoms = atoms[inside]
    atoms.set_cell(np.diag(outline))
    for _ in range(2):  # a remainder may round up to the period itself
        if periodic:
            atoms.positions[:, 0] %= outline[0]
        atoms.positions[:, 2] %= outline[2]
    shortest = CLOSEST * host.nearest_neighbour
    i, j = cKDTree(atoms.positions, boxsize=outline).query_pairs(shortest, output_type="ndarray").T
    separation = (atoms.positions[i] - atoms.positions[j])[:, :2]
    across = np.abs(separation) > outline[:2] / 2
    if periodic:
        across[:, 0] = False
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
    atoms.pbc = [periodic, False, True]
    return atoms
