"""Beam, detector and reciprocal space, as docs/conventions.md defines them (k = 1/d, no factor 2 pi)."""

import math
from dataclasses import dataclass

import numpy as np

# CODATA 2022, as in scipy.constants, whose import costs more than a pattern (a test compares them).
PLANCK = 6.62607015e-34  # J s
ELEMENTARY_CHARGE = 1.602176634e-19  # C
ELECTRON_MASS = 9.1093837139e-31  # kg
SPEED_OF_LIGHT = 299792458.0  # m/s


def wavelength(voltage: float) -> float:
    """Return the relativistic wavelength [Å] of electrons of ``voltage`` [kV]."""
    energy = _energy(voltage)
    rest = ELECTRON_MASS * SPEED_OF_LIGHT**2
    return 1e10 * PLANCK / math.sqrt(2.0 * ELECTRON_MASS * energy * (1.0 + energy / (2.0 * rest)))


def relativistic_factor(voltage: float) -> float:
    """Return gamma = 1 + eV / mc^2 for ``voltage`` [kV]."""
    return 1.0 + _energy(voltage) / (ELECTRON_MASS * SPEED_OF_LIGHT**2)


def _energy(voltage: float) -> float:
    if not (math.isfinite(voltage) and voltage > 0.0):
        raise ValueError(f"voltages: {voltage!r} kV is not positive")
    return 1e3 * ELEMENTARY_CHARGE * voltage


@dataclass(frozen=True)
class Detector:
    """A square detector at ``camera_length`` [m] of ``pixels`` x ``pixels`` over ``width`` [mm]."""

    camera_length: float
    width: float
    pixels: int

    def __post_init__(self):
        if not (math.isfinite(self.camera_length) and self.camera_length > 0.0):
            raise ValueError(f"camera_lengths: {self.camera_length!r} m is not positive")
        if not (math.isfinite(self.width) and self.width > 0.0):
            raise ValueError(f"detector_width: {self.width!r} mm is not positive")
        if not (isinstance(self.pixels, int | np.integer) and self.pixels >= 1):
            raise ValueError(f"pixels: {self.pixels!r} is not a positive whole number")

    @property
    def distance(self) -> float:
        """Camera length in mm."""
        return 1e3 * self.camera_length

    @property
    def pitch(self) -> float:
        """Width of a pixel in mm."""
        return self.width / self.pixels

    def positions(self) -> np.ndarray:
        """Return the pixel centres [mm] along either axis, shape (pixels,)."""
        return (np.arange(self.pixels) - 0.5 * (self.pixels - 1)) * self.pitch

    def pixel_of(self, position: np.ndarray) -> np.ndarray:
        """Return the fractional pixel index of a position [mm]: whole numbers are pixel centres."""
        return np.asarray(position) / self.pitch + 0.5 * (self.pixels - 1)


@dataclass(frozen=True)
class Beam:
    """Electrons of wave number ``k`` = 1/lambda [1/Å] on a detector; ``flat``: q on a plane, not on the sphere.

    ``direction``: x and y components of the unit vector along which the electrons arrive. The optic axis is z and the
    detector stays perpendicular to it, so the pattern moves with the beam: q = k (n - n_beam).
    """

    k: float
    detector: Detector
    flat: bool = False
    direction: tuple[float, float] = (0.0, 0.0)

    @property
    def pixel(self) -> float:
        """Width of a pixel in reciprocal space at the centre of the detector [1/Å]."""
        return self.k * self.detector.pitch / self.detector.distance

    @property
    def origin(self) -> np.ndarray:
        """k (n_beam - z) [1/Å], shape (3,): subtracted from the q of a beam along z; its z is 0 for a flat plane."""
        x, y = self.direction
        square = x * x + y * y
        z = 0.0 if self.flat else -square / (1.0 + math.sqrt(1.0 - square))
        return self.k * np.array([x, y, z])


def scattering_vectors(x: np.ndarray, y: np.ndarray, k: float, distance: float, flat: bool = False) -> np.ndarray:
    """Return q [1/Å], shape (..., 3), of detector positions x, y [mm] at ``distance`` [mm] for k = 1/lambda [1/Å].

    ``flat`` puts q on the plane through the origin (same x and y components) instead of the Ewald sphere.
    """
    x, y = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    rho = x * x + y * y
    n = np.sqrt(rho + distance * distance)
    z = np.zeros_like(rho) if flat else -k * rho / (n * (n + distance))
    return np.stack([k * x / n, k * y / n, z], axis=-1)


