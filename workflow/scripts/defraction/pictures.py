"""Diffraction pictures of any origin as a network sees them: read, centred, scaled, displayed. NumPy, SciPy, no torch.

A picture comes from a PNG or TIFF, from netCDF of ours or from a HyperSpy signal. Every number that the file does not
state is assumed or found, and each such step is put into words (`Prepared.assumed`), for whoever reads the answer.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from defraction.dataset import display
from defraction.diffraction.geometry import wavelength

log = logging.getLogger(__name__)

INTENSITIES = ("linear", "display")
CONTRASTS = ("auto", "bright", "dark")
BACKGROUNDS = ("auto", "radial", "none")
HYPERSPY = (".zspy", ".hspy")
NETCDF = (".nc",)
TIFF = (".tif", ".tiff")
SMALLEST = 24  # px; in a narrower picture neighbouring spots of a zone axis run into each other
MOST_MASKED = 0.5  # of a picture that may be hidden or not finite
CENTRE_SEARCH = 512  # px; a larger picture is averaged down to this before its centre is looked for
CENTRE_REACH = 0.25  # of the width, from the middle of the picture, within which the centre is looked for
MATCHED = 1e-6  # px^2 by which spots may be narrower than those of training
NOISE = 3.0  # standard deviations above the background below which a pixel counts as background
PER_ANGSTROM = {
    "k_a^-1": 1.0, "a^-1": 1.0, "1/a": 1.0, "1/å": 1.0, "å^-1": 1.0, "1 / angstrom": 1.0, "1/angstrom": 1.0,
    "k_nm^-1": 0.1, "nm^-1": 0.1, "1/nm": 0.1, "1 / nanometer": 0.1,
}  # fmt: skip
"""Units of a HyperSpy axis that are reciprocal lengths, k = 1/d, with their size in 1/angstrom."""


@dataclass(frozen=True)
class Picture:
    """One pattern as its file holds it.

    Attributes:
        values: float32 (y, x); numbers that are not finite are masked.
        hidden: bool (y, x), pixels without a value. file: its path as given.
        index: what tells it from the others of the file: page, zone_axis, voltage_kV ..., plain values.
        intensity: `linear`: proportional to intensity; `display`: grey values of a picture.
        decades: of a display picture with grey = 1 + log10(I / I_0) / decades; None if the transform is not known.
        centre: (x, y) of the direct beam, pixels from the middle of the first one; None if the file does not say.
        scale: 1/angstrom per pixel, or None. sigma: width of the detector response [px], or None.
        ours: written by defraction, so without background, centred and bright on dark.
    """

    values: np.ndarray
    hidden: np.ndarray
    file: str
    index: dict[str, Any]
    intensity: str
    decades: float | None = None
    centre: tuple[float, float] | None = None
    scale: float | None = None
    sigma: float | None = None
    ours: bool = False
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """File and index in words."""
        parts = [f"{key} {value}" for key, value in self.index.items()]
        return self.file + (f" ({', '.join(parts)})" if parts else "")


@dataclass(frozen=True)
class Frame:
    """What a network was trained on, from its card: see `frame_of`. Lengths in mm, scales in 1/angstrom per pixel."""

    pixels: int
    pixel_mm: float
    beam_stop: float
    decades: float
    scales: tuple[float, float] | None
    sigma: float | None = None


@dataclass(frozen=True)
class Options:
    """What the user knows of the pictures; None or auto: what the file states, else as docs/classify.md says.

    Attributes:
        intensity: `linear` or `display`. decades: as in `Picture`. centre: (x, y) [px]; `find_centre` where it is None.
        scale: 1/angstrom per pixel, or `width`, that of the whole picture, 1/angstrom.
        contrast: of `CONTRASTS`. background: of `BACKGROUNDS`. rotation: degrees, x towards y.
        mask: pixels to ignore, bool (y, x).
    """

    intensity: str | None = None
    decades: float | None = None
    centre: tuple[float, float] | None = None
    find_centre: bool = True
    scale: float | None = None
    width: float | None = None
    contrast: str = "auto"
    background: str = "auto"
    rotation: float = 0.0
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Prepared:
    """A picture as the network takes it: `grey` float32 (pixels, pixels) in [0, 1], and what was assumed on the way."""

    grey: np.ndarray
    assumed: list[str] = field(default_factory=list)


def frame_of(card: Mapping[str, Any]) -> Frame:
    """The frame of a model from its card; `scales` is None for cards that do not list voltages and camera lengths."""
    image = card["image"]
    scales, simulated = None, image.get("diffraction") or {}
    voltages = image.get("voltages") or simulated.get("voltages")
    lengths = image.get("camera_lengths") or simulated.get("camera_lengths")
    if voltages and lengths:
        found = [1e-3 * image["pixel_size_mm"] / (c * wavelength(v)) for v in voltages for c in lengths]
        scales = min(found), max(found)
    shown = card["display"]
    return Frame(
        image["pixels"], image["pixel_size_mm"], shown["beam_stop"], shown["decades"], scales,
        simulated.get("response_sigma"),
    )  # fmt: skip


# --- reading ---------------------------------------------------------------------------------------------------------


def read_pictures(path: Path | str) -> Iterator[Picture]:
    """Every pattern of a file, one after the other: pages, frames, navigation positions, all four of our dimensions.

    Raises FileNotFoundError, or ValueError naming the file, if it is none of the kinds read here, is damaged, or holds
    something that is not a picture.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    if path.is_dir() and suffix != ".zspy":
        raise ValueError(f"{path}: is a folder; name the pictures in it")
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    if suffix in NETCDF:
        yield from _read_netcdf(path)
    elif suffix in HYPERSPY:
        yield from _read_hyperspy(path)
    elif suffix in TIFF:
        yield from _read_tiff(path)
    else:
        yield from _read_image(path)


