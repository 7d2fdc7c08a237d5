"""The diffraction engine and its peers on the same work, in turn, in one process environment.

    python benchmarks/diffraction.py [--threads 2] [--skip lammps abtem ...]

Writes benchmarks/results/diffraction.json and .md. 200 kV, 0.8 m, 256 x 256 pixels over 63.5 mm unless said; warm
(each method ran once before); the fastest of three rounds of our methods, with what each round took. Beside the times
stands the deviation from the float64 sum over all atoms, at pixels chosen at random and at the brightest ones.
Needs the extra `peers`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
sys.path.insert(0, str(ROOT / "workflow/scripts"))
SIGMA = 0.5
TARGETS = {
    "laue, Al 40x30x20": 150.0,
    "laue, 108 atoms": 60.0,
    "nufft, displaced block": 5.0,
    "nufft, dislocations": 5.0,
    "nufft, twin": 5.0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip", nargs="*", default=[], choices=["lammps", "abtem", "diffsims", "memory"])
    parser.add_argument("--memory-of-condition", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    if options.memory_of_condition:
        memory_of_condition()
        return
    import peers

    machine = peers.machine()
    rows = ours()
    block = displaced_block()
    if "abtem" not in options.skip:
        rows.append(row("abTEM multislice, displaced block", 1, [peers.abtem_multislice(block, 200.0, 0.2, 2.0)]))
    if "lammps" not in options.skip:
        from defraction.diffraction.geometry import wavelength

        found = peers.lammps_saed(block, wavelength(200.0), 1.58, 256)
        rows.append(row("LAMMPS compute saed, displaced block", 1, [found]))
    if "diffsims" not in options.skip:
        for name, cell in (("Al", aluminium()), ("108 atoms", supercell())):
            found = peers.diffsims_patterns(cell, 200.0, 1.58, spots_error(cell), 256, 16)
            rows.append(row(f"diffsims with image, {name}", 1, [found]))
    if "memory" not in options.skip:
        run = [sys.executable, __file__, "--memory-of-condition", "--threads", str(options.threads)]
        machine["peak_memory_of_a_condition_gib"] = subprocess.run(
            run, check=True, capture_output=True, text=True
        ).stdout.strip()
    write(rows, machine | peers.versions() | {"threads": str(options.threads)})


def aluminium():
    """The conventional cell of aluminium, 40 x 30 x 20 of it."""
    from ase.build import bulk

    atoms = bulk("Al", cubic=True, a=4.0496)
    atoms.info["repeat"] = [40, 30, 20]
    return atoms


def supercell():
    """A cell of 108 displaced atoms, repeated to about the same block (97,200 atoms)."""
    import numpy as np

    atoms = aluminium() * (3, 3, 3)
    atoms.positions += np.random.default_rng(1).normal(0.0, 0.1, atoms.positions.shape)
    atoms.info = {"repeat": [13, 10, 7], "reference_cell": (np.asarray(atoms.cell) / 3).tolist()}
    return atoms


def displaced_block():
    """96,000 atoms of aluminium, every one displaced: nothing repeats."""
    import numpy as np

    unit = aluminium()
    atoms = unit * (40, 30, 20)
    atoms.positions += np.random.default_rng(2).normal(0.0, 0.1, atoms.positions.shape)
    atoms.info = {"repeat": [1, 1, 1], "reference_cell": np.asarray(unit.cell).tolist()}
    return atoms


def dislocations():
    """The default array of four edge dislocations."""
    from defraction.defects import dislocation
    from defraction.hosts import read_hosts

    settings = {"count": 4, "spacing": 32.0, "size": (160.0, 120.0), "line_repeat": 16}
    return dislocation.build(read_hosts(ROOT / "resources/hosts.csv")["Al"], settings)


def twin():
    """The default twin."""
    from defraction.defects import twin as builder
    from defraction.hosts import read_hosts

    return builder.build(read_hosts(ROOT / "resources/hosts.csv")["Al"], {"size": (160.0, 120.0, 80.0)})


def beams(voltages=(200.0,), lengths=(0.8,)):
    """Beams on 256 x 256 pixels over 63.5 mm."""
    from defraction.diffraction.geometry import Beam, Detector, wavelength

    return [Beam(1.0 / wavelength(v), Detector(length, 63.5, 256)) for v in voltages for length in lengths]


def ours() -> list[dict]:
    """Every method on 144 patterns: 16 zone axes x nine in-plane rotations, or x 3 voltages x 3 camera lengths."""
    from defraction.diffraction import laue, planes, spots
    from defraction.diffraction.scattering import Factors
    from defraction.diffraction.settings import ZONE_AXES
    from defraction.diffraction.specimen import Specimen

    condition = beams((120.0, 200.0, 300.0), (0.5, 0.8, 1.2))
    rows = []
    for name, atoms in (("Al 40x30x20", aluminium()), ("108 atoms", supercell())):
        specimen = Specimen.from_atoms(atoms)
        views = [specimen.view(axis, rotation=10.0 * turn) for axis in ZONE_AXES for turn in range(9)]
        rows.append(timed(f"laue, {name}", laue.intensities, views, beams() * 144, Factors()))
        rows.append(timed(f"spots, {name}", spots.intensities, views, beams() * 144, Factors("lobato"), exact=False))
    for name, atoms in (("displaced block", displaced_block()), ("dislocations", dislocations()), ("twin", twin())):
        specimen = Specimen.from_atoms(atoms)
        views = [specimen.view(axis) for axis in ZONE_AXES]
        rows.append(
            timed(
                f"nufft, {name}", planes.intensities, [v for v in views for _ in condition], condition * 16, Factors(),
                rounds=1, note="a whole condition: 16 zone axes x 120, 200, 300 kV x 0.5, 0.8, 1.2 m",
            )
        )  # fmt: skip
    return rows


def timed(name, method, views, all_beams, factors, rounds=3, exact=True, note="") -> dict:
    """Time ``method`` on all patterns, warm, and compare some pixels with the sum over all atoms."""
    method(views[:1], all_beams[:1], SIGMA, factors)
    method(views[:9], all_beams[:9], SIGMA, factors)
    times = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        images = method(views, all_beams, SIGMA, factors)
        n = len(views)
        times.append({"wall": (time.perf_counter() - wall) / n, "cpu": (time.process_time() - cpu) / n, "note": note})
    found = row(name, len(views), times)
    if exact:
        picked = [(i, views[i], all_beams[i], images[i]) for i in (0, len(views) // 2, len(views) - 1)]
        found["largest_error"] = max(deviation(view, beam, image, factors, seed=i) for i, view, beam, image in picked)
    print(f"{name}: {found['patterns_per_second']:.1f} patterns/s", file=sys.stderr, flush=True)
    return found


def deviation(view, beam, image, factors, seed: int) -> float:
    """Largest error at the brightest pixel outside the direct beam and at two others, over that largest intensity."""
    import numpy as np

    pixels = beam.detector.pixels
    offset = np.abs(np.arange(pixels) - 0.5 * (pixels - 1))
    outside = np.where(np.maximum(offset[:, None], offset[None, :]) < 12, 0.0, image.astype(float))
    order = np.argsort(outside, axis=None)[::-1]
    chosen = [int(order[0]), *np.random.default_rng(seed).choice(order[:3000], 2).tolist()]
    errors = []
    for index in chosen:
        y, x = divmod(index, pixels)
        errors.append(abs(outside[y, x] - pixel(view, beam, x, y, factors)))
    return float(max(errors) / outside.max())


def pixel(view, beam, x: int, y: int, factors) -> float:
    """The integral over one pixel with the detector's response, from the float64 sum over all atoms."""
    import numpy as np

    from defraction.diffraction import direct, laue, sampling
    from defraction.diffraction.geometry import scattering_vectors

    pad, detector = sampling.padding(SIGMA), beam.detector
    axes, weights = [], []
    for axis, index in zip(laue.plan(view, beam, SIGMA), (x, y), strict=True):
        samples = axis.per_pixel
        fine = (np.arange((2 * pad + 1) * samples) + 0.5) / samples - pad - 0.5
        axes.append((fine + index - 0.5 * (detector.pixels - 1)) * detector.pitch)
        weights.append(sampling.response_weights(samples, SIGMA))
    q = scattering_vectors(axes[0][None, :], axes[1][:, None], beam.k, detector.distance, beam.flat) - beam.origin
    radius_squared = axes[0][None, :] ** 2 + axes[1][:, None] ** 2
    cosine = detector.distance / np.sqrt(radius_squared + detector.distance**2)
    return float(weights[1] @ (np.abs(direct.amplitudes(view, q, factors)) ** 2 * cosine**3) @ weights[0])


