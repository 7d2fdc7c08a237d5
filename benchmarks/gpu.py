"""Checks and times the GPU engine on the GPU of this machine: python benchmarks/gpu.py [--output benchmarks/results]

All at 200 kV, 0.8 m, 256 px over 63.5 mm, 96,000 atoms of aluminium, batches of 144 patterns (16 zone axes), warm,
results left on the device. Writes gpu.json and gpu.md. Without a GPU it says so and ends with status 2.

The floor that speeds are compared with is what the card could do at best:

* laue: instruction slots over the lanes' rate. A fine sample takes 110 slots (three lattice sums with two sines each,
  the interpolation of F_cell, the weights), an atom of the cell 30 slots per coarse sample. The rate is multiprocessors
  x 128 lanes x clock: 33e12 a second on an H200.
* nufft: bytes over the measured rate of a copy on the device, plus the multiplications of the spreading at the lanes'
  rate. A plane is written by the spreading, read and written twice by its transform, and its part inside the grid is
  read once; the samples are written and read once.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow/scripts"))

from defraction.diffraction import geometry, gpu_laue, gpu_planes, kernels, laue, planes
from defraction.diffraction.backend import Backend, select_backend
from defraction.diffraction.geometry import Beam, Detector
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import Specimen, View

SIGMA = 0.5
FACTORS = Factors()
AXES = [
    (0, 0, 1), (0, 1, 1), (1, 1, 1), (0, 1, 2), (1, 1, 2), (0, 1, 3), (1, 2, 2), (1, 1, 3), (1, 2, 3), (2, 2, 3),
    (0, 2, 3), (1, 3, 3), (2, 3, 3), (1, 1, 4), (1, 3, 4), (0, 1, 4),
]  # fmt: skip
SLOTS_PER_SAMPLE, SLOTS_PER_ATOM = 110, 30
LANES = 128  # single-precision lanes of a multiprocessor, on every card since 2017 but two
TARGETS = {"laue, 4 atoms": 30_000, "laue, 108 atoms": 4_000, "nufft, 96,000 atoms": 800}


def main() -> int:
    parser = argparse.ArgumentParser(description="check and time the GPU engine", allow_abbrev=False)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results", help="folder")
    parser.add_argument("--memory", type=float, default=4.0, help="memory budget on the device [GiB]")
    parser.add_argument("--repeats", type=int, default=7, help="timed repetitions, of which the median counts")
    arguments = parser.parse_args()
    if not arguments.memory > 0.0 or arguments.repeats < 1:
        parser.error("--memory has to be positive and --repeats at least 1")
    try:
        backend = select_backend("gpu")
    except RuntimeError as error:
        print(f"no GPU, nothing measured: {error}", file=sys.stderr)
        return 2
    result = {"machine": machine(backend), "settings": {"memory_gib": arguments.memory, "repeats": arguments.repeats}}
    print(f"{backend.name}: checks")
    result["checks"] = checks(backend)
    result["cases"] = [
        case(name, method, views, beams, backend, arguments.memory, arguments.repeats, result["machine"])
        for name, method, views, beams in cases()
    ]
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "gpu.json").write_text(json.dumps(result, indent=2) + "\n")
    text = report(result)
    (arguments.output / "gpu.md").write_text(text)
    print(text)
    wrong = [name for name, check in result["checks"].items() if not check["passed"]]
    if wrong:
        print(f"failed: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def electrons(voltage=200.0, camera_length=0.8, width=63.5, pixels=256, flat=False, direction=(0.0, 0.0)) -> Beam:
    return Beam(1.0 / geometry.wavelength(voltage), Detector(camera_length, width, pixels), flat, direction)


def aluminium(cells: tuple[int, int, int], repeat: tuple[int, int, int], displacement: float) -> Specimen:
    """A supercell of ``cells`` unit cells, displaced by ``displacement`` [Å] per axis, repeated ``repeat`` times."""
    unit = bulk("Al", "fcc", 4.05, cubic=True)
    atoms = unit.repeat(cells)
    atoms.positions += np.random.default_rng(1).normal(scale=displacement, size=(len(atoms), 3))
    atoms.info |= {"repeat": list(repeat), "reference_cell": unit.cell[:].tolist()}
    return Specimen.from_atoms(atoms)


def cases():
    """Yield name, method, views and beams of every timed batch of 144 patterns."""
    specimens = {
        "laue, 4 atoms": ("laue", aluminium((1, 1, 1), (40, 30, 20), 0.0)),
        "laue, 108 atoms": ("laue", aluminium((3, 3, 3), (13, 10, 7), 0.1)),
        "nufft, 96,000 atoms": ("nufft", aluminium((40, 30, 20), (1, 1, 1), 0.1)),
    }
    condition = [electrons(v, length) for v in (120.0, 200.0, 300.0) for length in (0.5, 0.8, 1.2)]
    for name, (method, specimen) in specimens.items():
        views = [specimen.view(axis) for axis in AXES]
        for title, beams in ((name, [electrons() for _ in range(9)]), (f"{name}, 3 kV x 3 m", condition)):
            yield title, method, [view for view in views for _ in beams], beams * len(views)


# --- checks


def random_crystal(cell, atoms: int, repeat) -> Specimen:
    points = np.random.default_rng(3).random((atoms, 3))
    crystal = Atoms([("Al", "Fe", "Au")[i % 3] for i in range(atoms)], cell=cell, scaled_positions=points, pbc=True)
    crystal.info |= {"repeat": list(repeat), "reference_cell": np.diag([4.05] * 3).tolist()}
    return Specimen.from_atoms(crystal)


def checks(backend: Backend) -> dict:
    """Compare with the CPU and with a second run; every entry has ``passed``."""
    cell = random_crystal([[3.9, 0, 0], [0.7, 4.4, 0], [-0.5, 0.6, 5.1]], 7, (17, 15, 14))
    plate = random_crystal([[33.9, 0, 0], [4.7, 24.4, 0], [-0.5, 0.6, 5.1]], 200, (1, 1, 9))
    found = {}
    for method, specimen, compute, cpu, bound in (
        ("laue", cell, gpu_laue.laue_intensities, laue.intensities, 1e-5),
        ("nufft", plate, gpu_planes.nufft_intensities, planes.intensities, 1e-5),
    ):
        for model in ("physical", "article"):
            flat = model == "article"
            beams = [electrons(pixels=128, flat=flat), electrons(300.0, 0.5, 63.5, 128, flat, (0.004, -0.002))] * 3
            views = [specimen.view(axis, model) for axis in ((0, 0, 1), (1, 1, 2), (2, 3, 3)) for _ in range(2)]
            images = compute(views, beams, SIGMA, FACTORS, backend, 1.0)
            again = compute(views, beams, SIGMA, FACTORS, backend, 1.0)
            for name, reference in ((f"the CPU's {method}", cpu), ("the CPU's laue", laue.intensities)):
                error = largest_error(images, reference(views, beams, SIGMA, FACTORS))
                found[f"{method}, {model}, against {name}"] = {"error": error, "bound": bound, "passed": error < bound}
            found[f"{method}, {model}, twice"] = {"passed": images.tobytes() == again.tobytes()}
    for name, check in found.items():
        print(f"  {name}: {'passed' if check['passed'] else 'FAILED'} {check.get('error', '')}")
    return found


def largest_error(images: np.ndarray, references: np.ndarray) -> float:
    """Return the largest difference outside the direct beam as a fraction of the largest intensity there."""
    offset = np.abs(np.arange(images.shape[-1]) - 0.5 * (images.shape[-1] - 1))
    outside = np.maximum(offset[:, None], offset[None, :]) > 0.1 * images.shape[-1]
    return max(
        float(np.abs(image - reference)[outside].max() / reference[outside].max())
        for image, reference in zip(images.astype(float), references.astype(float), strict=True)
    )


# --- timing


class TimedBackend(Backend):
    """Records events around the transforms, as :class:`Stopwatch` does around the kernels."""

    stopwatch: "Stopwatch"

    def inverse_transform(self, planes):
        with self.stopwatch.around("transforms (cuFFT)"):
            return super().inverse_transform(planes)


class Stopwatch:
    """A launcher that adds up the time between events before and after each kernel, by name."""

    def __init__(self, backend: Backend):
        self.cuda, self.launch = backend.xp.cuda, kernels.launcher(backend)
        self.spans: list[tuple] = []

    def __call__(self, kernel, grid, block, arguments, shared):
        with self.around(kernel):
            self.launch(kernel, grid, block, arguments, shared)

    def around(self, name: str):
        watch = self

        class Span:
            def __enter__(self):
                self.start = watch.cuda.Event()
                self.start.record()

            def __exit__(self, *_):
                end = watch.cuda.Event()
                end.record()
                watch.spans.append((name, self.start, end))

        return Span()

    def milliseconds(self) -> dict[str, float]:
        self.cuda.Device().synchronize()
        total: dict[str, float] = {}
        for name, start, end in self.spans:
            total[name] = total.get(name, 0.0) + self.cuda.get_elapsed_time(start, end)
        return total


def case(name, method, views, beams, backend: Backend, memory: float, repeats: int, card: dict) -> dict:
    """Time one batch: the whole call, which ends with the images in the host's memory; the call that leaves them on the
    device, without a plan and (laue) with one at hand; every kernel."""
    compute = gpu_laue.laue_intensities if method == "laue" else gpu_planes.nufft_intensities

    def whole(launch=None, on=backend, stay=False):
        return compute(views, beams, SIGMA, FACTORS, on, memory, on_device=stay, launch=launch)

    timed = {
        "seconds": measure(whole, backend, repeats),
        "seconds_on_device": measure(lambda: whole(stay=True), backend, repeats),
    }
    if method == "laue":
        plan = gpu_laue.LauePlan.build(views, beams, SIGMA, FACTORS)
        timed["seconds_planned"] = measure(lambda: plan.run(backend, memory, on_device=True), backend, repeats)
    watch = Stopwatch(backend)
    watched = TimedBackend(backend.device, backend.xp, backend.name)
    object.__setattr__(watched, "stopwatch", watch)
    whole(watch, watched)
    floor = floor_seconds(method, views, beams, card)
    best = min(value["events"] for value in timed.values())
    row = {
        "case": name,
        "patterns": len(views),
        "patterns_per_second": len(views) / timed["seconds"]["wall"],
        "patterns_per_second_on_the_device": len(views) / best,
        "floor_patterns_per_second": len(views) / floor,
        "fraction_of_floor": floor / best,
        "target_patterns_per_second": TARGETS.get(name),
        "timed": timed,
        "kernel_milliseconds": watch.milliseconds(),
        "device_memory_used_gib": (card["memory_free_at_start"] - backend.xp.cuda.runtime.memGetInfo()[0]) / 2**30,
    }
    print(f"{name}: {row['patterns_per_second']:.0f} patterns/s, {row['fraction_of_floor']:.0%} of the floor")
    return row


def measure(function, backend: Backend, repeats: int) -> dict[str, float]:
    """Return the median seconds of a call: by the wall clock, and on the device between two events."""
    cuda = backend.xp.cuda
    walls, events = [], []
    for _ in range(2):
        function()
    for _ in range(repeats):
        cuda.Device().synchronize()
        start, end, clock = cuda.Event(), cuda.Event(), time.perf_counter()
        start.record()
        result = function()
        end.record()
        end.synchronize()
        walls.append(time.perf_counter() - clock)
        events.append(1e-3 * cuda.get_elapsed_time(start, end))
        del result
    return {"wall": statistics.median(walls), "events": statistics.median(events)}


def floor_seconds(method: str, views: list[View], beams: list[Beam], card: dict) -> float:
    """Return the least time of a batch on this card; the module's docstring has the formula."""
    rate = card["multiprocessors"] * LANES * card["clock_hz"]
    seconds = 0.0
    outlines: dict[int, gpu_planes.Outline] = {}
    for view, beam in zip(views, beams, strict=True):
        if method == "laue":
            x, y = laue.plan(view, beam, SIGMA)
            slots = SLOTS_PER_SAMPLE * x.fine * y.fine + SLOTS_PER_ATOM * x.coarse * y.coarse * len(view.positions)
            seconds += slots / rate
            continue
        outline = outlines.setdefault(id(view), gpu_planes.Outline.of(view))
        grid = gpu_planes.Grid.plan(outline, beam, SIGMA)
        up_x, up_y = grid.transform()
        terms = gpu_planes.terms(grid)
        points = 4 * grid.half[0] * grid.half[1]
        moved = terms * 8 * (5 * up_x * up_y + points) * len(view.elements) + 2 * 16 * points
        spread = 2 * terms * len(view.positions) * kernels.SPREAD**2
        seconds += moved / card["copy_bytes_per_second"] + spread / rate
    return seconds


