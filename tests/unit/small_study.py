"""Small studies for tests of what reads records: files of a few bytes with true records."""

import os
from pathlib import Path

from defraction import provenance
from defraction.lineage.study import parted

CODE = {"workflow/scripts/simulate.py": "a" * 16, "workflow/scripts/defraction/laue.py": "b" * 16}


def write(name: str, text: str) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def record(rule: str, inputs: dict[str, list[str]], outputs: dict[str, str], params=None, code=None, **facts) -> dict:
    """Write the record of a job in the working directory beside its first output and return it as read."""
    path = Path(next(iter(outputs.values())))
    path = path.with_name(f"{parted(path)[0]}.record.json")
    items = [provenance.entry(name, role) for role, names in inputs.items() for name in names]
    provenance.write_record(
        path,
        {
            "rule": rule,
            "wildcards": {},
            "params": {"code": "c0de", **(params or {})},
            "inputs": items,
            "outputs": [provenance.entry(name, role) for role, name in outputs.items()],
            "threads": 1,
            "started": 1.7e9,
            "seconds": 1.0,
            **facts,
        },
        code or {},
        with_host=facts.get("with_host", True),
    )
    return {**provenance.read_record(path), "record": str(path)}


def build(root: Path, conditions: int = 3, pixels: int = 64, origin: str = "") -> None:
    """A study: hosts.csv -> structure -> patterns (each condition) -> accuracy -> figure, in `root`.

    `pixels` is a setting of the patterns; `origin` goes into the text of the structures.
    """
    before = Path.cwd()
    root.mkdir(parents=True, exist_ok=True)
    os.chdir(root)
    try:
        write("workflow/Snakefile", 'include: "rules/all.smk"\n')
        write("workflow/scripts/simulate.py", "import defraction.laue\n")
        write("workflow/scripts/defraction/laue.py", "A = 1\n")
        write("resources/sites.txt", "Al 0 0 0\n")
        names = [f"al-{i}" for i in range(conditions)]
        for name in names:
            write(f"results/structures/{name}.cif", f"cell of {name} {origin}\n")
            write(f"results/structures/{name}.gpaw.txt", f"User: me@somewhere\nlog of {name}\n")
            cif = {"cif": f"results/structures/{name}.cif", "log": f"results/structures/{name}.gpaw.txt"}
            record("structure", {"sites": ["resources/sites.txt"]}, cif, {"condition": name})
            write(f"results/patterns/{name}.nc", f"pattern {pixels} of {name} {origin}\n")
            inputs = {"structure": [f"results/structures/{name}.cif"], "code": ["workflow/scripts/simulate.py"]}
            patterns = {"patterns": f"results/patterns/{name}.nc"}
            record("simulate", inputs, patterns, {"diffraction": {"pixels": pixels, "model": "physical"}}, CODE)
        write("results/accuracy.csv", f"a,{pixels}\n")
        write("results/ensembles.csv", "e\n")
        patterns = {"patterns": [f"results/patterns/{name}.nc" for name in names]}
        tables = {"accuracy": "results/accuracy.csv", "ensembles": "results/ensembles.csv"}
        record("evaluate", patterns, tables)
        write("results/figures/accuracy.png", f"png {pixels}\n")
        record("figure", {"accuracy": ["results/accuracy.csv"]}, {"png": "results/figures/accuracy.png"})
    finally:
        os.chdir(before)
