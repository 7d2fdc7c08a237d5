"""The command `defraction classify`: from pictures of one crystal to its space group."""

import json
import logging
import math
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

MODEL = Path(__file__).resolve().parents[3] / "resources/models/resnet101-clean"
SYMBOLS = {"213": "P4_132", "221": "Pm-3m", "225": "Fm-3m", "227": "Fd-3m", "229": "Im-3m"}
DEVICES = ("auto", "cpu", "gpu")
NUMBER = r"(?<![\w.])-?\d+(?:\.\d+)?(?!\w)"


def classify(
    patterns: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATTERN...",
            help="patterns of one crystal: PNG, JPEG, TIFF, netCDF of ours (.nc), HyperSpy (.zspy, .hspy)",
            show_default=False,
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="folder with a trained model [default: the one that is shipped]", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    intensity: Annotated[
        str | None,
        typer.Option(
            metavar="linear|display",
            help="what the numbers are: proportional to intensity, or grey values of a picture "
            "[default: what the file states; 8 bits display, else linear]",
        ),
    ] = None,
    decades: Annotated[
        float | None,
        typer.Option(metavar="D", help="grey values are a logarithm over D decades of intensity [default: not known]"),
    ] = None,
    centre: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="X Y",
            help="the direct beam in pixels, 0 0 the middle of the upper left one "
            "[default: found by inversion symmetry]",
            show_default=False,
        ),
    ] = None,
    find_centre: Annotated[
        bool, typer.Option("--find-centre/--middle", help="look for the centre, or take the middle of the picture")
    ] = True,
    pixel_size: Annotated[
        float | None, typer.Option(metavar="K", help="width of a pixel [1/Å]; k = 1/d [default: not known]")
    ] = None,
    pixel_angle: Annotated[
        float | None, typer.Option(metavar="MRAD", help="width of a pixel [mrad]; needs --voltage")
    ] = None,
    camera_length: Annotated[
        float | None, typer.Option(metavar="M", help="camera length [m]; needs --voltage and --detector-width")
    ] = None,
    detector_width: Annotated[float | None, typer.Option(metavar="MM", help="width of the picture [mm]")] = None,
    voltage: Annotated[float | None, typer.Option(metavar="KV", help="accelerating voltage [kV]")] = None,
    contrast: Annotated[
        str, typer.Option(metavar="auto|bright|dark", help="spots are brighter or darker than the background")
    ] = "auto",
    background: Annotated[
        str,
        typer.Option(
            metavar="auto|radial|none",
            help="subtract the median of each ring about the centre; auto: not from patterns of ours",
        ),
    ] = "auto",
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="image or .npy; pixels that are not 0 are ignored (beam stop)", show_default=False
        ),
    ] = None,
    marks: Annotated[
        str, typer.Option(metavar="hide|keep", help="hide a scale bar that was drawn into the picture, or keep it")
    ] = "hide",
    rotation: Annotated[float, typer.Option(metavar="DEG", help="turn the pictures first, x towards y [degree]")] = 0.0,
    copies: Annotated[int, typer.Option(metavar="N", help="turned copies that are averaged")] = 1,
    device: Annotated[str, typer.Option(metavar="auto|cpu|gpu", help="where to compute")] = "auto",
    seen: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="write what the network is shown of each pattern as PNG, to look at", show_default=False
        ),
    ] = None,
) -> None:
    """Say which space group diffraction patterns of one crystal show: 213, 221, 225, 227 or 229.

    Prints the label and the space groups of each pattern, of all together, and a warning where a pattern looks unlike
    anything the network was trained on. What it assumes and cannot do: docs/classify.md.
    """
    from defraction import pictures

    _one_of("--intensity", intensity, (None, *pictures.INTENSITIES))
    _one_of("--contrast", contrast, pictures.CONTRASTS)
    _one_of("--background", background, pictures.BACKGROUNDS)
    _one_of("--marks", marks, pictures.MARKS)
    _one_of("--device", device, DEVICES)
    if copies < 1:
        raise ValueError(f"--copies: {copies} is less than 1")
    for option, value in (("--decades", decades), ("--pixel-size", pixel_size), ("--pixel-angle", pixel_angle),
                          ("--camera-length", camera_length), ("--detector-width", detector_width),
                          ("--voltage", voltage)):  # fmt: skip
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{option}: {value:g} is not a positive number")
    if decades is not None and intensity == "linear":
        raise ValueError("--decades: says how grey values were made; leave out --intensity linear")
    if not math.isfinite(rotation) or (centre is not None and not all(map(math.isfinite, centre))):
        raise ValueError("--rotation and --centre take finite numbers")
    logging.basicConfig(format="defraction: %(message)s", level=logging.WARNING)
    hidden = None if mask is None else pictures.read_mask(mask)
    kind = intensity or ("display" if decades else None)
    scale, width = _scale(pixel_size, pixel_angle, camera_length, detector_width, voltage)
    options = pictures.Options(
        kind, decades, centre, find_centre, scale, width, contrast, background, rotation, hidden, marks
    )
    found = [_opened(pictures.read_pictures(path)) for path in patterns]

    from defraction.learning.classify import Classifier
    from defraction.learning.classify import classify as run

    classifier = Classifier.load(_model(model), device)
    shown = None if seen is None else pictures.writer(seen)
    result = run(classifier, chain.from_iterable(found), options, copies, shown)
    typer.echo(json.dumps(result, indent=1) if as_json else "\n".join(_lines(result)))


