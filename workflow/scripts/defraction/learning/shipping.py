"""A model to give away: half-precision weights, card, README and open-set statistics in one folder, checked."""

import csv
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from defraction.dataset import display, load_patterns, members, pattern_mask, read_split
from defraction.learning import model
from defraction.learning.classify import CARD, OPENSET, STATISTICS, WEIGHTS
from defraction.learning.infer import check_image
from defraction.learning.openset import belongs, features, log_sum_exp, made_up
from defraction.provenance import sha256

log = logging.getLogger(__name__)

README = "README.md"
LIMIT = 90 * 10**6  # bytes of weights
LARGEST_DIFFERENCE = 0.02  # of a probability, between half and single precision, above which a model is not shipped
CHECKED = 512  # patterns on which both are compared
ACCURACY_KEYS = (
    "condition", "n_patterns", "accuracy_label", "accuracy_label_low", "accuracy_label_high", "accuracy_space_group",
    "limit_space_group", "accuracy_ensemble",
)  # fmt: skip
HELD_OUT = (
    "the held-out ones stay out of the shipped network on purpose, so that its accuracies over clean patterns are of "
    "patterns it never saw"
)


def half_precision(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Matrices of a network in half precision; vectors (batch norms, biases: 2 % of the file) stay as they are.

    Raises ValueError naming a matrix with a value that half precision cannot hold.
    """
    out = {}
    for name, value in state.items():
        half = value.half() if value.ndim > 1 and value.is_floating_point() else value
        if not torch.isfinite(half).all():
            raise ValueError(f"{name}: holds values beyond half precision (65504); this network cannot be shipped so")
        out[name] = half
    return out


def ship(
    source: Path | str,
    target: Path | str,
    reductions: Sequence[str] = (),
    command: str = "",
    accuracy: Path | str | None = None,
    unseen: Path | str | None = None,
    patterns: Path | str | None = None,
) -> dict[str, Any]:
    """Make the folder of a shipped model and return its card.

    Args:
        source: folder of a trained model: weights, card, and the open-set files of `openset.measure`.
        target: folder to make: `model.safetensors` (matrices in half precision), `card.json`, `README.md`,
            `openset.json`, `openset.safetensors`. What is there under these names is replaced.
        reductions: what the study reduced against the published one. command: that trained the model.
        accuracy: results/accuracy.csv, whose rows of this model go into the card. unseen: JSON of
            benchmarks/unseen_crystals.py.
        patterns: folder of the clean pattern files, for the comparison of half with single precision on held-out
            patterns; without it, on made-up spots.

    Raises FileNotFoundError for a source without one of its files, ValueError if the open-set statistics belong to
    another network, the weights are too large, or half precision changes a probability by more than 0.02.
    """
    source, target = Path(source), Path(target)
    for name in (WEIGHTS, CARD, OPENSET, STATISTICS):
        if not (source / name).is_file():
            hint = f"; make it with `snakemake {source / OPENSET}`" if name in (OPENSET, STATISTICS) else ""
            raise FileNotFoundError(f"{source / name}: is missing{hint}")
    network, card = model.load(source / WEIGHTS, source / CARD)
    openset = json.loads((source / OPENSET).read_text(encoding="utf-8"))
    if not belongs(openset, card, source / WEIGHTS):
        raise ValueError(f"{source / OPENSET}: belongs to another network than {WEIGHTS}; make it again")
    target.mkdir(parents=True, exist_ok=True)
    partial = target / (WEIGHTS + ".part")
    model.write_weights(half_precision(load_file(str(source / WEIGHTS))), card["architecture"], partial)
    size = partial.stat().st_size
    if size >= LIMIT:
        partial.unlink()
        raise ValueError(f"{source / WEIGHTS}: {size / 1e6:.1f} MB in half precision, more than {LIMIT / 1e6:.0f} MB")
    grey, what = _images(source, card, patterns)
    half, _ = model.load(partial, source / CARD)
    compared = compare(network, half, grey) | {"images": what}
    if compared["largest_difference"] > LARGEST_DIFFERENCE:
        partial.unlink()
        raise ValueError(
            f"{source / WEIGHTS}: half precision changes a probability by {compared['largest_difference']:.3f}, more "
            f"than {LARGEST_DIFFERENCE}; this network cannot be shipped so"
        )
    partial.replace(target / WEIGHTS)
    text = json.dumps({**openset, "weights": sha256(target / WEIGHTS)}, indent=1) + "\n"
    (target / OPENSET).write_text(text, encoding="utf-8")
    shutil.copyfile(source / STATISTICS, target / STATISTICS)
    card = {
        **card,
        "shipped": {
            "name": target.name,
            "model": source.name,
            "bytes": size,
            "half_precision": compared,
            "reductions": list(reductions),
            "training_command": command,
            "training_set": f"{card['data']['split']}; {HELD_OUT}",
            "accuracy": _accuracies(accuracy, source.name) if accuracy else [],
            "unseen_crystals": json.loads(Path(unseen).read_text(encoding="utf-8")) if unseen else None,
            "open_set": {
                key: openset[key]
                for key in (
                    "score",
                    "threshold",
                    "false_alarms",
                    "false_alarms_measured",
                    "ensemble_temperature",
                    "known",
                )
            }
            | {"families": {name: _short(row) for name, row in openset["families"].items()}},
            "intended_use": INTENDED,
            "limits": _limits(card, openset),
            "licence": "MIT",
        },
    }
    model.write_card(card, target / CARD)
    (target / README).write_text(readme(card), encoding="utf-8")
    log.info(
        "%s: %.1f MB, largest difference to single precision %.1e", target, size / 1e6, compared["largest_difference"]
    )
    return card


def compare(one: torch.nn.Module, other: torch.nn.Module, grey: np.ndarray) -> dict[str, Any]:
    """Two networks on the same images (n, y, x): largest difference of a probability, share of labels that differ."""
    images = torch.from_numpy(np.ascontiguousarray(grey)).float()[:, None]
    logits = [features(network, images)[1] for network in (one, other)]
    first, second = (np.exp(value - log_sum_exp(value)[:, None]) for value in logits)
    return {
        "patterns": len(grey),
        "largest_difference": float(np.abs(first - second).max()),
        "labels_changed": float((first.argmax(1) != second.argmax(1)).mean()),
    }


def _images(source: Path, card: Mapping[str, Any], folder: Path | str | None) -> tuple[np.ndarray, str]:
    """Held-out patterns as the network sees them, else made-up spots; and which it is, in words."""
    split = source / "split.csv"
    rows = members(read_split(split), "held_out") if folder and split.is_file() else []
    found = [row for row in rows if (Path(folder) / f"{row.material}.nc").is_file()]
    if not found:
        return made_up("spots", CHECKED, card["image"]["pixels"], 0), "made-up spots"
    shown = card["display"]
    each, parts = -(-CHECKED // len(found)), []
    for number, row in enumerate(found):
        path = Path(folder) / f"{row.material}.nc"
        opened = load_patterns(path, card["settings"].get("specimens", "all"))
        check_image(path, opened.x, card["image"])
        flat = opened.intensity[pattern_mask(row, "held_out", opened.intensity.shape[:3])]
        flat = flat.reshape(-1, *flat.shape[-2:])
        chosen = np.random.default_rng(number).choice(len(flat), min(each, len(flat)), replace=False)
        parts.append(display(flat[chosen], opened.x, opened.y, shown["beam_stop"], shown["decades"]))
    return np.concatenate(parts)[:CHECKED], "held-out clean patterns"


def _accuracies(path: Path | str, name: str) -> list[dict[str, Any]]:
    with Path(path).open(newline="", encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if row.get("model", name) == name]
    if not rows:
        raise ValueError(f"{path}: holds no row of the model {name}")
    return [{key: _number(row[key]) for key in ACCURACY_KEYS if row.get(key)} for row in rows]


def _number(text: str) -> Any:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        return text


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: row[key]
        for key in ("patterns", "crystals", "auroc", "auroc_low", "auroc_high", "auroc_of_crystals", "flagged")
    }


INTENDED = (
    "Research on how lattice defects change what a classifier says; a second opinion on zone-axis selected-area "
    "patterns of crystals that are known to be cubic and of space group 213, 221, 225, 227 or 229, best of several "
    "axes together."
)


def _limits(card: Mapping[str, Any], openset: Mapping[str, Any]) -> list[str]:
    """What the model cannot do, with the numbers measured."""
    turn, pixels = card["settings"]["augmentation"]["rotation"], card["image"]["pixels"]
    same, other = (openset["families"][name] for name in ("same_extinctions", "other_system"))
    out = [
        "Closed set: every crystal is called one of five space groups. Another group of the same extinctions cannot be "
        f"told apart by spot geometry (open-set AUROC {same['auroc']:.2f}).",
        "One pattern cannot decide: geometry alone allows at most 60 % over space groups (docs/learning.md).",
        "Trained on kinematical simulations of perfect crystals, never on a measured pattern, and never tested on one. "
        "Dynamical intensities, background, distortion and noise are not in its training.",
        f"Crystals of other systems are flagged in {other['flagged']:.0%} of their patterns, at a threshold that flags "
        f"{openset['false_alarms_measured']:.0%} of known ones (AUROC {other['auroc']:.2f}): a pattern without warning "
        "is not thereby cubic.",
        f"Patterns of {pixels} x {pixels} pixels; spots nearer than about three of them run together.",
    ]
    if turn < 90:
        out.append(f"Trained within {turn:g} degrees of the orientation of docs/conventions.md: turn pictures first.")
    return out


def readme(card: Mapping[str, Any]) -> str:
    """The model card as Hugging Face shows it: metadata in YAML, then what a user needs, all from `card`."""
    shipped, data, image = card["shipped"], card["data"], card["image"]
    opened, half = shipped["open_set"], shipped["half_precision"]
    # of the held-out patterns the table has them all, over every test copy
    metrics = {key: value for key, value in card["metrics"].items() if not key.startswith(("held_out", "validation"))}
    lines = [
        "---",
        "license: mit",
        "library_name: pytorch",
        "tags: [electron-diffraction, crystallography, image-classification, space-group]",
        "---",
        "",
        f"# {shipped['name']}",
        "",
        f"{card['architecture']} (torchvision, one grey channel), {len(card['labels'])} labels by appearance, "
        f"{image['pixels']} x {image['pixels']} pixels; space groups from labels as docs/learning.md says. "
        f"Weights: {shipped['bytes'] / 1e6:.1f} MB, matrices in half precision.",
        "",
        "    defraction classify PATTERN...",
        "",
        "## Intended use",
        "",
        shipped["intended_use"],
        "",
        "## Limits",
        "",
        *[f"* {text}" for text in shipped["limits"]],
        *[f"* Reduced against the published study: {text}." for text in shipped["reductions"]],
        "",
        "## Training",
        "",
        f"{data['training_patterns']} patterns of {data['training_crystals']} perfect crystals "
        f"(digest {data['training_digest'][:16]}), seed {card['seed']}; {card['selection']}.",
        f"Split: {shipped['training_set']}.",
        f"Display: {card['normalisation']}; {card['display']['decades']:g} decades, beam stop of "
        f"{card['display']['beam_stop']:g} mm, pixels of {image['pixel_size_mm']:g} mm.",
        *([f"Command: `{shipped['training_command']}`"] if shipped["training_command"] else []),
        f"Pass that was kept: {', '.join(f'{key} {_shown(value)}' for key, value in metrics.items())}.",
        "",
        "## Measured",
        "",
        f"Half against single precision, {half['patterns']} {half['images']}: largest difference of a probability "
        f"{half['largest_difference']:.1e}, labels changed {half['labels_changed']:.2%}.",
        "",
    ]
    if unseen := shipped["unseen_crystals"]:
        lines += ["Crystals of another database, none of them in training, by group:", ""]
        lines += [
            "| group | crystals | label (95 %) | space group | limit of geometry "
            "| space group, 16 axes (95 %) | flagged |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in unseen["rows"]:
            if row["by"] in ("all", "space_group"):
                lines.append(
                    f"| {row['value']} | {row['crystals']} | {_with_interval(row, 'accuracy_label')} | "
                    f"{_percent(row, 'accuracy_space_group')} | {_percent(row, 'limit_space_group')} | "
                    f"{_with_interval(row, 'accuracy_ensemble')} | {_percent(row, 'flagged')} |"
                )
        lines.append("")
    if shipped["accuracy"]:
        lines += ["Crystals of the study; no pattern of those of the rows `clean-held-out` trained this network:", ""]
        lines += ["| condition | patterns | label (95 %) | space group | limit of geometry | ensemble |"]
        lines += ["|---|---|---|---|---|---|"]
        for row in shipped["accuracy"]:
            lines.append(
                f"| {row['condition']} | {row.get('n_patterns', '')} | {_with_interval(row, 'accuracy_label')} "
                f"| {_percent(row, 'accuracy_space_group')} | {_percent(row, 'limit_space_group')} "
                f"| {_percent(row, 'accuracy_ensemble')} |"
            )
        lines.append("")
    lines += [
        f"Open-set score: {opened['score']}. Its threshold leaves {opened['false_alarms']:.0%} of the held-out clean "
        "patterns above it. Measured on one half of the crystals, with the threshold that does so on the other half: "
        f"{opened['false_alarms_measured']:.1%} of clean patterns are flagged, and of unlike ones:",
        "",
        "| unlike in what | patterns | crystals | AUROC of patterns (95 %) | of whole crystals | flagged |",
        "|---|---|---|---|---|---|",
        *[
            f"| {name.replace('_', ' ')} | {row['patterns']} | {row['crystals']} | {row['auroc']:.3f} "
            f"({row['auroc_low']:.3f} to {row['auroc_high']:.3f}) | {row['auroc_of_crystals']:.3f} "
            f"| {row['flagged']:.0%} |"
            for name, row in opened["families"].items()
        ],
        "",
        f"Licence: {shipped['licence']}. Cite: CITATION.cff of the repository.",
        "",
    ]
    return "\n".join(lines)


def _percent(row: Mapping[str, Any], key: str) -> str:
    return f"{row[key]:.1%}" if isinstance(row.get(key), int | float) else "-"


def _with_interval(row: Mapping[str, Any], key: str) -> str:
    low, high = (_percent(row, f"{key}_{end}") for end in ("low", "high"))
    return f"{_percent(row, key)} " + ("(too few for an interval)" if low == "-" else f"({low} to {high})")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