def _picture(path: Path, values: np.ndarray, index: dict, intensity: str, **facts: Any) -> Picture:
    """Check an array and make a picture of it."""
    where = str(path) + (f", {', '.join(f'{k} {v}' for k, v in index.items())}" if index else "")
    if values.ndim != 2:
        raise ValueError(f"{where}: an array of shape {values.shape} is not a picture; give (y, x)")
    if min(values.shape) < SMALLEST:
        size = f"{values.shape[1]} x {values.shape[0]}"
        raise ValueError(f"{where}: {size} pixels are too few for a pattern; give at least {SMALLEST} each way")
    if np.iscomplexobj(values):
        raise ValueError(f"{where}: complex numbers; give intensities")
    values = np.asarray(values, dtype=np.float32)
    hidden = ~np.isfinite(values)
    if hidden.mean() > MOST_MASKED:
        raise ValueError(f"{where}: {hidden.mean():.0%} of the pixels are not finite numbers; nothing to classify")
    seen = values[~hidden]
    if seen.max() == seen.min():
        raise ValueError(f"{where}: all pixels are {seen.max():g}; the picture is empty")
    return Picture(np.where(hidden, 0, values), hidden, str(path), index, intensity, **facts)


def _of_defraction(description: str) -> dict[str, Any]:
    """What our own images say in their description, else nothing."""
    try:
        facts = json.loads(description)
    except (TypeError, ValueError):
        return {}
    return facts if isinstance(facts, dict) and "pixel_per_angstrom_at_centre" in facts else {}


def _own_facts(facts: Mapping[str, Any], shape: tuple[int, int]) -> dict[str, Any]:
    settings = facts.get("attributes", {}).get("settings", "{}")
    settings = json.loads(settings) if isinstance(settings, str) else settings
    return {
        "centre": ((shape[1] - 1) / 2, (shape[0] - 1) / 2),
        "scale": facts["pixel_per_angstrom_at_centre"],
        "sigma": settings.get("response_sigma"),
        "ours": True,
    }


def _own_index(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: facts[key] for key in ("zone_axis", "voltage_kV", "camera_length_m", "snapshot") if key in facts}


def _read_netcdf(path: Path) -> Iterator[Picture]:
    import netCDF4

    from defraction.export import Source

    try:
        file = netCDF4.Dataset(path)
    except OSError as error:
        raise ValueError(f"{path}: does not open as netCDF ({error.strerror or error})") from None
    with file:
        file.set_auto_mask(False)
        needed = ("intensity", "uvw", "voltage", "camera_length", "snapshot", "structure", "x")
        if missing := [name for name in needed if name not in file.variables]:
            raise ValueError(
                f"{path}: no patterns of defraction, it lacks the variable {missing[0]} (docs/data-format.md)"
            )
        names = file.variables
        source = Source(
            {name: names[name] if name == "intensity" else names[name][...] for name in needed},
            {name: file.getncattr(name) for name in file.ncattrs()},
        )
        for index in np.ndindex(*source.shape[:4]):
            facts = {**source.facts(index), "attributes": {"settings": source.attributes.get("settings", "{}")}}
            values = source.image(index)
            yield _picture(path, values, _own_index(facts), "linear", **_own_facts(facts, values.shape))