def _one_of(option: str, value: str | None, allowed: tuple) -> None:
    if value not in allowed:
        raise ValueError(f"{option}: {value!r} is not one of {', '.join(filter(None, allowed))}")


def _opened(pictures: Iterator[Any]) -> Iterator[Any]:
    """The pictures of a file, the first of them read now, so that a file that is none fails before the model loads."""
    first = next(pictures, None)
    return pictures if first is None else chain([first], pictures)


def _model(given: Path | None) -> Path:
    """The folder of the model; ValueError that says how to get one if there is none."""
    folder = MODEL if given is None else given
    if (folder / "model.safetensors").is_file() and (folder / "card.json").is_file():
        return folder
    what = "the model that is shipped is not there" if given is None else "there is no model in this folder"
    raise ValueError(
        f"{folder}: {what} (model.safetensors, card.json); train one with `make run` and name its folder, --model "
        "results/models/NAME, or ship it with `defraction export-model results/models/NAME "
        "resources/models/resnet101-clean`"
    )


def _scale(
    pixel_size: float | None,
    pixel_angle: float | None,
    camera_length: float | None,
    detector_width: float | None,
    voltage: float | None,
) -> tuple[float | None, float | None]:
    """Scale [1/Å per pixel], or width of the whole picture [1/Å], from the options that state one of them."""
    from defraction.diffraction.geometry import wavelength

    on_detector = camera_length is not None or detector_width is not None
    if (pixel_size is not None) + (pixel_angle is not None) + on_detector > 1:
        raise ValueError(
            "the scale is given twice: --pixel-size, --pixel-angle, or --camera-length with --detector-width"
        )
    if pixel_size is not None:
        return pixel_size, None
    if pixel_angle is not None:
        if voltage is None:
            raise ValueError("--pixel-angle: needs --voltage to become 1/Å")
        return 1e-3 * pixel_angle / wavelength(voltage), None
    if not on_detector:
        if voltage is not None:
            raise ValueError(
                "--voltage: sets the scale only with --pixel-angle, or with --camera-length and --detector-width"
            )
        return None, None
    if camera_length is None or detector_width is None or voltage is None:
        raise ValueError("a scale from the detector needs all of --camera-length, --detector-width and --voltage")
    return None, 1e-3 * detector_width / (camera_length * wavelength(voltage))