def zone_frame(
    reference_cell: np.ndarray,
    zone_axis: tuple[int, int, int],
    rotation: float = 0.0,
    tilt: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Return the rotation matrix, rows x, y, z of the pattern's frame in the crystal's Cartesian frame.

    z is parallel to u a + v b + w c; x is the component of a perpendicular to z (of b where a is parallel to z).
    ``frame @ r`` are the components of a crystal vector r along the beam frame's axes.

    From there the crystal is turned about z by ``rotation`` [degrees], x towards y, then tilted by ``tilt`` [mrad]:
    first about the fixed x (y towards z), then about the fixed y (z towards x), both right-handed.

    Raises ValueError for a zone axis that is not three whole numbers or is [0 0 0], angles that are not finite, or a
    flat cell.
    """
    cell = np.asarray(reference_cell, dtype=float)
    if cell.shape != (3, 3) or not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-9:
        raise ValueError(f"reference_cell: {cell.tolist()} is not three independent vectors")
    uvw = np.asarray(zone_axis, dtype=float)
    if uvw.shape != (3,) or not np.isfinite(uvw).all() or (uvw != np.rint(uvw)).any() or not uvw.any():
        raise ValueError(f"zone_axes: {list(zone_axis)} is not a direction; give three whole numbers, not all zero")
    if not math.isfinite(rotation):
        raise ValueError(f"rotation: {rotation!r} is not an angle in degrees")
    if len(tilt) != 2 or not all(map(math.isfinite, tilt)):
        raise ValueError(f"tilt: {tilt!r} is not two angles in mrad")
    z = uvw @ cell
    z /= np.linalg.norm(z)
    for vector in cell[:2]:
        x = vector - (vector @ z) * z
        if np.linalg.norm(x) > 1e-6 * np.linalg.norm(vector):
            break
    x /= np.linalg.norm(x)
    frame = np.stack([x, np.cross(z, x), z])
    if rotation or any(tilt):
        frame = _turn(1, 1e-3 * tilt[1]) @ _turn(0, 1e-3 * tilt[0]) @ _turn(2, math.radians(rotation)) @ frame
    return frame


def _turn(axis: int, angle: float) -> np.ndarray:
    """Return the matrix that turns a column vector by ``angle`` [rad] about axis 0, 1 or 2 (x, y, z), right-handed."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = math.cos(angle)
    matrix[j, i] = math.sin(angle)
    matrix[i, j] = -math.sin(angle)
    return matrix


def reciprocal_cell(cell: np.ndarray) -> np.ndarray:
    """Return a*, b*, c* as rows [1/Å] for cell vectors as rows [Å]."""
    return np.linalg.inv(np.asarray(cell, dtype=float)).T


def excitation_error(g: np.ndarray, k: float) -> np.ndarray:
    """Return s_g [1/Å], shape (...), for g [1/Å] in the beam frame, shape (..., 3).

    The distance from g to the Ewald sphere along the beam, positive when g lies inside the sphere.
    """
    g = np.asarray(g, dtype=float)
    perpendicular = g[..., 0] ** 2 + g[..., 1] ** 2
    return -perpendicular / (k + np.sqrt(k * k - perpendicular)) - g[..., 2]


def spot_position(g: np.ndarray, k: float, distance: float) -> np.ndarray:
    """Return (X, Y) [mm], shape (..., 2), where the line through g along the beam meets the Ewald sphere.

    g [1/Å] in the beam frame, shape (..., 3); k = 1/lambda [1/Å]; ``distance`` [mm] of the detector.
    """
    g = np.asarray(g, dtype=float)
    along = np.sqrt(k * k - g[..., 0] ** 2 - g[..., 1] ** 2)
    return distance * g[..., :2] / along[..., None]


def projected_area(edges: np.ndarray) -> float:
    """Return the area [Å^2] of the shadow along z of a parallelepiped with these ``edges``, rows [Å], beam frame."""
    a, b, c = np.asarray(edges, dtype=float)
    return float(abs(np.cross(a, b)[2]) + abs(np.cross(b, c)[2]) + abs(np.cross(c, a)[2]))