def _read_tiff(path: Path) -> Iterator[Picture]:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            described = file.pages[0].description if len(file.pages) else ""
            axes, stack = file.series[0].axes, file.series[0].asarray()
    except (tifffile.TiffFileError, ValueError, KeyError, IndexError, OSError, RuntimeError) as error:
        raise ValueError(f"{path}: does not read as TIFF ({error})") from None
    notes: tuple[str, ...] = ()
    if "S" in axes:  # samples: colours
        stack = np.moveaxis(stack, axes.index("S"), -1)
        stack, notes = _luminance(stack)
    if stack.ndim < 2:
        raise ValueError(f"{path}: an array of shape {stack.shape} is not a picture")
    facts = _of_defraction(described)
    kind = "display" if stack.dtype in (np.uint8, np.bool_) else "linear"
    several = int(np.prod(stack.shape[:-2]))
    for page, values in enumerate(stack.reshape(-1, *stack.shape[-2:])):
        if facts:
            yield _picture(path, values, _own_index(facts), "linear", **_own_facts(facts, values.shape))
        else:
            yield _picture(path, values, {"page": page} if several > 1 else {}, kind, notes=notes)


def _read_image(path: Path) -> Iterator[Picture]:
    from PIL import Image, ImageSequence, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            text = {key: value for key, value in image.info.items() if isinstance(value, str)}
            several = getattr(image, "n_frames", 1) > 1
            frames = [_pixels(frame) for frame in ImageSequence.Iterator(image)]
    except UnidentifiedImageError:
        raise ValueError(
            f"{path}: is not a picture; PNG, TIFF, netCDF of defraction (.nc) and HyperSpy (.zspy, .hspy) are read"
        ) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: the picture is damaged or too large ({error})") from None
    facts = _of_defraction(text.get("Description", ""))
    decades = _decades_of(text, facts)
    for page, (values, notes) in enumerate(frames):
        if facts and decades:
            own = _own_facts(facts, values.shape)
            yield _picture(path, values / np.float32(65535), _own_index(facts), "display", decades=decades, **own)
        else:
            kind = "linear" if values.dtype != np.uint8 else "display"
            yield _picture(path, values, {"page": page} if several else {}, kind, notes=notes)


def _decades_of(text: Mapping[str, str], facts: Mapping[str, Any]) -> float | None:
    """Decades of intensity in a PNG of ours; those of older versions state them in words only."""
    if not facts:
        return None
    if shown := facts.get("display"):
        return float(shown["decades"])
    found = re.search(r"log10\(I / I_0\) / ([\d.]+)", text.get("Display", ""))
    return float(found[1]) if found else None


