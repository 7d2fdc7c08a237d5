"""The table of interatomic potentials in docs/structures.md: crystal, vacancy and stacking fault of each that ships.

    python benchmarks/potentials.py [--name Al-Mendelev-2008 ...]

Computed with LAMMPS at 0 K, one row for each potential and host; about a CPU minute for all.
"""

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow/scripts"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from defraction.defects.potentials import (  # noqa: E402
    SHIPPED,
    Potential,
    crystal,
    find_potential,
    stacking_fault_energy,
    vacancy_energy,
)
from defraction.hosts import read_hosts  # noqa: E402

HEAD = "| potential | host | a [Å] | E [eV] | C11, C12, C44 [GPa] | vacancy [eV] | stacking fault [mJ/m²] |"


def row(potential: Potential) -> str:
    """One row of the table; bcc crystals have no such stacking fault."""
    found = crystal(potential)
    fault = f"{stacking_fault_energy(potential):.1f}" if potential.host.crystal_structure == "fcc" else ""
    stiffness = ", ".join(f"{found[constant]:.1f}" for constant in ("c11", "c12", "c44"))
    cells = [
        potential.name,
        potential.host.name,
        f"{found['lattice_parameter']:.4f}",
        f"{found['energy']:.3f}",
        stiffness,
    ]
    return f"| {' | '.join([*cells, f'{vacancy_energy(potential):.3f}', fault])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--name", nargs="*", default=list(SHIPPED), choices=list(SHIPPED), help="only these")
    hosts = read_hosts(ROOT / "resources/hosts.csv")
    print(HEAD)
    print("|---" * 7 + "|")
    for name in parser.parse_args().name:
        for element in SHIPPED[name].elements:
            print(row(find_potential(name, hosts[element])), flush=True)
    print(f"{time.process_time():.0f} CPU s", file=sys.stderr)


if __name__ == "__main__":
    main()