def _lines(result: dict[str, Any]) -> list[str]:
    """The answer for people: each pattern with its warnings and, once, what was assumed; then all together."""
    lines = []
    names = [_name(pattern) for pattern in result["patterns"]]
    width = min(60, max(map(len, names)))
    for name, pattern in zip(names, result["patterns"], strict=True):
        likeliest = pattern["probabilities"][str(pattern["label"])]
        lines.append(f"{name:{width}}  {likeliest:4.0%} {pattern['label_name']}  ({_groups(pattern, 3, 0.05)})")
        if pattern["warning"]:
            lines.append(f"  warning: {pattern['warning']}")
        lines += [f"  doubt: {text}" for text in pattern["doubts"]]
    if any(pattern["warning"] for pattern in result["patterns"]):
        lines.append(_worth(result["model"]["open_set"]))
    lines += _assumed([pattern["assumed"] for pattern in result["patterns"]])
    together = result["ensemble"]
    count, limit = together["patterns"], together["limit_space_group"]
    lines.append(f"space group ({count} pattern{'s' if count > 1 else ''}): {_groups(together, 5, 0.0)}")
    if together["warning"]:
        lines.append(f"  warning: {together['warning']}")
    if limit is None:
        lines.append("  doubt: no space group has all of these labels, so at least one of them is wrong")
    elif limit < 0.995:
        which, average = ("this label" if count == 1 else "these labels"), result["model"]["single_pattern_limit"]
        lines.append(
            f"  limit of geometry: who knows {which} is right about the space group in {limit:.0%} of cases"
            + (f" ({average:.0%} for one pattern on average)" if count == 1 else "")
            + "; give other zone axes"
        )
    return lines


def _worth(measured: dict[str, Any]) -> str:
    """How far a warning is to be trusted, for people."""
    other, noise = (measured["families"][name] for name in ("other_system", "noise"))
    unseen = measured["unseen_crystals"]
    known = (
        f"{unseen['flagged']:.0%} of the patterns of {unseen['crystals']} crystals of its own groups that it never saw"
        if unseen
        else f"{measured['false_alarms']:.0%} of known patterns"
    )
    return (
        f"the warning was measured: it comes for {known}, "
        f"{other['flagged']:.0%} of those of other crystal systems (AUROC {other['auroc']:.2f}) "
        f"and {noise['flagged']:.0%} of noise"
    )


def _assumed(texts: list[list[str]]) -> list[str]:
    """What was assumed for the patterns, one line for texts that differ in numbers only, with the range of each."""
    alike: dict[str, list[list[str]]] = {}
    for text in chain.from_iterable(texts):
        alike.setdefault(re.sub(NUMBER, "{}", text), []).append(re.findall(NUMBER, text))
    lines = []
    for words, found in alike.items():
        ranges = []
        for same in zip(*found, strict=True):
            low, high = min(same, key=float), max(same, key=float)
            ranges.append(low if low == high else f"{low} to {high}")
        lines.append(f"assumed: {words.format(*ranges)}" + (f" ({len(found)} patterns)" if len(found) > 1 else ""))
    return lines


def _name(pattern: dict[str, Any]) -> str:
    index = dict(pattern["index"])
    parts = ["[" + " ".join(map(str, index.pop("zone_axis"))) + "]"] if "zone_axis" in index else []
    parts += [f"{value:g} kV" for value in [index.pop("voltage_kV", None)] if value is not None]
    parts += [f"{value:g} m" for value in [index.pop("camera_length_m", None)] if value is not None]
    parts += [f"{key} {value}" for key, value in index.items()]
    return " ".join([pattern["file"], *parts])


def _groups(answer: dict[str, Any], most: int, least: float) -> str:
    ranked = sorted(answer["space_group_probabilities"].items(), key=lambda pair: (-pair[1], pair[0]))
    kept = [pair for pair in ranked[:most] if pair[1] >= least] or ranked[:1]
    return ", ".join(f"{group} {SYMBOLS.get(group, '')} {p:.1%}" for group, p in kept)