def _pixels(image: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers of one frame of a Pillow image: grey, 8 bits as uint8, everything else as it is."""
    if image.mode in ("P", "PA", "CMYK", "YCbCr", "HSV", "LAB"):
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    if image.mode == "1":
        image = image.convert("L")
    values = np.array(image)
    return _luminance(values) if values.ndim == 3 else (values, ())


def _luminance(values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Grey values of colours (..., channel): 1 or 2 (grey), 3 or 4 (red, green, blue), the last of 2 and 4 opacity."""
    channels, kind = values.shape[-1], values.dtype
    if channels in (2, 4):
        opacity = values[..., -1].astype(np.float32)
        full = np.float32(np.iinfo(kind).max) if kind.kind == "u" else max(float(opacity.max()), 1.0)
        colours = values[..., :-1] * (opacity / full)[..., None]
    else:
        colours = values
    if colours.shape[-1] == 1 or (colours == colours[..., :1]).all():
        grey, notes = colours[..., 0], ()
    else:
        # luma of ITU-R BT.601
        grey, notes = colours[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32), ("the brightness of its colours",)
    return (np.rint(grey).astype(kind) if kind.kind == "u" else grey), notes


def _read_hyperspy(path: Path) -> Iterator[Picture]:
    """A signal in HyperSpy's hierarchical format: the layout that export.write_signal documents."""
    try:
        if path.suffix.lower() == ".hspy":
            import h5py

            root = h5py.File(path, "r")
        else:
            import zarr

            root = zarr.open_group(str(path), mode="r")
        experiments = root["Experiments"]
        signal = experiments[next(iter(experiments.keys()))]
        data, axes = signal["data"], _signal_axes(signal)
    except (OSError, KeyError, ValueError, StopIteration) as error:
        raise ValueError(f"{path}: does not read as a HyperSpy signal ({error})") from None
    shown = [n for n, axis in enumerate(axes) if not axis.get("navigate")]
    if len(shown) != 2 or shown != [len(axes) - 2, len(axes) - 1] or len(axes) != data.ndim:
        raise ValueError(
            f"{path}: a signal of {len(shown)} dimensions; give patterns (2 signal dimensions, the last ones)"
        )
    microscope = _attributes(signal, "metadata/Acquisition_instrument/TEM")
    ours = _attributes(signal, "original_metadata/attributes")
    coordinates = signal["original_metadata/coordinates"] if "settings" in ours and "references" in ours else None
    navigated = [axis for axis in axes if axis.get("navigate")]
    centre, scale = _calibration(axes[shown[1]], axes[shown[0]], data.shape[-2:], microscope)
    for position in np.ndindex(*data.shape[:-2]):
        values = np.asarray(data[(*position, slice(None), slice(None))])
        if coordinates is None:
            index = {"index": list(position)} if position else {}
            yield _picture(path, values, index, "linear", centre=centre, scale=scale)
            continue
        facts = _own_signal_facts(coordinates, {a["name"]: n for a, n in zip(navigated, position, strict=True)}, ours)
        yield _picture(path, values, _own_index(facts), "linear", **_own_facts(facts, values.shape))


def _signal_axes(signal: Any) -> list[dict]:
    numbers = sorted(int(name[5:]) for name in signal if name.startswith("axis-"))
    return [dict(signal[f"axis-{n}"].attrs) for n in numbers]


def _attributes(group: Any, path: str) -> dict:
    return dict(group[path].attrs) if path in group else {}


def _calibration(
    x: Mapping[str, Any], y: Mapping[str, Any], shape: tuple[int, int], microscope: Mapping[str, Any]
) -> tuple[tuple[float, float] | None, float | None]:
    """Centre (x, y) [px] and scale [1/angstrom per px] that two signal axes state; None for what they leave open."""
    step = abs(float(x.get("scale", 1.0)))
    unit = str(x.get("units", "")).lower().replace("$", "").replace("{", "").replace("}", "")
    scale, energy = None, microscope.get("beam_energy")
    if unit in PER_ANGSTROM:
        scale = step * PER_ANGSTROM[unit]
    elif unit == "mrad" and energy:
        scale = 1e-3 * step / wavelength(float(energy))
    elif unit == "mm" and energy and microscope.get("camera_length"):
        scale = 1e-3 * step / (1e-2 * float(microscope["camera_length"]) * wavelength(float(energy)))
    origins = [-float(axis.get("offset", 0)) / float(axis.get("scale", 1)) for axis in (x, y)]
    inside = all(0 < o < n - 1 for o, n in zip(origins, shape[::-1], strict=True))
    return (tuple(origins) if inside else None), scale


def _own_signal_facts(coordinates: Any, position: Mapping[str, int], attributes: Mapping[str, Any]) -> dict[str, Any]:
    axes = json.loads(coordinates.attrs["zone_axis"])
    voltages, lengths = (np.asarray(coordinates[name]) for name in ("voltage_kV", "camera_length_m"))
    settings = json.loads(attributes["settings"])
    pitch = settings["detector_width"] / settings["pixels"]
    voltage, length = float(voltages[position.get("voltage", 0)]), float(lengths[position.get("camera_length", 0)])
    return {
        "zone_axis": axes[position.get("zone_axis", 0)],
        "voltage_kV": voltage,
        "camera_length_m": length,
        "snapshot": int(np.asarray(coordinates["snapshot"])[position.get("snapshot", 0)]),
        "pixel_per_angstrom_at_centre": 1e-3 * pitch / (length * wavelength(voltage)),
        "attributes": {"settings": settings},
    }


def read_mask(path: Path | str) -> np.ndarray:
    """Pixels to ignore, bool (y, x): those of an image or `.npy` array that are not 0. Raises ValueError naming it."""
    path = Path(path)
    if path.suffix.lower() == ".npy":
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"--mask: {path} does not read as an array ({error})") from None
    else:
        from PIL import Image

        try:
            with Image.open(path) as image:
                values = np.array(image.convert("L"))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"--mask: {path} does not read as a picture ({error})") from None
    if values.ndim != 2:
        raise ValueError(f"--mask: {path} has the shape {values.shape}; give (y, x)")
    return values != 0


