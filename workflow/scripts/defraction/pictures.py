"""Diffraction pictures of any origin as a network sees them: read, centred, scaled, displayed. NumPy, SciPy, no torch.

A picture comes from a PNG or TIFF, from netCDF of ours or from a HyperSpy signal. Every number that the file does not
state is assumed or found (`inspection`), and each such step is put into words (`Prepared.assumed`), for whoever reads
the answer; so is what speaks against them (`Prepared.doubts`).
"""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from defraction import inspection
from defraction.dataset import display
from defraction.diffraction.geometry import wavelength

log = logging.getLogger(__name__)

INTENSITIES = ("linear", "display")
CONTRASTS = ("auto", "bright", "dark")
BACKGROUNDS = ("auto", "radial", "none")
MARKS = ("hide", "keep")
HYPERSPY = (".zspy", ".hspy")
NETCDF = (".nc",)
TIFF = (".tif", ".tiff")
SMALLEST = 24  # px; in a narrower picture neighbouring spots of a zone axis run into each other
MOST_MASKED = 0.5  # of a picture that may be hidden or not finite
MATCHED = 1e-6  # px^2 by which spots may be narrower than those of training
FINE = 8  # pixels of a picture per pixel of the network; more are averaged first
UNCLEAR_CONTRAST = 0.3  # of `inspection.contrast`, below which bright and dark spots are not told apart for sure
UNCLEAR_CENTRE = 0.1  # lead of a centre over the next best one, below which either may be right
SPACINGS = (3.0, 0.5)  # least and largest distance of neighbouring spots, in pixels and widths of the network's frame
PER_ANGSTROM = {
    "å": 1.0, "a": 1.0, "ang": 1.0, "angstrom": 1.0, "nm": 0.1, "nanometer": 0.1, "µm": 1e-4, "m": 1e-10,
}  # fmt: skip
"""Units of length, with the size of their reciprocal in 1/angstrom."""
VENDORS = (".dm3", ".dm4", ".emd", ".ser", ".emi", ".mrc", ".blo", ".mib", ".tvips", ".de5", ".bw")
"""Extensions of microscopes' and cameras' own files, which HyperSpy reads."""
MANY = 1000  # patterns in a file, from which on their number is told


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
        mask: pixels to ignore, bool (y, x). marks: of `MARKS`, what happens to a scale bar.
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
    marks: str = "hide"


@dataclass(frozen=True)
class Prepared:
    """A picture as the network takes it.

    Attributes:
        grey: float32 (pixels, pixels) in [0, 1].
        assumed: what was assumed or found on the way, in words. doubts: what looks wrong, and how to mend it.
        facts: inverted, centre (x, y) and hidden share of the picture, its pixels per pixel of the network.
    """

    grey: np.ndarray
    assumed: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


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
    if suffix in VENDORS:
        raise ValueError(
            f"{path}: {suffix} is not read here; convert it with HyperSpy, "
            f'hyperspy.api.load("{path.name}").save("{path.stem}.zspy"), which keeps its calibration'
        )
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
            scale = _tiff_scale(file)
            whole = [series for series in file.series if not series.keyframe.is_reduced]
            try:
                frames = [frame for series in whole for frame in _tiff_frames(series, file.is_imagej)]
            except ValueError as error:  # compressed in a way that tifffile decodes with imagecodecs only
                if "imagecodecs" not in str(error):
                    raise
                frames = None
    except (tifffile.TiffFileError, ValueError, KeyError, IndexError, OSError, RuntimeError) as error:
        raise ValueError(f"{path}: does not read as TIFF ({error})") from None
    if frames is None:
        yield from _read_image(path, scale)
        return
    facts = _of_defraction(described)
    for page, (values, notes) in enumerate(frames):
        if facts:
            yield _picture(path, values, _own_index(facts), "linear", **_own_facts(facts, values.shape))
        else:
            kind = "display" if values.dtype in (np.uint8, np.bool_) else "linear"
            yield _picture(path, values, {"page": page} if len(frames) > 1 else {}, kind, scale=scale, notes=notes)


