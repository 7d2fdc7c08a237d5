"""Accuracy on crystals of another database that are not in the table of training: by space group and by prototype.

    python benchmarks/unseen_crystals.py MATERIALS.csv MODEL [-o unseen.csv] [--copies 4] [--device auto]

MATERIALS.csv has the columns material_id, formula, space_group, setting, prototype, prototype_name, a_angstrom, sites
(`element:multiplicity+letter:x,y,z` separated by `;`); it is read in place and no row of it is written. MODEL is a
folder with model.safetensors and card.json. Crystals whose formula and space group are in resources/materials.csv are
left out. Patterns are simulated with the settings that the card states, the specimen a block of 40 x 30 x 20 cells.
Beside the CSV a JSON is written, which `defraction export-model --unseen` puts into a card.

Everything is asked of the model as `defraction classify` asks it, and counted as the workflow counts: an accuracy over
patterns is the share of right ones among all test copies, and the ensemble is one pattern along each zone axis, drawn
at random (`DRAWS` times for each crystal). Intervals are over crystals, as those of the workflow
(`evaluation.intervals`); fewer than three crystals have none.
"""

import argparse
import csv
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from defraction import materials
from defraction.dataset import display, true_labels
from defraction.diffraction.geometry import wavelength
from defraction.diffraction.patterns import simulate
from defraction.evaluation.credits import credit
from defraction.evaluation.ensembles import RULES, ensemble_credits, evidence
from defraction.evaluation.intervals import FEWEST, Share
from defraction.learning.classify import Classifier
from defraction.learning.labels import allowed_reflections, space_group_given_label, space_groups_of

COLUMNS = (
    "by", "value", "crystals", "patterns", "accuracy_label", "accuracy_label_low", "accuracy_label_high",
    "accuracy_label_resolved", "accuracy_space_group", "limit_space_group", "accuracy_ensemble",
    "accuracy_ensemble_low", "accuracy_ensemble_high", "flagged",
)  # fmt: skip
SMALLEST_SPACING = 3.0  # px between neighbouring spots from which a pattern counts as resolved
DRAWS = 200  # ensembles of each crystal


def read(path: Path, trained: Path) -> tuple[list[dict[str, str]], int]:
    """Rows of the table whose crystals are not in the training table, and how many are in it."""
    known = {(amounts(m.formula), m.space_group) for m in materials.read_table(trained).values()}
    rows, inside = [], 0
    with path.open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            if (amounts(row["formula"]), int(row["space_group"])) in known:
                inside += 1
            else:
                rows.append(row)
    return rows, inside


def amounts(formula: str) -> tuple:
    """The composition of a formula, whatever the order of its elements and its brackets."""
    from pymatgen.core import Composition

    reduced = Composition(formula).reduced_composition.get_el_amt_dict()
    return tuple(sorted((element, round(amount, 4)) for element, amount in reduced.items()))


def crystal(row: dict[str, str]):
    """The atoms of a row."""
    from ase.spacegroup import crystal as build

    elements, places = [], []
    for site in row["sites"].split(";"):
        element, _, xyz = site.split(":")
        elements.append(re.match("[A-Z][a-z]?", element)[0])
        places.append([float(value) for value in xyz.split(",")])
    a = float(row["a_angstrom"])
    atoms = build(elements, places, spacegroup=int(row["space_group"]), setting=int(row["setting"]),
                  cellpar=[a, a, a, 90, 90, 90], symprec=1e-4)  # fmt: skip
    atoms.info = {"reference_cell": atoms.cell.tolist()}
    return atoms


def resolved(axis: Sequence[int], a: float, voltage: float, length: float, pixel_mm: float, beams: Any) -> bool:
    """Whether the shortest allowed reflection of the zone lies at least `SMALLEST_SPACING` pixels from the centre."""
    return 1e3 * length * wavelength(voltage) * beams / a / pixel_mm >= SMALLEST_SPACING


def measure(
    rows: Sequence[dict[str, str]],
    classifier: Classifier,
    settings: dict[str, Any],
    repeat: Sequence[int],
    copies: int = 1,
    device: str = "auto",
    seed: int = 1,
) -> list[dict[str, Any]]:
    """Simulate crystals (rows of `read`) and count the answers, one record for each.

    A record holds accuracies of its patterns by label (`label`; of those with resolved spots: `resolved`) and by space
    group (`group`), the best that geometry allows for the latter (`limit`), the accuracy of ensembles of all zone axes
    (`ensemble`), the share of patterns `flagged` as unlike the training (NaN for a model without open-set statistics),
    and numbers of `patterns` and of `unresolved` ones.
    """
    card, table = classifier.card, classifier.table
    given, groups = space_group_given_label(table), space_groups_of(table)
    shown = card["display"]["beam_stop"], card["display"]["decades"]
    out = []
    for number, row in enumerate(rows):
        group, a = int(row["space_group"]), float(row["a_angstrom"])
        data = simulate(crystal(row), settings, device, repeat=tuple(repeat))
        axes = [tuple(axis) for axis in data["uvw"].values.tolist()]
        x, y = (np.asarray(data[name].values, dtype=float) for name in ("x", "y"))
        grey = display(data["intensity"].values[:, :, :, 0], x, y, *shown)
        clear = np.zeros(grey.shape[:3], dtype=bool)
        for i, axis in enumerate(axes):
            shortest = np.sqrt((allowed_reflections(group, axis)[0] ** 2).sum())
            for j, voltage in enumerate(settings["voltages"]):
                for k, length in enumerate(settings["camera_lengths"]):
                    clear[i, j, k] = resolved(axis, a, voltage, length, classifier.frame.pixel_mm, shortest)
        logs, scores = classifier.look(grey.reshape(-1, *grey.shape[-2:]), copies)
        probability = np.exp(np.moveaxis(logs, 0, 1).reshape(*clear.shape, 1, len(logs), -1))
        label, right = true_labels(table, group, axes), groups.index(group)
        hits = (probability.argmax(-1) == label[:, None, None, None, None]).mean(axis=(3, 4))
        scored, every = evidence(probability, given, RULES[0]), np.ones((*clear.shape, 1), dtype=bool)
        ensemble = ensemble_credits(scored, every, right, [len(axes)], DRAWS, seed)[0]
        flagged = float("nan") if scores is None else float((scores > classifier.openset["threshold"]).mean())
        out.append(
            {
                "row": row,
                "patterns": clear.size,
                "unresolved": int((~clear).sum()),
                "label": float(hits.mean()),
                "resolved": float(hits[clear].mean()) if clear.any() else float("nan"),
                "group": float(credit(probability @ given, right).mean()),
                "limit": float(credit(given[label], right).mean()),
                "ensemble": float(ensemble),
                "flagged": flagged,
            }
        )
        if number % 20 == 19:
            print(f"{number + 1} of {len(rows)} crystals", flush=True)
    return out