# --- preparing -------------------------------------------------------------------------------------------------------


def prepare(picture: Picture, frame: Frame, options: Options) -> Prepared:
    """Grey values of a picture as the network of `frame` was trained on them, with every assumption in words.

    In this order: hidden pixels filled from the opposite side of the pattern, contrast, centre, background, resampling
    to the pixels of the network, beam stop and display. docs/classify.md describes each. Raises ValueError naming the
    picture if an option does not fit it or nothing is left of it.
    """
    assumed = list(picture.notes)
    values, hidden = picture.values, picture.hidden.copy()
    if options.mask is not None:
        if options.mask.shape != hidden.shape:
            raise ValueError(
                f"{picture.name}: {hidden.shape[1]} x {hidden.shape[0]} pixels, the mask has "
                f"{options.mask.shape[1]} x {options.mask.shape[0]}"
            )
        hidden |= options.mask
        if hidden.mean() > MOST_MASKED:
            raise ValueError(f"{picture.name}: {hidden.mean():.0%} of the pixels are masked; nothing to classify")
    kind, decades, known = _kind(picture, frame, options, assumed)
    if _is_inverted(values[~hidden], picture, options):
        values = values[~hidden].max() - values
        if options.contrast == "auto":
            assumed.append("dark spots on a bright background: inverted")
    floor = values[~hidden].min() if kind == "display" and not known else 0.0  # black of an unknown transform
    values = np.where(hidden, 0, np.maximum(values - floor, 0))
    centre = _centre(picture, options, values, kind, assumed)
    if hidden.any():
        values = _fill(values, hidden, centre)
        assumed.append(f"{hidden.mean():.1%} of the pixels are hidden, filled from the opposite side of the pattern")
    if kind == "display":
        values = np.where(values > 0, 10.0 ** (decades * (values / max(float(values.max()), 1e-30) - 1)), 0)
    if options.background == "radial" or (options.background == "auto" and not picture.ours):
        values = subtract_background(values, centre)
        assumed.append("background: the median of each ring about the centre")
    ratio = _ratio(picture, frame, options, assumed)
    if frame.sigma:
        width = picture.sigma
        if width is None:
            width = spot_width(values, centre, frame.beam_stop / frame.pixel_mm * ratio)
        shown, missing = resample(values, centre, ratio, frame.pixels, options.rotation), frame.sigma**2
        missing -= (width / ratio) ** 2
        if picture.sigma is None:
            assumed.append(
                f"spots {width:.1f} pixels wide (standard deviation)"
                + (", blurred to those of the training patterns" if missing > MATCHED else "")
            )
        if missing > MATCHED:
            from scipy.ndimage import gaussian_filter

            shown = gaussian_filter(shown, np.sqrt(missing), mode="constant")
        values = shown
    else:
        values = resample(values, centre, ratio, frame.pixels, options.rotation)
    position = (np.arange(frame.pixels) - (frame.pixels - 1) / 2) * frame.pixel_mm
    grey = display(values, position, position, frame.beam_stop, frame.decades, np.float16).astype(np.float32)
    if not grey.any():
        raise ValueError(f"{picture.name}: nothing is left outside the beam stop; look at --centre and --background")
    return Prepared(grey, assumed)


def _kind(picture: Picture, frame: Frame, options: Options, assumed: list[str]) -> tuple[str, float, bool]:
    """Kind of the numbers, the decades of a display picture, and whether those are known or assumed."""
    kind = options.intensity or picture.intensity
    decades = options.decades if options.decades is not None else picture.decades
    taken = frame.decades if decades is None else decades
    if kind == "display" and decades is None:
        assumed.append(f"grey values of a display picture, taken for a logarithm over {taken:g} decades")
    elif kind == "linear" and options.intensity is None and not picture.ours:
        assumed.append("numbers proportional to intensity")
    return kind, taken, decades is not None