def _tiff_frames(series: Any, indices_count: bool) -> Iterator[tuple[np.ndarray, tuple[str, ...]]]:
    """Pictures of a series, grey, black at 0. `indices_count`: a palette only shows them (ImageJ), it is not theirs."""
    from tifffile import PHOTOMETRIC

    axes, stack, page = series.axes, series.asarray(), series.keyframe
    notes: tuple[str, ...] = ()
    if "S" in axes:  # samples: colours
        stack, notes = _luminance(np.moveaxis(stack, axes.index("S"), -1))
    elif page.photometric == PHOTOMETRIC.PALETTE and not indices_count:
        stack, notes = _luminance((np.moveaxis(page.colormap, 0, -1)[stack] >> 8).astype(np.uint8))
    if page.photometric == PHOTOMETRIC.MINISWHITE and stack.dtype.kind in "bu":
        stack = ~stack
    if stack.ndim < 2:
        raise ValueError(f"an array of shape {stack.shape} is not a picture")
    for values in stack.reshape(-1, *stack.shape[-2:]):
        yield values, notes


def _tiff_scale(file: Any) -> float | None:
    """1/angstrom per pixel, from the tags of Gatan's software and HyperSpy or from ImageJ's; None without."""
    tags = {tag.code: tag.value for tag in file.pages[0].tags} if len(file.pages) else {}
    unit, step = tags.get(65003), tags.get(65009)  # of the x axis
    if unit is None and file.is_imagej and 282 in tags:
        pixels, units = tags[282]  # XResolution
        unit, step = (file.imagej_metadata or {}).get("unit"), units / pixels if pixels else None
    known = None if unit is None or not isinstance(step, int | float) else _per_angstrom(unit)
    return known * abs(step) if known and step else None


def _per_angstrom(unit: Any) -> float | None:
    """Size in 1/angstrom of a unit of reciprocal length in any of its spellings (1/nm, nm^-1, $A^{-1}$); else None."""
    text = unit.decode("latin-1") if isinstance(unit, bytes) else str(unit)
    text = re.sub(r"[\s${}\\\x00]", "", text.lower()).replace("⁻¹", "^-1").replace("\u03bc", "µ").removeprefix("k_")
    found = re.fullmatch(r"1/(\w+)|(\w+?)\^?-1", text)
    return PER_ANGSTROM.get(found[1] or found[2]) if found else None


def _read_image(path: Path, scale: float | None = None) -> Iterator[Picture]:
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
            yield _picture(path, values, {"page": page} if several else {}, kind, scale=scale, notes=notes)


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
    with ExitStack() as stack:
        try:
            if path.suffix.lower() == ".hspy":
                import h5py

                root = stack.enter_context(h5py.File(path, "r"))
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
        if (several := int(np.prod(data.shape[:-2]))) >= MANY:
            log.warning("%s: %d patterns, and each is classified; take a part of them to be quicker", path, several)
        yield from _frames_of_signal(path, signal, data, axes)


