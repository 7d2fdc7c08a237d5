"""Diffraction patterns as lists of reflections, each drawn as one spot: approximate, and by far the fastest.

A node g of the reciprocal lattice is surrounded by |F_g|^2 |W|^2, W the Fourier transform of the block's outline over
the volume V of a cell. The Ewald sphere is replaced by its tangent plane where the line through g along the beam meets
it, at the excitation error s. By Parseval's theorem the integral of |W|^2 over that plane (as projected along the beam)
is, exactly for an isolated node,

    1/V^2 integral of (sin(pi s t) / (pi s))^2 over the shadow of the block = 1/V^2 integral of C(u) cos(2 pi s u) du,

t being the thickness along the diffracted beam and C(u) the volume that the block shares with itself moved by u along
it, measured on z: the block's volume times prod_j (1 - |beta_j u|), beta_j the components along the edges.

The electrons of a spot are put into one Gaussian: the detector's response and the spot's own width. So each spot has
the right number of electrons, but what lies in its streaks is drawn into it, neighbours do not interfere, and F is
taken at the node.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
from numba import njit, prange

from defraction.diffraction import sampling
from defraction.diffraction.geometry import Beam, reciprocal_cell
from defraction.diffraction.reflections import sum_over_atoms
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import BEAM_WIDTH, View

REACH = 5.0  # nodes with |s| beyond this over the thickness are left out: 2 % of a rel-rod lies there
CUT = 1e-7  # of the strongest spot beside the direct beam: weaker ones are left out
PROFILE = 4.5  # standard deviations to which a spot is drawn: 7e-6 of it lies beyond
SMALL_CELL = 32  # atoms
SMALLEST_REPEAT = 3  # below, spots are as wide as their distance and not isolated

# exp(-kappa^T M kappa) stands for |W|^2 with M = FORM sum_j E_j E_j^T over the edges E_j: the same full width at half
# maximum along each edge as (sin(pi x) / (pi x))^2, 0.8859; and the transform of the smooth beam, which is Gaussian.
FORM_SHARP = math.log(2.0) / (0.5 * 0.885893) ** 2
FORM_SMOOTH = (2.0 * math.pi * BEAM_WIDTH) ** 2
QUADRATURE = np.polynomial.legendre.leggauss(40)  # over the thickness, for the smooth beam

ERF_NODES, ERF_LAST = 512, 6.0  # per unit of the argument; beyond, it is 1
ERF = np.array([math.erf(i / ERF_NODES) for i in range(int(ERF_LAST * ERF_NODES) + 2)])

RULES = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy", "cache": True}
_inline = njit(**RULES)


@dataclass(frozen=True)
class SpotList:
    """The spots of one pattern, strongest first.

    ``hkl`` (n, 3) indices of the view's cell; ``g`` (n, 3) [1/Å] in the beam frame; ``excitation_error`` (n,) [1/Å];
    ``position`` (n, 2) x, y of the spot's centre as fractional pixel index; ``width`` (n, 2) its standard deviation
    along x, y [px], response included; ``intensity`` (n,) integral of |A|^2 over the spot's solid angle [Å^2]: times
    gamma^2 over the illuminated area, the fraction of the incident electrons.
    """

    hkl: np.ndarray
    g: np.ndarray
    excitation_error: np.ndarray
    position: np.ndarray
    width: np.ndarray
    intensity: np.ndarray


def pattern_bytes(view: View, beam: Beam, sigma: float) -> int:
    """Return the memory [bytes] that one pattern needs while it is computed."""
    return 4 * beam.detector.pixels**2 + int(200 * _expected_nodes(view, beam, sigma))


def cost(view: View, beams: Sequence[Beam], sigma: float) -> float:
    """Return roughly the CPU seconds of the patterns of one view in ``beams``."""
    return sum(1e-4 + _expected_nodes(view, beam, sigma) * (4e-7 + 1e-9 * len(view.positions)) for beam in beams)


def intensities(views: Sequence[View], beams: Sequence[Beam], sigma: float, factors: Factors) -> np.ndarray:
    """Return the mean of |A|^2 cos^3(2 theta) over every pixel [Å^2], with the response, float32 (pattern, y, x).

    Pattern i is ``views[i]`` in ``beams[i]``; all detectors have the same number of pixels. Times pitch^2 / distance^2
    it is the integral of |A|^2 over the pixel's solid angle. ``sigma`` [px] of the response; ``factors``: the
    scattering factors. Raises ValueError for a block of fewer than SMALLEST_REPEAT cells along an edge.
    """
    nodes = _Nodes.build(views, beams, sigma, factors)
    image = np.zeros((len(beams), beams[0].detector.pixels, beams[0].detector.pixels), dtype=np.float32)
    _draw(nodes.view, nodes.beam, nodes.start, nodes.g, nodes.squared, nodes.block, *QUADRATURE, sigma, image)
    return image


def spot_list(view: View, beam: Beam, sigma: float, factors: Factors) -> SpotList:
    """Return the spots that :func:`intensities` draws into the pattern of ``view`` in ``beam``; errors as there."""
    nodes = _Nodes.build([view], [beam], sigma, factors)
    spots = np.empty((len(nodes.g), SPOT))
    count = _spots(nodes.beam[0], nodes.g, nodes.squared, nodes.block[0], *QUADRATURE, sigma, spots)
    spots = spots[:count][np.argsort(-spots[:count, INTENSITY], kind="stable")]
    index = spots[:, INDEX].astype(int)
    return SpotList(
        hkl=nodes.hkl[index],
        g=nodes.g[index],
        excitation_error=spots[:, ERROR],
        position=spots[:, X : Y + 1] + 0.5 * (beam.detector.pixels - 1),
        width=spots[:, WIDTH_X : WIDTH_Y + 1],
        intensity=spots[:, INTENSITY],
    )


def check(settings: dict) -> None:
    """Raise ValueError for settings (the configuration's section ``diffraction``) that this method cannot follow."""
    shape = settings.get("shape", "block")
    if shape != "block":
        raise ValueError(f"method: spots knows the shape block only, not {shape!r}; use the method auto")


def check_view(view: View) -> None:
    """Raise ValueError for a specimen whose reflections are not isolated spots."""
    if (view.repeat < SMALLEST_REPEAT).any():
        raise ValueError(
            f"method: spots needs a block of at least {SMALLEST_REPEAT} cells along each edge, this one has "
            f"{' x '.join(map(str, view.repeat))}; repeat it more often, or use the method auto"
        )


def _thickness(view: View) -> float:
    """Return the largest thickness of the block along z [Å]."""
    return 1.0 / np.abs(reciprocal_cell(view.edges)[:, 2]).max()


def _expected_nodes(view: View, beam: Beam, sigma: float) -> float:
    width = 2.0 * beam.k * sampling.largest_tangent(beam, sigma)
    return width**2 * 2.0 * REACH / _thickness(view) * abs(np.linalg.det(view.cell))


@dataclass(frozen=True)
class _Nodes:
    """Everything the kernel reads, as flat arrays."""

    view: np.ndarray  # (pattern,) index of its view
    beam: np.ndarray  # (pattern, 8): k, distance, pitch, flat, origin x, y, z, tangent of the largest angle
    start: np.ndarray  # (view + 1,) into the nodes
    hkl: np.ndarray  # (node, 3)
    g: np.ndarray  # (node, 3) [1/Å], beam frame
    squared: np.ndarray  # (node,) |F|^2 [Å^2]
    block: np.ndarray  # (view, 18): 9 of the reciprocal edges, 6 of M, cells per volume, largest |s|, smooth

    @classmethod
    def build(cls, views: Sequence[View], beams: Sequence[Beam], sigma: float, factors: Factors) -> "_Nodes":
        distinct = list({id(view): view for view in views}.values())
        for view in distinct:
            check_view(view)
        index = {id(view): i for i, view in enumerate(distinct)}
        where = np.array([index[id(view)] for view in views])
        blocks = [_block(view) for view in distinct]
        beam = np.array(
            [
                [b.k, b.detector.distance, b.detector.pitch, b.flat, *b.origin, _edge(blocks[i], b, sigma)]
                for i, b in zip(where, beams, strict=True)
            ]
        )

        def of_view(i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            view = distinct[i]
            nodes, vectors = _nodes_near_spheres(view, blocks[i][LARGEST], beam[where == i])
            length = np.sqrt(np.square(vectors).sum(axis=1))
            f = np.stack([factors.of(element, length) for element in view.elements])
            amplitude = sum_over_atoms(nodes, view.positions @ reciprocal_cell(view.cell).T, view.first, f)
            return nodes, vectors, amplitude.real**2 + amplitude.imag**2

        # for a few atoms the work between the kernels, which does not run side by side, is most of it
        threads = numba.config.NUMBA_NUM_THREADS if max(len(v.positions) for v in distinct) > SMALL_CELL else 1
        with ThreadPoolExecutor(threads) as pool:
            hkl, g, squared = zip(*pool.map(of_view, range(len(distinct))), strict=True)
        start = np.cumsum([0] + [len(nodes) for nodes in hkl])
        return cls(where, beam, start, *map(np.concatenate, (hkl, g, squared)), np.stack(blocks))


def _block(view: View) -> np.ndarray:
    edges = view.edges
    form = (FORM_SMOOTH if view.smooth else FORM_SHARP) * edges.T @ edges
    return np.concatenate(
        [
            reciprocal_cell(edges).ravel(),
            form[np.triu_indices(3)],
            [view.repeat.prod() / abs(np.linalg.det(view.cell)), REACH / _thickness(view), view.smooth],
        ]
    )


def _edge(block: np.ndarray, beam: Beam, sigma: float) -> float:
    """Return the tangent of the angle, along either detector axis, up to which spots may reach into the image."""
    m_xx, m_xy, m_xz, m_yy, m_yz, _ = block[FORM : FORM + 6]
    determinant = m_xx * m_yy - m_xy * m_xy
    shift = block[LARGEST] / determinant * max(abs(m_yy * m_xz - m_xy * m_yz), abs(m_xx * m_yz - m_xy * m_xz))
    width = math.hypot(sigma, math.sqrt(0.5 * max(m_xx, m_yy) / determinant) / beam.pixel)
    detector = beam.detector
    return (0.5 * detector.pixels + PROFILE * width + shift / beam.pixel + 1.0) * detector.pitch / detector.distance


def _nodes_near_spheres(view: View, largest: float, beams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return indices and vectors of the nodes with |s| <= ``largest`` in one of the ``beams`` (n, 8) or more."""
    k, tangent = beams[:, 0], beams[:, 7]
    across = np.array([(k * tangent / np.sqrt(1.0 + tangent**2) + np.abs(beams[:, 4 + i])).max() for i in range(2)])
    sag = k * (1.0 - 1.0 / np.sqrt(1.0 + 2.0 * tangent**2)) * (1.0 - beams[:, 3])
    z = np.array([(-sag - beams[:, 6]).min() - largest, (-beams[:, 6]).max() + largest])
    reciprocal = reciprocal_cell(view.cell)
    # the index whose step leads out of the slab is found by division, the others run over their ranges
    order = np.argsort(np.abs(reciprocal[:, 2]), kind="stable")
    g_max = math.sqrt(across @ across + np.abs(z).max() ** 2)
    reach = np.floor(g_max * np.sqrt(np.square(view.cell).sum(axis=1))).astype(np.int64)
    return _enumerate(reciprocal, order, reach, across, z, beams, largest)


# Places in an item of _Nodes.block, and in an item of the list of spots.
EDGE, FORM, PER_VOLUME, LARGEST, SMOOTH = 0, 9, 15, 16, 17
X, Y, WIDTH_X, WIDTH_Y, INTENSITY, ERROR, INDEX, SPOT = 0, 1, 2, 3, 4, 5, 6, 7


@_inline
def _meeting_point(beam, gx, gy, gz):
    """Return n_x, n_y, n_z of the electrons on the line through g along the optic axis, and s; n_z = 0: none."""
    k = beam[0]
    nx, ny = (gx + beam[4]) / k, (gy + beam[5]) / k
    square = nx * nx + ny * ny
    if square >= 1.0:
        return nx, ny, 0.0, 0.0
    nz = math.sqrt(1.0 - square)
    sag = 0.0 if beam[3] else -k * square / (1.0 + nz)
    return nx, ny, nz, sag - beam[6] - gz


@njit(nogil=True, **RULES)
def _enumerate(reciprocal, order, reach, across, z, beams, largest):
    """Two passes over the slab: count, then fill."""
    slow, middle, fast = order[0], order[1], order[2]
    step = reciprocal[fast, 2]
    hkl, g = np.empty((0, 3), np.int32), np.empty((0, 3))
    for fill in range(2):
        count = 0
        for i in range(-reach[slow], reach[slow] + 1):
            for j in range(-reach[middle], reach[middle] + 1):
                base = i * reciprocal[slow, 2] + j * reciprocal[middle, 2]
                first, last = (z[0] - base) / step, (z[1] - base) / step
                if first > last:
                    first, last = last, first
                for m in range(math.ceil(first), math.floor(last) + 1):
                    gx = i * reciprocal[slow, 0] + j * reciprocal[middle, 0] + m * reciprocal[fast, 0]
                    gy = i * reciprocal[slow, 1] + j * reciprocal[middle, 1] + m * reciprocal[fast, 1]
                    if abs(gx) > across[0] or abs(gy) > across[1]:
                        continue
                    gz = base + m * step
                    for b in range(len(beams)):
                        nx, ny, nz, s = _meeting_point(beams[b], gx, gy, gz)
                        edge = beams[b, 7] * nz
                        if nz > 0.0 and abs(s) <= largest and abs(nx) <= edge and abs(ny) <= edge:
                            if fill:
                                hkl[count, slow], hkl[count, middle], hkl[count, fast] = i, j, m
                                g[count, 0], g[count, 1], g[count, 2] = gx, gy, gz
                            count += 1
                            break
        if not fill:
            hkl, g = np.empty((count, 3), np.int32), np.empty((count, 3))
    return hkl, g


@_inline
def _sharp(b1, b2, b3, s):
    """2 times the integral of (1 - b1 u)(1 - b2 u)(1 - b3 u) cos(2 pi s u) from 0 to the first zero of the product."""
    end = 1.0 / max(b1, b2, b3)
    p1, p2, p3 = -(b1 + b2 + b3), b1 * b2 + b2 * b3 + b3 * b1, -b1 * b2 * b3
    w = 2.0 * math.pi * abs(s)
    t = w * end
    if t < 0.3:  # the closed form cancels; to t^6, 1e-9 of the integral
        t2 = t * t
        return (
            2.0 * end * (
                (1.0 + end * (p1 / 2.0 + end * (p2 / 3.0 + end * p3 / 4.0)))
                - t2 / 2.0 * (1.0 / 3.0 + end * (p1 / 4.0 + end * (p2 / 5.0 + end * p3 / 6.0)))
                + t2 * t2 / 24.0 * (1.0 / 5.0 + end * (p1 / 6.0 + end * (p2 / 7.0 + end * p3 / 8.0)))
                - t2 * t2 * t2 / 720.0 * (1.0 / 7.0 + end * (p1 / 8.0 + end * (p2 / 9.0 + end * p3 / 10.0)))
            )
        )  # fmt: skip
    value = 1.0 + end * (p1 + end * (p2 + end * p3))
    slope = p1 + end * (2.0 * p2 + end * 3.0 * p3)
    bend = 2.0 * p2 + 6.0 * end * p3
    sine, cosine = math.sin(t), math.cos(t)
    upper = value * sine / w + slope * cosine / w**2 - bend * sine / w**3 - 6.0 * p3 * cosine / w**4
    return 2.0 * (upper - p1 / w**2 + 6.0 * p3 / w**4)


@_inline
def _spots(beam, g, squared, block, nodes, weights, sigma, spots):
    """Fill ``spots`` with those that are strong enough; return how many."""
    k, distance, pitch = beam[0], beam[1], beam[2]
    smooth = block[SMOOTH] > 0.0
    largest = block[LARGEST]
    scale = distance / pitch
    overlap, end = np.empty(len(nodes)), 1.0 / max(abs(block[EDGE + 2]), abs(block[EDGE + 5]), abs(block[EDGE + 8]))
    if smooth:  # on a flat plane: the thickness is that along the optic axis
        for q in range(len(nodes)):
            u = 0.5 * (nodes[q] + 1.0) * end
            overlap[q] = weights[q] * end
            for j in range(3):
                v = abs(block[EDGE + 3 * j + 2]) * u
                overlap[q] *= math.exp(-0.25 * (v / BEAM_WIDTH) ** 2) * BEAM_WIDTH * math.sqrt(math.pi) * math.erf(
                    0.5 * (1.0 - v) / BEAM_WIDTH
                )  # fmt: skip
    m_xx, m_xy, m_xz, m_yy, m_yz, m_zz = (
        block[FORM], block[FORM + 1], block[FORM + 2], block[FORM + 3], block[FORM + 4], block[FORM + 5],
    )  # fmt: skip
    count = 0
    strongest = 0.0
    for n in range(len(g)):
        nx, ny, nz, s = _meeting_point(beam, g[n, 0], g[n, 1], g[n, 2])
        edge = beam[7] * nz
        if nz == 0.0 or abs(s) > largest or abs(nx) > edge or abs(ny) > edge:
            continue
        ax, ay = (0.0, 0.0) if beam[3] else (-nx / nz, -ny / nz)  # slope of the tangent plane
        if smooth:
            integral = 0.0
            for q in range(len(nodes)):
                integral += overlap[q] * math.cos(math.pi * s * (nodes[q] + 1.0) * end)
        else:
            integral = _sharp(
                abs(block[EDGE + 2] - ax * block[EDGE] - ay * block[EDGE + 1]),
                abs(block[EDGE + 5] - ax * block[EDGE + 3] - ay * block[EDGE + 4]),
                abs(block[EDGE + 8] - ax * block[EDGE + 6] - ay * block[EDGE + 7]),
                s,
            )
        intensity = squared[n] * block[PER_VOLUME] * integral / (k * k * nz)
        # the Gaussian that stands for |W|^2, cut by the tangent plane: its mean and variances
        f_xx = m_xx + 2.0 * ax * m_xz + ax * ax * m_zz
        f_xy = m_xy + ax * m_yz + ay * m_xz + ax * ay * m_zz
        f_yy = m_yy + 2.0 * ay * m_yz + ay * ay * m_zz
        f_x, f_y = m_xz + ax * m_zz, m_yz + ay * m_zz
        determinant = f_xx * f_yy - f_xy * f_xy
        nx -= s * (f_yy * f_x - f_xy * f_y) / (determinant * k)
        ny -= s * (f_xx * f_y - f_xy * f_x) / (determinant * k)
        nz = math.sqrt(1.0 - nx * nx - ny * ny)
        spots[count, X] = scale * nx / nz
        spots[count, Y] = scale * ny / nz
        spots[count, WIDTH_X] = math.sqrt(sigma**2 + (scale / k) ** 2 * 0.5 * f_yy / determinant)
        spots[count, WIDTH_Y] = math.sqrt(sigma**2 + (scale / k) ** 2 * 0.5 * f_xx / determinant)
        spots[count, INTENSITY] = intensity
        spots[count, ERROR] = s
        spots[count, INDEX] = n
        count += 1
        if g[n, 0] ** 2 + g[n, 1] ** 2 + g[n, 2] ** 2 > 1e-12:
            strongest = max(strongest, intensity)
    kept = 0
    for n in range(count):
        if spots[n, INTENSITY] > CUT * strongest:
            for i in range(SPOT):
                spots[kept, i] = spots[n, i]
            kept += 1
    return kept


@_inline
def _erf(x):
    """Error function, between tabulated values: to 5e-7."""
    node = min(abs(x), ERF_LAST) * ERF_NODES
    i = int(node)
    value = ERF[i] + (node - i) * (ERF[i + 1] - ERF[i])
    return value if x >= 0.0 else -value


@_inline
def _profile(position, width, pixels, fraction):
    """Fill ``fraction`` with what each pixel records along one axis; return the first pixel and their number."""
    reach = PROFILE * width + 0.5
    first, last = max(math.ceil(position - reach), 0), min(math.floor(position + reach), pixels - 1)
    scale = 1.0 / (math.sqrt(2.0) * width)
    below = _erf(scale * (first - 0.5 - position))
    for i in range(last - first + 1):
        above = _erf(scale * (first + i + 0.5 - position))
        fraction[i] = 0.5 * (above - below)
        below = above
    return first, last - first + 1


@njit(parallel=True, **RULES)
def _draw(view, beam, start, g, squared, block, nodes, weights, sigma, image):
    """Add the spots of every pattern to ``image`` (pattern, y, x)."""
    pixels = image.shape[1]
    for pattern in prange(len(view)):
        v = view[pattern]
        here = slice(start[v], start[v + 1])
        spots = np.empty((start[v + 1] - start[v], SPOT))
        count = _spots(beam[pattern], g[here], squared[here], block[v], nodes, weights, sigma, spots)
        scale = (beam[pattern, 1] / beam[pattern, 2]) ** 2
        across, along = np.empty(pixels), np.empty(pixels)
        for n in range(count):
            x0, columns = _profile(spots[n, X] + 0.5 * (pixels - 1), spots[n, WIDTH_X], pixels, across)
            y0, rows = _profile(spots[n, Y] + 0.5 * (pixels - 1), spots[n, WIDTH_Y], pixels, along)
            for i in range(rows):
                weight = scale * spots[n, INTENSITY] * along[i]
                for j in range(columns):
                    image[pattern, y0 + i, x0 + j] += np.float32(weight * across[j])
