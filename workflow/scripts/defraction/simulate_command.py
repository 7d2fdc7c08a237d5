"""The commands `defraction simulate` and `defraction reflections`: from structures to patterns and lists of spots."""

import contextlib
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

logger = logging.getLogger(__name__)

SUFFIXES = (".nc", ".zspy", ".hspy")
LARGE_CELL = 2000  # atoms above which the default repeat is probably not meant
GROUPED = {"--zone-axis": 3, "--debye-waller": 2}
OPTIONS = {
    "zone_axes": "--zone-axis", "voltages": "--voltage", "camera_lengths": "--camera-length", "pixels": "--size",
    "scattering_factors": "--table", "average_snapshots": "--average",
}  # fmt: skip
"""Options whose names are not those of the configuration's keys."""
KEYS = (
    *OPTIONS, "method", "model", "detector_width", "response_sigma", "tilt", "rotation", "convergence", "shape",
    "debye_waller", "repeat", "device", "memory", "g_max",
)  # fmt: skip


class GroupedCommand(TyperCommand):
    """A command with repeatable options that take several values each, which Typer has not: `--zone-axis -1 1 0`.

    The values are joined to one, `"-1 1 0"`, which may also be given as such.
    """

    def parse_args(self, ctx, args):
        joined, rest = [], list(args)
        while rest:
            argument = rest.pop(0)
            joined.append(argument)
            if argument == "--":
                joined += rest
                break
            if argument in GROUPED and rest and " " not in rest[0].strip():
                count = GROUPED[argument]
                if len(rest) < count:
                    ctx.fail(f"{argument} takes {count} values.")
                joined.append(" ".join(rest[:count]))
                del rest[:count]
        return super().parse_args(ctx, joined)


Structures = Annotated[
    list[Path],
    typer.Argument(
        metavar="STRUCTURE...",
        help="structure files of any kind that ASE reads (CIF, XYZ, POSCAR ...); several frames or files are snapshots",
        show_default=False,
    ),
]
ZoneAxes = Annotated[
    list[str] | None,
    typer.Option(
        "--zone-axis",
        metavar="U V W",
        help="direction of the electrons in the reference cell; repeatable [default: 16 axes, 0 0 1 to 2 3 3]",
    ),
]
Voltages = Annotated[
    list[float] | None,
    typer.Option("--voltage", metavar="KV", help="accelerating voltage [kV]; repeatable [default: 120, 200, 300]"),
]
CameraLengths = Annotated[
    list[float] | None,
    typer.Option("--camera-length", metavar="M", help="camera length [m]; repeatable [default: 0.5, 0.8, 1.2]"),
]
Size = Annotated[int | None, typer.Option(metavar="N", help="pixels along each edge of the pattern [default: 256]")]
DetectorWidth = Annotated[float | None, typer.Option(metavar="MM", help="width of the detector [mm] [default: 63.5]")]
Table = Annotated[
    str | None,
    typer.Option(metavar="c4322|lobato|kirkland|peng", help="electron scattering factors [default: c4322]"),
]