def _frames_of_signal(path: Path, signal: Any, data: Any, axes: list[dict]) -> Iterator[Picture]:
    microscope = _attributes(signal, "metadata/Acquisition_instrument/TEM")
    # pyxem keeps centimetres here, HyperSpy millimetres one level above
    diffraction = _attributes(signal, "metadata/Acquisition_instrument/TEM/Detector/Diffraction")
    if "camera_length" in diffraction:
        microscope["camera_length"] = 10.0 * float(diffraction["camera_length"])
    ours = _attributes(signal, "original_metadata/attributes")
    coordinates = signal["original_metadata/coordinates"] if "settings" in ours and "references" in ours else None
    navigated = [axis for axis in axes if axis.get("navigate")]
    centre, scale = _calibration(axes[-1], axes[-2], data.shape[-2:], microscope)
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
    """Centre (x, y) [px] and scale [1/angstrom per px] that two signal axes state; None for what they leave open.

    `microscope` has beam_energy [kV] and camera_length [mm], if they are known.
    """
    step, unit = abs(float(x.get("scale", 1.0))), str(x.get("units", "")).strip().lower()
    energy = microscope.get("beam_energy") or microscope.get("accelerating_voltage")
    length = microscope.get("camera_length")
    scale = None
    if known := _per_angstrom(unit):
        scale = step * known
    elif unit == "mrad" and energy:
        scale = 1e-3 * step / wavelength(float(energy))
    elif unit == "mm" and energy and length:
        scale = step / (float(length) * wavelength(float(energy)))
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

    In this order: masked pixels and drawn marks hidden, contrast, centre, hidden pixels filled from the opposite side
    of the pattern, background, resampling to the pixels of the network, beam stop and display. docs/classify.md
    describes each. Raises ValueError naming the picture if an option does not fit it or nothing is left of it.
    """
    assumed: list[str] = list(picture.notes)
    doubts: list[str] = []
    values, hidden = picture.values, _hidden(picture, options, assumed)
    kind, decades, known = _kind(picture, frame, options, assumed)
    inverted = _is_inverted(picture, hidden, options, assumed, doubts)
    if inverted:
        values = values[~hidden].max() - values
    floor = values[~hidden].min() if kind == "display" and not known else 0.0  # black of an unknown transform
    values = np.where(hidden, 0, np.maximum(values - floor, 0))
    visible = values  # a logarithm, or grey values: so that all spots count, not the brightest alone
    if kind == "linear":
        visible = np.log1p(values / max(float(np.median(values)), 1e-4 * float(values.max())))
    centre = _centre(picture, options, visible, hidden, assumed, doubts)
    if hidden.any():
        values = _fill(values, hidden, centre)
        assumed.append(f"{hidden.mean():.1%} of the pixels are hidden, filled from the opposite side of the pattern")
    if kind == "display":
        values = np.where(values > 0, 10.0 ** (decades * (values / max(float(values.max()), 1e-30) - 1)), 0)
    ratio, scaled = _ratio(picture, frame, options, assumed)
    facts = {"inverted": inverted, "centre": centre, "hidden": float(hidden.mean()), "pixels_per_pixel": ratio}
    step = 1 if picture.ours else max(1, int(ratio / FINE))
    if step > 1:
        values, ratio = inspection.averaged(values, step), ratio / step
        centre = tuple((place - (step - 1) / 2) / step for place in centre)
    if options.background == "radial" or (options.background == "auto" and not picture.ours):
        screen = inspection.averaged(inspection.screen(visible), step) > 0.5
        values = inspection.subtract_background(values, centre, screen)
        assumed.append("background: the median of each ring about the centre")
    shown = resample(values, centre, ratio, frame.pixels, options.rotation)
    if frame.sigma:
        shown = _blurred(shown, values, centre, ratio, step, picture, frame, assumed)
    position = (np.arange(frame.pixels) - (frame.pixels - 1) / 2) * frame.pixel_mm
    grey = display(shown, position, position, frame.beam_stop, frame.decades, np.float16).astype(np.float32)
    if not grey.any():
        raise ValueError(f"{picture.name}: nothing is left outside the beam stop; look at --centre and --background")
    if not picture.ours:
        covered = resample(np.ones(values.shape, np.float32), centre, ratio, frame.pixels, options.rotation) > 0.5
        _doubt_spots(shown, grey, covered & (np.hypot(position[:, None], position) >= frame.beam_stop), scaled, doubts)
    return Prepared(grey, assumed, doubts, facts)


def writer(folder: Path | str) -> Callable[[Picture, np.ndarray], None]:
    """A function that writes grey values as `NNN-NAME.png`, 8 bits, numbered from 1, into `folder`, which it makes.

    Raises ValueError if `folder` cannot be made.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder}: is no folder to write pictures into ({error.strerror})") from None
    number = count(1)

    def write(picture: Picture, grey: np.ndarray) -> None:
        from PIL import Image

        target = folder / f"{next(number):03d}-{Path(picture.file).stem}.png"
        Image.fromarray(np.rint(255 * grey).astype(np.uint8)).save(target)

    return write


def _hidden(picture: Picture, options: Options, assumed: list[str]) -> np.ndarray:
    """Pixels without a value, of the mask, and of a scale bar; bool (y, x)."""
    hidden = picture.hidden.copy()
    if options.mask is not None:
        if options.mask.shape != hidden.shape:
            raise ValueError(
                f"{picture.name}: {hidden.shape[1]} x {hidden.shape[0]} pixels, the mask has "
                f"{options.mask.shape[1]} x {options.mask.shape[0]}"
            )
        hidden |= options.mask
        if hidden.mean() > MOST_MASKED:
            raise ValueError(f"{picture.name}: {hidden.mean():.0%} of the pixels are masked; nothing to classify")
        if picture.values[~hidden].max() == picture.values[~hidden].min():
            raise ValueError(f"{picture.name}: nothing is left beside the mask, all other pixels are equal")
    if options.marks == "hide" and not picture.ours:
        drawn, bars = inspection.drawn_marks(picture.values)
        hidden |= drawn
        for x, y, width, height in bars:
            assumed.append(f"a bar of {width} x {height} pixels at x {x}, y {y} and what stands beside it are hidden")
    return hidden


