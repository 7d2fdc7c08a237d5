"""Thermal motion in a Debye solid, to hold molecular dynamics against."""

import math

import numpy as np
from scipy import constants

HBAR2_PER_U_KB_A2 = constants.hbar**2 / (constants.atomic_mass * constants.k) * 1e20  # [K Å^2], over mass in u


def mean_square_displacement(
    temperature: float, debye_temperature: float, mass: float, classical: bool = False
) -> float:
    """<u_x^2> [Å^2] of one Cartesian component in a Debye solid of one kind of atom.

    3 hbar^2 / (m k Theta) [1/4 + (T / Theta)^2 integral_0^{Theta/T} x / (e^x - 1) dx], with zero-point motion, or its
    limit at high temperature, 3 hbar^2 T / (m k Theta^2), of classical nuclei (those of molecular dynamics). Debye 1913
    (10.1002/andp.19133480105), Waller 1923 (10.1007/BF01328696); in this form in Willis and Pryor, Thermal Vibrations
    in Crystallography, 1975. B = 8 pi^2 <u_x^2>.

    Args:
        temperature: [K], 0 or above.
        debye_temperature: of the Debye-Waller factor [K].
        mass: of an atom [u].
        classical: without quantum effects.

    Raises:
        ValueError: a temperature or mass that cannot be.
    """
    if not (temperature >= 0 and debye_temperature > 0 and mass > 0):
        raise ValueError(
            f"Debye model: temperature {temperature} K, Debye temperature {debye_temperature} K, mass {mass} u: the "
            "first must be at least 0 and the others above 0"
        )
    unit = 3 * HBAR2_PER_U_KB_A2 / (mass * debye_temperature)
    ratio = temperature / debye_temperature
    if classical:
        return unit * ratio
    if temperature == 0:
        return unit / 4
    # x / (e^x - 1) falls off by exp(-40) at 40; Gauss and Legendre integrate the smooth rest to rounding.
    nodes, weights = np.polynomial.legendre.leggauss(64)
    upper = min(1 / ratio, 40.0)
    x = upper * (nodes + 1) / 2
    integral = float(weights @ (x / np.expm1(x))) * upper / 2
    return unit * (0.25 + ratio**2 * integral)


def rms_component(temperature: float, debye_temperature: float, mass: float) -> dict[str, float]:
    """Root mean square of one Cartesian component [Å], with zero-point motion ("quantum") and without ("classical")."""
    return {
        name: math.sqrt(mean_square_displacement(temperature, debye_temperature, mass, name == "classical"))
        for name in ("quantum", "classical")
    }