def summarise(records: list[dict]) -> list[dict]:
    """Rows of the table: all, by group, by prototype of at least `FEWEST` crystals; crystals have equal weight.

    Bounds are None where there are fewer crystals.
    """
    parts: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for record in records:
        row = record["row"]
        name = f"{row['space_group']} {row['prototype_name'] or row['prototype']}"
        for key in (("all", "all"), ("space_group", row["space_group"]), ("prototype", name)):
            parts[key].append(record)
    out = []
    order = {"all": 0, "space_group": 1, "prototype": 2}
    for (by, value), found in sorted(parts.items(), key=lambda item: (order[item[0][0]], -len(item[1]), item[0][1])):
        if by == "prototype" and len(found) < FEWEST:
            continue
        label, group, limit, together, flagged = (
            np.array([record[key] for record in found]) for key in ("label", "group", "limit", "ensemble", "flagged")
        )
        low, high = Share.of([label]).interval()
        ensemble_low, ensemble_high = Share.of([together]).interval()
        values = (
            by, value, len(found), sum(record["patterns"] for record in found), float(label.mean()), low, high,
            float(np.nanmean([record["resolved"] for record in found])),
            float(group.mean()), float(limit.mean()), float(together.mean()), ensemble_low, ensemble_high,
            float(flagged.mean()),
        )  # fmt: skip
        out.append(dict(zip(COLUMNS, values, strict=True)))
    return out


def with_interval(row: dict, column: str) -> str:
    """An accuracy and, where it has one, its interval."""
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    interval = f"({low:6.1%} to {high:6.1%})" if low is not None else "(few crystals)"
    return f"{row[column]:6.1%} {interval:>18}"


def main() -> None:
    """Read, simulate, answer, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("materials", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("unseen_crystals.csv"))
    parser.add_argument("--trained", type=Path, default=Path(__file__).resolve().parents[1] / "resources/materials.csv")
    parser.add_argument("--copies", type=int, default=4, help="test copies of each pattern, the first as it is")
    parser.add_argument("--most", type=int, default=0, help="crystals of each space group, 0: all")
    parser.add_argument("--repeat", type=int, nargs=3, default=(40, 30, 20))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    classifier = Classifier.load(arguments.model, arguments.device)
    settings = classifier.card["image"].get("diffraction")
    if not settings:
        raise SystemExit(f"{arguments.model}: the card does not state how its patterns were simulated; train it again")
    rows, inside = read(arguments.materials, arguments.trained)
    if arguments.most:
        rng = np.random.default_rng(arguments.seed)
        by_group = defaultdict(list)
        for row in rows:
            by_group[row["space_group"]].append(row)
        rows = [found[i] for found in by_group.values() for i in sorted(rng.permutation(len(found))[: arguments.most])]
    groups = dict(Counter(row["space_group"] for row in rows))
    print(f"{len(rows)} crystals, by group {groups}; {inside} more are in the training table")
    started = time.process_time()
    simulated = {**settings, "debye_waller": {}, "average_snapshots": False}
    records = measure(rows, classifier, simulated, arguments.repeat, arguments.copies, arguments.device, arguments.seed)
    table = summarise(records)
    unresolved = sum(record["unresolved"] for record in records)
    whole = sum(record["patterns"] for record in records)
    print(f"{unresolved} of {whole} patterns have spots nearer than {SMALLEST_SPACING:g} pixels (not `resolved`)")
    print(f"{'':40} crystals  label (95 %)            resolved  group   limit   16 axes (95 %)          flagged")
    for row in table:
        label, together = (with_interval(row, f"accuracy_{by}") for by in ("label", "ensemble"))
        print(
            f"{row['value'][:40]:40} {row['crystals']:8d}  {label}  {row['accuracy_label_resolved']:6.1%}  "
            f"{row['accuracy_space_group']:6.1%}  {row['limit_space_group']:6.1%}  {together}  {row['flagged']:6.1%}"
        )
    with arguments.output.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    facts = {
        "rows": table,
        "crystals": len(rows),
        "also_in_training_table": inside,
        "unresolved_patterns": unresolved,
        "patterns": whole,
        "copies": arguments.copies,
        "repeat": list(arguments.repeat),
        "training_digest": classifier.card["data"]["training_digest"],
    }
    arguments.output.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"{time.process_time() - started:.0f} CPU s; {arguments.output}")


if __name__ == "__main__":
    main()