def simulate(
    structures: Structures,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=".nc: netCDF; .zspy or .hspy: HyperSpy/pyxem signal",
            show_default=False,
        ),
    ],
    repeat: Annotated[
        tuple[int, int, int] | None,
        typer.Option(
            metavar="A B C",
            help="cells along a, b, c that make the specimen [default: what the file states, else 40 30 20]",
            show_default=False,
        ),
    ] = None,
    zone_axis: ZoneAxes = None,
    voltage: Voltages = None,
    camera_length: CameraLengths = None,
    size: Size = None,
    detector_width: DetectorWidth = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="auto|laue|nufft|direct|spots|multislice",
            help="how patterns are computed; multislice is dynamical and needs abTEM [default: auto]",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="physical|article",
            help="curved Ewald sphere and sharp block, or flat plane and smooth beam [default: physical]",
        ),
    ] = None,
    table: Table = None,
    device: Annotated[
        str | None, typer.Option(metavar="auto|cpu|gpu", help="where to compute [default: auto, a GPU if there is one]")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(metavar="GIB", help="memory for a batch of patterns [GiB] [default: 2]")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="DIR", help="also write every pattern as PNG (logarithm, 16 bits)")
    ] = None,
    tiff: Annotated[
        Path | None, typer.Option(metavar="DIR", help="also write every pattern as TIFF (float32 intensities)")
    ] = None,
    tilt: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="X Y",
            help="tilt of the specimen about the pattern's x, then y axis [mrad] [default: 0 0]",
            show_default=False,
        ),
    ] = None,
    rotation: Annotated[
        float | None,
        typer.Option(metavar="DEG", help="in-plane rotation of the crystal, x towards y [degree] [default: 0]"),
    ] = None,
    convergence: Annotated[
        float | None, typer.Option(metavar="MRAD", help="semi-angle of the illumination [mrad] [default: 0]")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(metavar="block|cylinder|sphere", help="outline cut from the block [default: block]"),
    ] = None,
    debye_waller: Annotated[
        list[str] | None,
        typer.Option(
            "--debye-waller", metavar="ELEMENT B", help="Debye-Waller factor B [Å^2] of an element; repeatable"
        ),
    ] = None,
    response_sigma: Annotated[
        float | None,
        typer.Option(metavar="PX", help="Gaussian detector response, standard deviation [px] [default: 0.5]"),
    ] = None,
    average: Annotated[
        bool | None, typer.Option("--average", help="store the mean of the intensities over all snapshots")
    ] = None,
) -> None:
    """Simulate the electron diffraction patterns of crystals, every zone axis at every voltage and camera length.

    What is not given takes the value of the default configuration (config/README.md). The file is described in
    docs/data-format.md, axes and signs in docs/conventions.md.
    """
    _check_output(output, SUFFIXES)
    for folder in (png, tiff):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder}: is a file, not a folder for images")
    settings = _section(
        "Diffraction",
        zone_axes=zone_axis and [_whole_numbers("--zone-axis", text) for text in zone_axis],
        voltages=voltage or None,
        camera_lengths=camera_length or None,
        detector_width=detector_width,
        pixels=size,
        method=method,
        model=model,
        scattering_factors=table,
        tilt=tilt,
        rotation=rotation,
        convergence=convergence,
        shape=shape,
        debye_waller=debye_waller and dict(_element_factor(text) for text in debye_waller),
        response_sigma=response_sigma,
        average_snapshots=average,
    )
    runtime = _section("Runtime", device=device, memory=memory)
    repeat = repeat and tuple(_section("Specimen", repeat=repeat)["repeat"])
    progress_bar = sys.stderr.isatty()
    _log_to_terminal(logging.WARNING if progress_bar else logging.INFO)
    images, names, source = _read(structures, repeat)

    from defraction import export
    from defraction.diffraction import patterns

    start = time.perf_counter()
    with _naming_options(), _whole_file(output) as partial, contextlib.ExitStack() as stack:
        netcdf = partial
        if output.suffix != ".nc":
            netcdf = stack.enter_context(_whole_file(output.with_name(output.name + ".nc"), keep=False))
        progress = stack.enter_context(_progress(source)) if progress_bar else None
        patterns.write_patterns(
            images,
            netcdf,
            settings,
            runtime["device"],
            runtime["memory"],
            source,
            progress=progress,
            names=names,
            snapshots=len(images) > len(structures),
        )
        if output.suffix != ".nc":
            export.write_signal(netcdf, partial)
        for folder, kind in ((png, "png"), (tiff, "tiff")):
            if folder is not None:
                export.write_images(netcdf, folder, kind)
        with patterns.read_patterns(netcdf) as file:
            name, count = file.getncattr("method"), file["intensity"][..., 0, 0].size
    typer.echo(f"{name}: {count} patterns in {time.perf_counter() - start:.1f} s, {output}")


