"""From the configuration to the table of models: stable ids, and the settings of each.

An id is made of the model's name and the seed of its training (`main-seed2`), never of a position in a list, so a
further model or seed leaves the files of all others where they are.
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLUMNS = (
    "model", "name", "seed", "network", "split_by", "hosts", "pattern_set", "pixels", "diffraction_model", "headline",
)  # fmt: skip


def patterns_folder(pattern_set: str) -> str:
    """The folder below `results` with the patterns of a set."""
    return "patterns" if pattern_set == "main" else f"pattern_sets/{pattern_set}"


def expand(config: Any) -> dict[str, dict[str, Any]]:
    """All models of a checked configuration (`config.Config`) by id, in its order; the first is the headline.

    Each is a mapping of plain values: `name`, `seed` (of its training), `pattern_set`, `learning` (its section,
    complete, without the split) and `split`. The fraction `validation` of the split is 0 where
    nothing is chosen by that part.
    """
    out = {}
    for model in config.models:
        learning = json.loads(json.dumps(config.learning_of(model).model_dump(mode="json"), sort_keys=True))
        split = learning.pop("split")
        if not learning["early_stop"] and learning["keep"] == "last":
            split["validation"] = 0.0
        for seed in model.seeds or [config.seed]:
            out[f"{model.name}-seed{seed}"] = {
                "name": model.name,
                "seed": seed,
                "pattern_set": model.pattern_set,
                "learning": learning,
                "split": split,
            }
    return out


def rows(config: Any) -> list[dict[str, Any]]:
    """The table of models, one mapping with the keys `COLUMNS` for each, the headline first."""
    found = []
    for number, (name, model) in enumerate(expand(config).items()):
        diffraction = config.diffraction_of(model["pattern_set"])
        found.append(
            {
                "model": name,
                "name": model["name"],
                "seed": model["seed"],
                "network": model["learning"]["architecture"],
                "split_by": model["split"]["by"],
                "hosts": model["split"]["hosts"],
                "pattern_set": model["pattern_set"],
                "pixels": diffraction.pixels,
                "diffraction_model": diffraction.model,
                "headline": int(number == 0),
            }
        )
    return found


def write_table(path: Path | str, table: list[Mapping[str, Any]]) -> None:
    """Write results/models.csv from `rows`."""
    with Path(path).open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def read_table(path: Path | str) -> list[dict[str, Any]]:
    """Read results/models.csv; `seed` and `pixels` are integers, `headline` a bool.

    Raises ValueError naming the file if it is not such a table.
    """
    with Path(path).open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path}: columns {reader.fieldnames}, expected {list(COLUMNS)}")
        return [
            {**row, "seed": int(row["seed"]), "pixels": int(row["pixels"]), "headline": row["headline"] == "1"}
            for row in reader
        ]
