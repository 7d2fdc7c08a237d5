"""The library of computed structures: results of earlier runs, taken in place of a computation that would repeat them.

An entry is what a rule wrote (structure, summary, log, record) under the name of its condition; lattice constants are
entries too, in the folder `lattice`. An entry serves a condition if host, cell, defect and every setting, those of the
lattice constant included, are what the condition asks for now: values are compared, not names of presets, so an entry
of older tables serves no longer. Only the seed of molecular dynamics may differ: another seed is another sample.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from defraction.first_principles.settings import settings_for

FOLDER = Path("resources/structures")
SAMPLE = ("seed",)  # settings that choose a sample, not what is sampled
LATTICE_KEYS = ("name", "crystal_structure", "lattice_parameter")
"""Keys of a host's row that an equation of state starts from."""


@dataclass(frozen=True)
class Entry:
    """One result: files of one stem, its record's parameters and the settings in its summary."""

    stem: Path

    @cached_property
    def _record(self) -> dict:
        return json.loads(self.file("record.json").read_text())

    @property
    def params(self) -> dict:
        return self._record["params"]

    @cached_property
    def settings(self) -> dict:
        return json.loads(self.file("json").read_text())["settings"]

    def file(self, suffix: str) -> Path:
        return self.stem.with_name(f"{self.stem.name}.{suffix}")

    def input_digest(self, role: str) -> str | None:
        """SHA-256 that the record states for the input of that role."""
        return next((i["sha256"] for i in self._record["inputs"] if i["role"] == role), None)

    def output_digest(self, role: str) -> str | None:
        """SHA-256 that the record states for the output of that role."""
        return next((o["sha256"] for o in self._record["outputs"] if o["role"] == role), None)


class Library:
    """The entries of a folder; an empty one serves nothing."""

    def __init__(self, folder: Path | None = FOLDER) -> None:
        self.entries = _entries(folder) if folder is not None else []
        self.lattices = _entries(folder / "lattice") if folder is not None else []

    def lattice(self, host: Mapping, first_principles: Mapping) -> Entry | None:
        """The lattice constant of `host` (a row of the table) at the settings that `preset` and `overrides` mean."""
        for entry in self.lattices:
            if any(entry.params["host"][key] != host[key] for key in LATTICE_KEYS):
                continue
            if entry.settings == _plain(settings_for(host, task="lattice", **first_principles)):
                return entry
        return None

    def relaxation(
        self, host: Mapping, supercell: list[int], defect: Mapping | None, lattice: Mapping, relax: Mapping
    ) -> Entry | None:
        """The relaxed supercell of a condition.

        Args:
            host: row of the table.
            supercell, defect: of the condition's settings.
            lattice, relax: `preset` and `overrides` of the two tasks.
        """
        for entry in self.entries:
            same = entry.params.get("supercell") == list(supercell) and entry.params.get("defect") == _plain(defect)
            if not same or "temperature" in entry.params or not self._on_lattice(entry, host, lattice):
                continue
            wanted = settings_for(host, task="relax", elements=solutes(defect), supercell=supercell, **relax)
            if entry.settings == _plain(wanted):
                return entry
        return None

    def dynamics(
        self, host: Mapping, supercell: list[int], temperature: float, protocol: str, lattice: Mapping, aimd: Mapping
    ) -> Entry | None:
        """Snapshots of a condition; arguments as for `relaxation`."""
        for entry in self.entries:
            asked = {"supercell": list(supercell), "temperature": temperature, "protocol": protocol}
            if any(entry.params.get(key) != value for key, value in asked.items()):
                continue
            if not self._on_lattice(entry, host, lattice):
                continue
            found = _plain(entry.settings)
            seed = found["aimd"]["seed"]
            if found == _plain(settings_for(host, task="aimd", seed=seed, **asked, **aimd)):
                return entry
        return None

    def _on_lattice(self, entry: Entry, host: Mapping, first_principles: Mapping) -> bool:
        """Whether the cell of `entry` has the lattice constant that these settings give, told by its record."""
        lattice = self.lattice(host, first_principles) if entry.params["host"]["name"] == host["name"] else None
        return lattice is not None and entry.input_digest("lattice") == lattice.output_digest("json")


def _entries(folder: Path) -> list[Entry]:
    return [
        Entry(path.with_name(path.name.removesuffix(".record.json"))) for path in sorted(folder.glob("*.record.json"))
    ]


def solutes(defect: Mapping | None) -> list[str]:
    """Foreign elements of a condition's defect, which may be a list of several."""
    entries = (defect.get("defects") or [defect]) if defect else []
    return sorted({entry["solute"] for entry in entries if entry.get("solute")})


def _plain(values):
    """As JSON reads it back: tuples are lists."""
    return json.loads(json.dumps(values))