def reflections(
    structure: Annotated[Path, typer.Argument(help="structure file; of several frames the first", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="table (.csv)", show_default=False)],
    zone_axis: Annotated[
        tuple[int, int, int] | None,
        typer.Option(
            metavar="U V W",
            help="add excitation error and position on the detector for electrons along this direction",
            show_default=False,
        ),
    ] = None,
    voltage: Annotated[
        float | None, typer.Option(metavar="KV", help="accelerating voltage [kV] [default: 200]")
    ] = None,
    camera_length: Annotated[float | None, typer.Option(metavar="M", help="camera length [m] [default: 0.8]")] = None,
    size: Size = None,
    detector_width: DetectorWidth = None,
    g_max: Annotated[float, typer.Option(metavar="G", help="longest g = 1/d [1/Å]")] = 2.0,
    table: Table = None,
) -> None:
    """List the reflections of a crystal with their structure factors, and where its spots lie on a detector.

    Voltage and camera length default to the middle ones of the default configuration.
    """
    _check_output(output, (".csv",))
    beam_options = {
        "--voltage": voltage, "--camera-length": camera_length, "--size": size, "--detector-width": detector_width
    }  # fmt: skip
    given = [option for option, value in beam_options.items() if value is not None]
    if zone_axis is None and given:
        raise ValueError(f"{given[0]}: places spots on a detector, which needs a --zone-axis")
    settings = _section(
        "Diffraction",
        zone_axes=zone_axis and [zone_axis],
        voltages=voltage and [voltage],
        camera_lengths=camera_length and [camera_length],
        detector_width=detector_width,
        pixels=size,
        scattering_factors=table,
    )
    _log_to_terminal(logging.WARNING)

    from defraction.diffraction.geometry import Detector
    from defraction.diffraction.reflections import reflections as list_reflections
    from defraction.diffraction.reflections import write_csv
    from defraction.diffraction.scattering import Factors
    from defraction.structures import read_structures

    images = read_structures(structure)
    if len(images) > 1:
        logger.warning("%s: holds %d structures; the first is taken", structure, len(images))
    beam = {}
    if zone_axis is not None:
        voltages, lengths = sorted(settings["voltages"]), sorted(settings["camera_lengths"])
        beam = {
            "zone_axis": zone_axis,
            "voltage": voltages[len(voltages) // 2],
            "detector": Detector(lengths[len(lengths) // 2], settings["detector_width"], settings["pixels"]),
        }
    with _naming_options(), _whole_file(output) as partial:
        found = list_reflections(images[0], g_max, Factors(settings["scattering_factors"]), **beam)
        write_csv(partial, found)
    typer.echo(f"{len(found['h'])} reflections, {output}")


def _check_output(output: Path, suffixes: tuple[str, ...]) -> None:
    if output.suffix not in suffixes:
        raise ValueError(f"{output}: give an output that ends in {' or '.join(suffixes)}")
    if not output.parent.is_dir():
        raise ValueError(f"{output}: there is no folder {output.parent}; make it first")
    if not os.access(output.parent, os.W_OK):
        raise ValueError(f"{output}: the folder {output.parent} cannot be written to")
    store = output.suffix == ".zspy"
    if output.is_dir() and not (store and (output / ".zgroup").is_file()):
        raise ValueError(f"{output}: is a folder; give another name")


def _section(name: str, **given: Any) -> dict:
    """Return a section of the configuration, its defaults replaced by what is given; ValueError names the option."""
    from pydantic import ValidationError

    from defraction import config

    try:
        section = getattr(config, name)(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        fault = error.errors()[0]
        message = fault["msg"].removeprefix("Value error, ")
        if fault["loc"]:
            message = f"{fault['loc'][0]}: {message[0].lower()}{message[1:]}"
        found = "" if fault["type"] == "value_error" else f" (found {fault['input']!r})"
        raise ValueError(_with_option(message) + found) from None
    return config.plain(section)


def _with_option(message: str) -> str:
    """Put the option in the place of the configuration's key with which a message begins."""
    key, colon, rest = message.partition(": ")
    option = OPTIONS.get(key, f"--{key.replace('_', '-')}")
    return f"{option}{colon}{rest}" if colon and key in KEYS else message


@contextlib.contextmanager
def _naming_options() -> Iterator[None]:
    """Let faults in the settings name the options of the command."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise ValueError(_with_option(str(error))) from error


def _whole_numbers(option: str, text: str) -> list[int]:
    try:
        numbers = [int(word) for word in text.split()]
    except ValueError:
        numbers = []
    if len(numbers) != 3:
        raise ValueError(f"{option}: {text!r} is not three whole numbers, such as -1 1 0")
    return numbers


def _element_factor(text: str) -> tuple[str, float]:
    element, _, value = text.partition(" ")
    try:
        return element, float(value)
    except ValueError:
        raise ValueError(f"--debye-waller: {text!r} is not an element and a number, such as Al 0.8") from None


def _log_to_terminal(level: int) -> None:
    """Show our own messages from ``level`` on stderr; those of other packages from warnings on."""
    handler = logging.StreamHandler()
    handler.setLevel(level)
    logging.basicConfig(format="defraction: %(message)s", handlers=[handler])
    logging.getLogger("defraction").setLevel(logging.INFO)


def _read(paths: list[Path], repeat: tuple[int, int, int] | None) -> tuple[list, list[str], str]:
    """Return the structures of all files with their ``info["repeat"]`` set, their names, and a name for all."""
    from defraction import config
    from defraction.structures import read_structures

    images, names = [], []
    for path in paths:
        frames = read_structures(path)
        chosen = repeat
        if chosen is None and not _states_repeat(path):
            chosen = config.Specimen().repeat
            if len(frames[0]) > LARGE_CELL:
                times = " x ".join(map(str, chosen))
                logger.warning(
                    "%s: its cell of %d atoms is repeated %s times, the default; --repeat 1 1 1 keeps it single",
                    path,
                    len(frames[0]),
                    times,
                )
        for atoms in frames:
            if chosen is not None:
                atoms.info["repeat"] = list(chosen)
        images += frames
        several = len(frames) > 1
        names += [f"{path.name}, snapshot {i}" if several else path.name for i in range(len(frames))]
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return images, names, ", ".join(path.name for path in paths[:3]) + more


def _states_repeat(path: Path) -> bool:
    """Return whether the file itself says how often its cell is repeated, be it once."""
    if path.suffix.lower() == ".cif":
        return "_defraction_repeat" in path.read_text(errors="replace")
    from ase.io import read

    return "repeat" in read(path, index=0).info


@contextlib.contextmanager
def _whole_file(path: Path, keep: bool = True) -> Iterator[Path]:
    """Give a temporary name beside ``path`` that becomes ``path`` only when the body ends well (never if not ``keep``).

    A termination signal ends the body like an exception, so that nothing is left.
    """
    from defraction.job import temporary

    partial = temporary(path, os.getpid())
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit("defraction: terminated"))
    try:
        yield partial
        if keep:
            _remove(path) if path.is_dir() else None
            os.replace(partial, path)
    finally:
        _remove(partial)
        signal.signal(signal.SIGTERM, previous)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _progress(source: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on the terminal, with the latest message of the log beside it.

    Gives the function that moves it: (patterns done, patterns in all).
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(source, total=None)
        messages = logging.Handler(logging.INFO)
        messages.emit = lambda record: bar.update(task, description=record.getMessage())
        logging.getLogger("defraction").addHandler(messages)
        try:
            yield lambda done, total: bar.update(task, completed=done, total=total)
        finally:
            logging.getLogger("defraction").removeHandler(messages)