def row(name: str, patterns: int, times: list[dict]) -> dict:
    """One line of the table, from the fastest of some rounds."""
    best = min(times, key=lambda t: t["wall"])
    return {
        "name": name,
        "patterns": patterns,
        "patterns_per_second": 1.0 / best["wall"],
        "cpu_seconds_per_pattern": best["cpu"],
        "wall_of_rounds": [t["wall"] for t in times],
        "note": best["note"],
    }


def spots_error(atoms) -> float:
    """The bound on |s| [1/Å] that the method `spots` uses: five reciprocal thicknesses of the block along [001]."""
    return 5.0 / float(atoms.cell.lengths()[2] * atoms.info["repeat"][2])


def memory_of_condition() -> None:
    """Write a condition of the displaced block as the workflow does, and print the process's peak memory [GiB]."""
    import tempfile

    from defraction.diffraction.patterns import write_patterns

    with tempfile.TemporaryDirectory() as folder:
        write_patterns([displaced_block()], Path(folder) / "patterns.nc", {}, memory=2.0)
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f}")


def ratios(rows: list[dict]) -> list[tuple[str, float, float, str]]:
    """Return (what, by wall clock, by CPU time, wanted) of our methods to their peers."""
    by_name = {r["name"]: r for r in rows}
    pairs = [
        ("nufft, displaced block", "LAMMPS compute saed, displaced block", 100),
        ("nufft, displaced block", "abTEM multislice, displaced block", 8),
        ("spots, Al 40x30x20", "diffsims with image, Al", 5),
        ("spots, 108 atoms", "diffsims with image, 108 atoms", 50),
    ]
    found = []
    for mine, peer, wanted in pairs:
        if mine in by_name and peer in by_name:
            a, b = by_name[mine], by_name[peer]
            found.append(
                (
                    f"{mine} / {peer}",
                    a["patterns_per_second"] / b["patterns_per_second"],
                    b["cpu_seconds_per_pattern"] / a["cpu_seconds_per_pattern"],
                    f"at least {wanted}",
                )
            )
    return found