# --- machine and report


def machine(backend: Backend) -> dict:
    """Describe the card, what it can do, and the software."""
    cupy = backend.xp
    device = cupy.cuda.Device()
    rate = copy_rate(backend)
    cupy.get_default_memory_pool().free_all_blocks()  # of the copies: what the cases need is measured from here on
    free, total = cupy.cuda.runtime.memGetInfo()
    attributes = device.attributes

    def release(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    return {
        "date": datetime.now(UTC).date().isoformat(),
        "gpu": backend.name,
        "compute_capability": device.compute_capability,
        "multiprocessors": attributes["MultiProcessorCount"],
        "clock_hz": 1e3 * attributes["ClockRate"],
        "memory_gib": total / 2**30,
        "memory_free_at_start": free,
        "copy_bytes_per_second": rate,
        "cuda_runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "cuda_driver": cupy.cuda.runtime.driverGetVersion(),
        "cpu": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "packages": {name: release(name) for name in ("cupy-cuda12x", "cupy-cuda13x", "numpy", "numba", "scipy")},
    }


def copy_rate(backend: Backend) -> float:
    """Return bytes read and written per second by a copy of 1 GiB on the device."""
    source = backend.xp.zeros(2**28, np.float32)
    target = backend.xp.empty_like(source)
    seconds = measure(lambda: backend.xp.copyto(target, source), backend, 5)["events"]
    return 2 * source.nbytes / seconds


def report(result: dict) -> str:
    """Return the result as Markdown."""
    card = result["machine"]
    lines = [
        f"# GPU engine on {card['gpu']}",
        "",
        f"{card['date']}; {card['multiprocessors']} multiprocessors at {card['clock_hz'] / 1e6:.0f} MHz, "
        f"{card['memory_gib']:.0f} GiB, copies {card['copy_bytes_per_second'] / 1e12:.2f} TB/s; CUDA "
        f"{card['cuda_runtime']}, driver {card['cuda_driver']}; written by `benchmarks/gpu.py`, which says what is "
        f"measured. Memory budget {result['settings']['memory_gib']:g} GiB, median of {result['settings']['repeats']}.",
        "",
        "| batch of 144 patterns, 256 px | patterns/s, whole call | on the device | floor | fraction | target |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["cases"]:
        target = row["target_patterns_per_second"]
        lines.append(
            f"| {row['case']} | {row['patterns_per_second']:,.0f} | {row['patterns_per_second_on_the_device']:,.0f} "
            f"| {row['floor_patterns_per_second']:,.0f} | {row['fraction_of_floor']:.0%} "
            f"| {f'{target:,}' if target else ''} |"
        )
    lines += ["", "| batch | kernel | ms per batch | share |", "|---|---|---|---|"]
    for row in result["cases"]:
        total = sum(row["kernel_milliseconds"].values())
        for kernel, spent in sorted(row["kernel_milliseconds"].items(), key=lambda item: -item[1]):
            lines.append(f"| {row['case']} | {kernel} | {spent:.2f} | {spent / total:.0%} |")
    lines += ["", "| check | largest error | bound | passed |", "|---|---|---|---|"]
    for name, check in result["checks"].items():
        error = f"{check['error']:.1e}" if "error" in check else ""
        lines.append(f"| {name} | {error} | {check.get('bound', '')} | {'yes' if check['passed'] else 'NO'} |")
    lines += ["", "| batch | device memory in use after it [GiB] |", "|---|---|"]
    lines += [f"| {row['case']} | {row['device_memory_used_gib']:.2f} |" for row in result["cases"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