def _is_inverted(seen: np.ndarray, picture: Picture, options: Options) -> bool:
    """Whether spots are dark: most pixels are background, so their median is nearer to the bright end."""
    if options.contrast != "auto" or picture.ours:
        return options.contrast == "dark"
    low, middle, high = np.percentile(seen, [0.5, 50, 99.5])
    return bool(middle - low > high - middle and seen.mean() < middle)


def _centre(
    picture: Picture, options: Options, values: np.ndarray, kind: str, assumed: list[str]
) -> tuple[float, float]:
    height, width = values.shape
    if options.centre is not None:
        x, y = options.centre
        if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
            raise ValueError(f"{picture.name}: --centre {x:g} {y:g} lies outside of {width} x {height} pixels")
        return x, y
    if picture.centre is not None:
        return picture.centre
    if not options.find_centre:
        assumed.append("centre: the middle of the picture")
        return (width - 1) / 2, (height - 1) / 2
    x, y = find_centre(
        np.log1p(values / max(float(np.median(values)), 1e-4 * values.max())) if kind == "linear" else values
    )
    assumed.append(f"centre: x {x:.1f}, y {y:.1f}, about which the picture is most nearly its own inversion")
    return x, y


def find_centre(values: np.ndarray) -> tuple[float, float]:
    """The point (x, y) [px] about which a picture comes nearest to its own inversion (Friedel's law), to about 0.2 px.

    The largest value of the picture's correlation with itself turned by 180 degrees, which is its convolution with
    itself, taken at twice the centre; looked for within a quarter of the width from the middle. It needs no direct
    beam, so a beam stop does no harm.
    """
    from scipy.signal import fftconvolve

    step = max(1, -(-max(values.shape) // CENTRE_SEARCH))
    height, width = (n // step * step for n in values.shape)
    small = values[:height, :width].reshape(height // step, step, width // step, step).mean((1, 3))
    small = np.clip(small - np.median(small), 0, np.percentile(small, 99.9) - np.median(small) + 1e-30)
    found = fftconvolve(small, small)
    y, x = (np.arange(n) for n in found.shape)
    middle = [(n - 1) / 2 for n in found.shape]
    reach = 2 * CENTRE_REACH * min(small.shape)
    near = (np.abs(y - middle[0]) <= reach)[:, None] & (np.abs(x - middle[1]) <= reach)[None, :]
    row, column = np.unravel_index(np.argmax(np.where(near, found, -np.inf)), found.shape)
    twice = []
    for line, peak in ((found[:, column], row), (found[row], column)):
        before, top, after = line[peak - 1], line[peak], line[peak + 1]
        curvature = before - 2 * top + after
        twice.append(peak + (0.5 * (before - after) / curvature if curvature < 0 else 0.0))
    # a pixel of the small picture is centred at step * i + (step - 1) / 2 of the large one
    return tuple(float(step * t / 2 + (step - 1) / 2) for t in twice[::-1])


def _fill(values: np.ndarray, hidden: np.ndarray, centre: tuple[float, float]) -> np.ndarray:
    """Give hidden pixels the value at the opposite point of the pattern (Friedel's law) where that is seen, else 0."""
    y, x = np.nonzero(hidden)
    opposite_x = np.rint(2 * centre[0] - x).astype(int)
    opposite_y = np.rint(2 * centre[1] - y).astype(int)
    inside = (opposite_x >= 0) & (opposite_x < values.shape[1]) & (opposite_y >= 0) & (opposite_y < values.shape[0])
    y, x, opposite_y, opposite_x = y[inside], x[inside], opposite_y[inside], opposite_x[inside]
    filled = values.copy()
    filled[y, x] = np.where(hidden[opposite_y, opposite_x], 0, values[opposite_y, opposite_x])
    return filled


def subtract_background(values: np.ndarray, centre: tuple[float, float]) -> np.ndarray:
    """Values less the median of their ring about `centre` (x, y); what is within three deviations of it becomes 0.

    Rings are one pixel wide, the innermost wider; the deviation is the median one, times 1.4826 as for a normal
    distribution. Spots must cover less than half of every ring.
    """
    from scipy.ndimage import median

    y, x = np.indices(values.shape)
    ring = np.maximum(np.hypot(x - centre[0], y - centre[1]).astype(int), 3)
    rings = np.arange(ring.max() + 1)
    level = np.nan_to_num(median(values, ring, rings))
    above = values - level[ring]
    spread = 1.4826 * np.nan_to_num(median(np.abs(above), ring, rings))
    return np.where(above > NOISE * spread[ring], above, 0).astype(np.float32)


def spot_width(values: np.ndarray, centre: tuple[float, float], hidden: float) -> float:
    """Standard deviation [px] of the spots of a picture without background, the square pixel taken off.

    From the half width of the picture's autocorrelation, which for Gaussian spots is a Gaussian wider by sqrt(2); what
    is nearer to `centre` than `hidden` [px] does not count, since a direct beam may be saturated.
    """
    y, x = np.indices(values.shape)
    seen = np.where(np.hypot(x - centre[0], y - centre[1]) >= hidden, values, 0)
    spectrum = np.abs(np.fft.rfft2(seen, [2 * n for n in seen.shape])) ** 2
    correlation = np.fft.irfft2(spectrum, [2 * n for n in seen.shape])
    profile = correlation[0, : min(seen.shape)] + correlation[: min(seen.shape), 0]
    if profile[0] <= 0:
        return 0.0
    below = np.flatnonzero(profile < 0.5 * profile[0])
    if not len(below):
        return 0.0
    last = below[0] - 1
    half = last + (profile[last] - 0.5 * profile[0]) / (profile[last] - profile[last + 1])
    return float(np.sqrt(max(0.0, half**2 / (4 * np.log(2)) - 1 / 12)))


def _ratio(picture: Picture, frame: Frame, options: Options, assumed: list[str]) -> float:
    """Pixels of the picture per pixel of the network."""
    size = min(picture.values.shape)
    stated = options.scale if options.width is None else options.width / picture.values.shape[1]
    scale = stated if stated is not None else picture.scale
    if scale is None or frame.scales is None:
        what = "its scale is not known" if scale is None else "the model does not say which scales it knows"
        if frame.pixels != size or scale is None:
            assumed.append(f"{what}: the largest centred square fills the {frame.pixels} pixels of the network")
        return size / frame.pixels
    # the whole picture fills the frame if the network knows such a scale, else the nearest scale that it knows
    lowest, highest = frame.scales
    wanted = scale * size / frame.pixels
    if lowest * (1 - 1e-3) <= wanted <= highest * (1 + 1e-3):
        return size / frame.pixels
    taken = float(np.clip(wanted, lowest, highest))
    what = "less" if taken < wanted else "more"
    assumed.append(
        f"shown at {taken:.4f} 1/Å per pixel, the nearest that the network knows: {what} than the whole picture"
    )
    return taken / scale


def resample(
    values: np.ndarray, centre: tuple[float, float], ratio: float, pixels: int, rotation: float = 0.0
) -> np.ndarray:
    """Cut out a square about `centre` (x, y) [px]: each new pixel is the mean over `ratio` x `ratio` old ones.

    Below a ratio of 1 it is interpolated linearly. Outside of the picture is 0. `rotation` [degrees, x towards y] turns
    the pattern first, about its centre.
    """
    if rotation:
        from scipy.ndimage import affine_transform

        cosine, sine = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
        back = np.array([[cosine, -sine], [sine, cosine]])  # (y, x) of the new picture to those of the old one
        middle = np.array(centre[::-1])
        values = affine_transform(values, back, middle - back @ middle, order=1, mode="constant")
    position = (np.arange(pixels) - (pixels - 1) / 2) * ratio
    rows = _weights(centre[1] + position, ratio, values.shape[0])
    columns = _weights(centre[0] + position, ratio, values.shape[1])
    return np.asarray(rows @ values.astype(np.float32) @ columns.T, dtype=np.float32)


def _weights(position: np.ndarray, ratio: float, size: int) -> np.ndarray:
    """Share of each of `size` pixels in intervals `ratio` wide about `position`; at most one pixel wide: linear."""
    pixel = np.arange(size)
    if ratio < 1:
        return np.maximum(0, 1 - np.abs(position[:, None] - pixel)).astype(np.float32)
    low = np.maximum(position[:, None] - ratio / 2, pixel - 0.5)
    high = np.minimum(position[:, None] + ratio / 2, pixel + 0.5)
    return (np.maximum(0, high - low) / ratio).astype(np.float32)