def write(rows: list[dict], machine: dict) -> None:
    """Write the results as JSON and as a page."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "diffraction.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    lines = [
        "# The diffraction engine and its peers",
        "",
        f"Written by `benchmarks/diffraction.py --threads {machine['threads']}`: "
        "200 kV, 0.8 m, 256 x 256 pixels over 63.5 mm unless said; warm.",
        "",
        "Machine: " + "; ".join(f"{key} {value}" for key, value in machine.items()),
        "",
        "| | patterns per second | wanted | CPU seconds per pattern | largest error | |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        wanted = f"{TARGETS[r['name']]:g}" if r["name"] in TARGETS else ""
        error = f"{r['largest_error']:.1e}" if "largest_error" in r else ""
        lines.append(
            f"| {r['name']} | {r['patterns_per_second']:.3g} | {wanted} | {r['cpu_seconds_per_pattern']:.3g} | {error} "
            f"| {r['note']} |"
        )
    lines += ["", "| ratio | wall clock | CPU time | wanted |", "|---|---|---|---|"]
    lines += [f"| {what} | {wall:.1f} | {cpu:.1f} | {wanted} |" for what, wall, cpu, wanted in ratios(rows)]
    lines += [
        "",
        "Largest error: outside the direct beam, over the largest intensity there, against the float64 sum over all "
        "atoms at nine pixels. `spots` is an approximation; docs/diffraction.md says how far off it is.",
    ]
    (RESULTS / "diffraction.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