def _blurred(
    shown: np.ndarray,
    values: np.ndarray,
    centre: tuple[float, float],
    ratio: float,
    step: int,
    picture: Picture,
    frame: Frame,
    assumed: list[str],
) -> np.ndarray:
    """The resampled pattern with spots as wide as those of training, if they were narrower.

    `values`, `centre` and `ratio` are those of the picture after `step` x `step` pixels were averaged.
    """
    width = picture.sigma
    if width is None:
        width = inspection.spot_width(values, centre, frame.beam_stop / frame.pixel_mm * ratio)
    missing = frame.sigma**2 - (width / ratio) ** 2
    if picture.sigma is None:
        assumed.append(
            f"spots {step * width:.1f} pixels wide (standard deviation)"
            + (", blurred to those of the training patterns" if missing > MATCHED else "")
        )
    if missing <= MATCHED:
        return shown
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(shown, np.sqrt(missing), mode="constant")


def _doubt_spots(shown: np.ndarray, grey: np.ndarray, counted: np.ndarray, scaled: bool, doubts: list[str]) -> None:
    """What speaks against these spots: one without its opposite, and distances that the network does not know."""
    if inspection.is_lonely(shown, counted):
        doubts.append(
            "the brightest place has nothing opposite: a scale bar, text or a wrong centre? "
            "use --mask and --centre; or the crystal is tilted"
        )
    spacing = inspection.spot_spacing(grey)
    least, largest = SPACINGS[0], SPACINGS[1] * len(grey)
    if not scaled and not least <= spacing <= largest:
        found = f"{spacing:.1f} pixels of the network apart" if np.isfinite(spacing) else "at no regular distance"
        doubts.append(
            f"its spots are {found}; in training, {least:g} to {largest:g}: "
            + ("cut out the middle of the picture" if spacing < least else "show more of the pattern")
            + ", or state its scale, --pixel-size"
        )


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


def _is_inverted(picture: Picture, hidden: np.ndarray, options: Options, assumed: list[str], doubts: list[str]) -> bool:
    """Whether spots are dark on a bright background."""
    if options.contrast != "auto" or picture.ours:
        return options.contrast == "dark"
    found = inspection.contrast(picture.values, ~hidden)
    if found < 0:
        assumed.append("dark spots on a bright background: inverted")
    if abs(found) < UNCLEAR_CONTRAST:
        doubts.append("whether its spots are bright or dark is not clear: look, and use --contrast")
    return found < 0


def _centre(
    picture: Picture,
    options: Options,
    visible: np.ndarray,
    hidden: np.ndarray,
    assumed: list[str],
    doubts: list[str],
) -> tuple[float, float]:
    height, width = visible.shape
    if options.centre is not None:
        x, y = options.centre
        if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
            raise ValueError(f"{picture.name}: --centre {x:g} {y:g} lies outside of {width} x {height} pixels")
        return x, y
    if picture.centre is not None:
        if not picture.ours:
            x, y = picture.centre
            assumed.append(f"centre: x {x:.1f}, y {y:.1f}, where the file has its origin")
        return picture.centre
    if not options.find_centre:
        assumed.append("centre: the middle of the picture")
        return (width - 1) / 2, (height - 1) / 2
    found = inspection.find_centre(visible, ~hidden)
    assumed.append(
        f"centre: x {found.x:.1f}, y {found.y:.1f}, about which the picture is most nearly its own inversion"
    )
    if found.rival is not None and found.lead < UNCLEAR_CENTRE:
        x, y = found.rival
        doubts.append(f"another centre, x {x:.0f}, y {y:.0f}, fits nearly as well: look, and use --centre")
    return found.x, found.y


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


def _ratio(picture: Picture, frame: Frame, options: Options, assumed: list[str]) -> tuple[float, bool]:
    """Pixels of the picture per pixel of the network, and whether that follows from its scale."""
    size = min(picture.values.shape)
    stated = options.scale if options.width is None else options.width / picture.values.shape[1]
    scale = stated if stated is not None else picture.scale
    if scale is None or frame.scales is None:
        what = "its scale is not known" if scale is None else "the model does not say which scales it knows"
        if frame.pixels != size or scale is None:
            assumed.append(f"{what}: the largest centred square fills the {frame.pixels} pixels of the network")
        return size / frame.pixels, False
    if stated is None and not picture.ours:
        assumed.append(f"scale: {scale:.5f} 1/Å per pixel, as the file states")
    # the whole picture fills the frame if the network knows such a scale, else the nearest scale that it knows
    lowest, highest = frame.scales
    wanted = scale * size / frame.pixels
    if lowest * (1 - 1e-3) <= wanted <= highest * (1 + 1e-3):
        return size / frame.pixels, True
    taken = float(np.clip(wanted, lowest, highest))
    what = "less" if taken < wanted else "more"
    assumed.append(
        f"shown at {taken:.4f} 1/Å per pixel, the nearest that the network knows: {what} than the whole picture"
    )
    return taken / scale, True


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
