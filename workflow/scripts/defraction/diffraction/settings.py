"""The settings of a simulation: their defaults, and which of them go together.

The configuration's section ``diffraction`` (config.py) takes its defaults from here, so that a notebook, the command
line and the workflow start from the same values.
"""

import difflib
import math
from collections.abc import Mapping

from ase.data import chemical_symbols

METHODS = ("auto", "laue", "nufft", "direct", "spots", "multislice")
MODELS = ("physical", "article")
TABLES = ("c4322", "lobato", "kirkland", "peng")  # of scattering factors (scattering.py)
SHAPES = ("block", "cylinder", "sphere")

ZONE_AXES = (
    (0, 0, 1), (0, 1, 1), (1, 1, 1), (0, 1, 2), (1, 1, 2), (1, 2, 2), (0, 1, 3), (1, 1, 3),
    (0, 2, 3), (1, 2, 3), (0, 1, 4), (2, 2, 3), (1, 1, 4), (1, 3, 3), (1, 2, 4), (2, 3, 3),
)  # fmt: skip
"""The 16 coprime [uvw] with 0 <= u <= v <= w and u² + v² + w² <= 22, from [001] to [233]. The article prints their
number and ends, not the list (Jeong et al., RSC Adv. 14, 18489 (2024), 10.1039/d3ra08939h): an inference."""

DEFAULTS = {
    "method": "auto",
    "model": "physical",
    "scattering_factors": "c4322",
    "zone_axes": ZONE_AXES,
    "voltages": (120.0, 200.0, 300.0),  # kV
    "camera_lengths": (0.5, 0.8, 1.2),  # m
    "detector_width": 63.5,  # mm
    "pixels": 256,
    "response_sigma": 0.5,  # px
    "tilt": (0.0, 0.0),  # mrad
    "rotation": 0.0,  # degrees
    "convergence": 0.0,  # mrad
    "shape": "block",
    "debye_waller": {},  # element: B in Å^2
    "average_snapshots": False,
}

SIGMA_MIN = 0.3  # px; a narrower response would need many more samples
MAX_TILT = 200.0  # mrad
MAX_CONVERGENCE = 10.0  # mrad


def complete(settings: Mapping) -> dict:
    """Return the settings as plain values, with the default for every key that is not given.

    Raises ValueError for an unknown key (naming the nearest known one), and as :func:`check`.
    """
    for key in settings:
        if key not in DEFAULTS:
            near = difflib.get_close_matches(str(key), DEFAULTS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(DEFAULTS)}"
            raise ValueError(f"{key}: unknown setting; {hint}")
    whole = {key: _plain(settings.get(key, default)) for key, default in DEFAULTS.items()}
    check(whole)
    return whole


def _plain(value):
    """Tuples and arrays as lists, numbers of NumPy as Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def check(settings: dict) -> None:
    """Raise ValueError, beginning with the key, for a value out of its range or settings that exclude each other.

    Zone axes, voltages, camera lengths and the detector are checked where they are used (geometry.py).
    """
    choices = {"method": METHODS, "model": MODELS, "scattering_factors": TABLES, "shape": SHAPES}
    for key, known in choices.items():
        if settings[key] not in known:
            raise ValueError(f"{key}: {settings[key]!r} is not one of {', '.join(known)}")
    for key in ("zone_axes", "voltages", "camera_lengths"):
        if not isinstance(settings[key], list | tuple) or not len(settings[key]):
            raise ValueError(f"{key}: {settings[key]!r} is not a list of at least one; write it in brackets")
    for axis in settings["zone_axes"]:
        if not isinstance(axis, list | tuple) or len(axis) != 3:
            raise ValueError(f"zone_axes: {axis!r} is not a direction [u, v, w]; give a list of them")
    sigma = settings["response_sigma"]
    if not (_number(sigma) and sigma >= SIGMA_MIN):
        raise ValueError(f"response_sigma: {sigma!r} px is below {SIGMA_MIN}; spots would be undersampled")
    tilt = settings["tilt"]
    if not isinstance(tilt, list | tuple) or len(tilt) != 2 or not all(_number(t) and abs(t) <= MAX_TILT for t in tilt):
        raise ValueError(f"tilt: {tilt!r} is not two angles of at most {MAX_TILT:g} mrad, about x and about y")
    if not _number(settings["rotation"]):
        raise ValueError(f"rotation: {settings['rotation']!r} is not an angle in degrees")
    convergence = settings["convergence"]
    if not (_number(convergence) and 0.0 <= convergence <= MAX_CONVERGENCE):
        raise ValueError(f"convergence: {convergence!r} is not a semi-angle between 0 and {MAX_CONVERGENCE:g} mrad")
    if not isinstance(settings["average_snapshots"], bool):
        raise ValueError(f"average_snapshots: {settings['average_snapshots']!r} is neither true nor false")
    check_debye_waller(settings["debye_waller"])
    check_together(settings)


def check_debye_waller(factors: Mapping) -> None:
    """Raise ValueError unless ``factors`` maps element symbols to B >= 0 [Å^2]."""
    if not isinstance(factors, Mapping):
        raise ValueError(f"debye_waller: {factors!r} does not give B [Å^2] by element, as {{'Al': 0.8}} does")
    for element, b in factors.items():
        if element not in chemical_symbols[1:]:
            raise ValueError(f"debye_waller: {element!r} is not the symbol of an element")
        if not (_number(b) and b >= 0.0):
            raise ValueError(f"debye_waller: B = {b!r} Å^2 of {element} is not a number of at least 0")


def check_together(settings: dict) -> None:
    """Raise ValueError, beginning with a key, for settings that exclude each other."""
    if settings["model"] == "article" and settings["shape"] != "block":
        raise ValueError(
            f"shape: {settings['shape']} has no meaning in the model article, whose beam fades out along the edges of "
            "the block before it meets an outline; take the model physical, or the shape block"
        )
    if settings["method"] == "multislice":
        for key, value, why in (
            ("model", "physical", "multislice is dynamical diffraction on the curved sphere"),
            ("convergence", 0.0, "multislice computes a parallel beam"),
        ):
            if settings[key] != value:
                raise ValueError(f"{key}: {settings[key]!r} cannot be used with the method multislice ({why})")


def _number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
