"""How the cost of patterns grows with atoms, pixels and patterns: time and peak memory of one process each.

    python benchmarks/scaling.py [--threads 2]

Writes benchmarks/results/scaling.json and docs/images/diffraction-scaling.png. Aluminium, 200 kV, 0.8 m, 63.5 mm.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow/scripts"))

ATOMS = (1e3, 1e4, 1e5, 1e6)
PIXELS = (64, 128, 256, 512, 1024)
PATTERNS = (1, 9, 36, 144)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--point", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["NUMBA_NUM_THREADS"] = str(options.threads)
    if options.point:
        print(json.dumps(measure(**json.loads(options.point))))
        return
    points = [{"method": m, "atoms": n, "pixels": 256, "patterns": 9} for m in ("laue", "nufft") for n in ATOMS]
    points += [{"method": m, "atoms": 1e5, "pixels": n, "patterns": 9} for m in ("laue", "nufft") for n in PIXELS]
    points += [{"method": m, "atoms": 1e5, "pixels": 256, "patterns": n} for m in ("laue", "nufft") for n in PATTERNS]
    points += [{"method": "spots", "atoms": n, "pixels": 256, "patterns": 9} for n in ATOMS]
    points += [{"method": "spots", "atoms": 1e5, "pixels": n, "patterns": 9} for n in PIXELS]
    points += [{"method": "spots", "atoms": 1e5, "pixels": 256, "patterns": n} for n in PATTERNS]
    rows = []
    for point in points:
        run = [sys.executable, __file__, "--threads", str(options.threads), "--point", json.dumps(point)]
        rows.append(json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout))
        print(rows[-1], file=sys.stderr, flush=True)
    import peers

    results = ROOT / "benchmarks/results/scaling.json"
    results.parent.mkdir(exist_ok=True)
    results.write_text(json.dumps({"machine": peers.machine() | {"threads": options.threads}, "rows": rows}, indent=1))
    draw(rows, ROOT / "docs/images/diffraction-scaling.png")


def measure(method: str, atoms: float, pixels: int, patterns: int) -> dict:
    """Seconds and peak memory [MiB] of this process for one point.

    A crystal of Al of about ``atoms`` atoms, for nufft with every atom displaced.
    """
    import resource

    import numpy as np
    from ase.build import bulk

    from defraction.diffraction import laue, planes, spots
    from defraction.diffraction.geometry import Beam, Detector, wavelength
    from defraction.diffraction.scattering import Factors
    from defraction.diffraction.settings import ZONE_AXES
    from defraction.diffraction.specimen import Specimen

    cell = bulk("Al", cubic=True, a=4.0496)
    edge = (atoms / 4) ** (1 / 3)  # blocks of the proportions 16 : 12 : 9
    repeat = [max(3, round(edge * f)) for f in (1.33, 1.0, 0.75)]
    if method == "nufft":
        block = cell * repeat
        block.positions += np.random.default_rng(0).normal(0.0, 0.1, block.positions.shape)
        block.info = {"repeat": [1, 1, 1], "reference_cell": np.asarray(cell.cell).tolist()}
    else:
        block = cell
        block.info["repeat"] = repeat
    specimen = Specimen.from_atoms(block)
    module = {"laue": laue, "nufft": planes, "spots": spots}[method]
    beams = [
        Beam(1.0 / wavelength(v), Detector(length, 63.5, pixels)) for v in (120, 200, 300) for length in (0.5, 0.8, 1.2)
    ][:patterns]
    views = [specimen.view(axis) for axis in ZONE_AXES[: -(-patterns // len(beams))]]
    small = Specimen.from_atoms(cell if method != "nufft" else block[:50]).view((0, 0, 1))
    if method != "spots":
        module.intensities([small], [Beam(beams[0].k, Detector(0.8, 63.5, 16))], 0.5, Factors())
    else:
        module.intensities(views[:1], beams[:1], 0.5, Factors())
    wall, cpu = time.perf_counter(), time.process_time()
    for view in views:
        module.intensities([view] * len(beams), beams, 0.5, Factors())
    return {
        "method": method,
        "atoms": specimen.atom_count,
        "pixels": pixels,
        "patterns": len(views) * len(beams),
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def draw(rows: list[dict], path: Path) -> None:
    """Time per pattern and peak memory against atoms and pixels, time against patterns."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 3, figsize=(10, 6), sharex="col", layout="constrained")
    colours = {"laue": "#1f6f8b", "nufft": "#c8553d", "spots": "#6c757d"}
    columns = [
        ("atoms", "atoms in the specimen", {"pixels": 256, "patterns": 9}),
        ("pixels", "pixels along an edge", {"patterns": 9}),
        ("patterns", "patterns", {"pixels": 256}),
    ]
    for column, (key, label, fixed) in enumerate(columns):
        for method, colour in colours.items():
            chosen = [
                r
                for r in rows
                if r["method"] == method
                and all(r[k] == v for k, v in fixed.items())
                and (key == "atoms" or 5e4 < r["atoms"] < 2e5)
            ]
            chosen = sorted({r[key]: r for r in chosen}.values(), key=lambda r: r[key])
            x = [r[key] for r in chosen]
            seconds = [r["cpu"] if key == "patterns" else r["cpu"] / r["patterns"] for r in chosen]
            panels[0, column].loglog(x, seconds, "o-", color=colour, label=method)
            panels[1, column].semilogx(x, [r["memory"] for r in chosen], "o-", color=colour)
        panels[0, column].set_ylabel("CPU time [s]" if key == "patterns" else "CPU time per pattern [s]")
        panels[1, column].set_ylabel("peak memory of the process [MiB]")
        panels[1, column].set_ylim(0, None)
        panels[1, column].set_xlabel(label)
        for panel in panels[:, column]:
            panel.grid(alpha=0.3)
    panels[0, 0].legend(frameon=False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
