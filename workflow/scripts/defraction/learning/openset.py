"""Open set: does a pattern look like anything the network was trained on? Scores, their statistics, their AUROC.

A score is large for a pattern unlike the training patterns. Seven are compared, all from one forward pass:

* `msp`: 1 - largest probability (Hendrycks & Gimpel 2017, 10.48550/arXiv.1610.02136);
* `max_logit`: - largest logit (Hendrycks et al. 2022, 10.48550/arXiv.1911.11132);
* `energy`: - log sum exp of the logits (Liu et al. 2020, 10.48550/arXiv.2010.03759);
* `mahalanobis`: squared distance to the nearest label mean under the covariance within labels (Lee et al. 2018,
  10.48550/arXiv.1807.03888);
* `relative_mahalanobis`: the same less the squared distance to the mean of all under the covariance of all (Ren et al.
  2021, 10.48550/arXiv.2106.09022);
* `nearest`: distance to the k-th nearest of stored training patterns, all on the unit sphere (Sun et al. 2022,
  10.48550/arXiv.2204.06507);
* `vim`: length of what the principal axes leave over, scaled to logits, less the log sum exp (Wang et al. 2022,
  10.1109/CVPR52688.2022.00487).

The last four use features: what enters the last layer. Their statistics are taken from augmented training patterns in
the space of the leading principal axes, so that they are small enough to be shipped with the weights.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import torch

from defraction.dataset import (
    Patterns,
    SplitRow,
    display,
    load_patterns,
    members,
    pattern_mask,
    read_split,
    true_labels,
)
from defraction.learning import model
from defraction.learning.labels import LabelRow, space_group_given_label, space_groups_of, table_of_card
from defraction.learning.train import draw_changes, resample
from defraction.provenance import sha256

log = logging.getLogger(__name__)

SCORES = ("msp", "max_logit", "energy", "mahalanobis", "relative_mahalanobis", "nearest", "vim")
DEFAULTS: dict[str, Any] = {
    "training_patterns": 40,  # of each training crystal, drawn at random
    "axes": 64,  # principal axes that are kept
    "neighbour": 10,  # which of the nearest stored patterns
    "stored": 40,  # of each label
    "shrinkage": 0.01,  # of covariances towards multiples of the identity
    "false_alarms": 0.05,  # share of held-out clean patterns above the threshold
    "pictures": 200,  # of each made-up family
    "bootstrap": 500,
}
ENSEMBLES = (1, 2, 4, 8, 16)
TEMPERATURES = (0.25, 64, 200)  # from, to, how many, evenly in the logarithm
QUANTILES = 201  # of the scores of held-out clean patterns that are kept, for the share that scores higher


# --- features --------------------------------------------------------------------------------------------------------


def features(network: torch.nn.Module, images: torch.Tensor, batch: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """What enters the last layer, (n, feature), and the logits, (n, label), float32, of grey images (n, 1, y, x).

    Always in single precision, whatever the network was trained in: thresholds are measured in the arithmetic in which
    `defraction classify` compares with them.
    """
    kept: list[torch.Tensor] = []
    hook = network.fc.register_forward_pre_hook(lambda _, given: kept.append(given[0].float().cpu()))
    target = next(network.parameters()).device
    logits = []
    try:
        with torch.inference_mode():
            for start in range(0, len(images), batch):
                part = images[start : start + batch].to(target).float()
                logits.append(network(part.contiguous(memory_format=torch.channels_last)).float().cpu())
    finally:
        hook.remove()
    return torch.cat(kept).numpy(), torch.cat(logits).numpy()


def log_sum_exp(logits: np.ndarray) -> np.ndarray:
    """Natural log of the sum of exponentials over the last axis."""
    top = logits.max(axis=-1, keepdims=True)
    return (top + np.log(np.exp(logits - top).sum(axis=-1, keepdims=True)))[..., 0]


# --- statistics and scores -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Statistics:
    """What the scores need of the training patterns; arrays float32.

    Attributes:
        mean: (feature,). axes: principal axes as columns, (feature, axis).
        whitening: makes the covariance within labels the unit matrix, (axis, axis). centres: label means in that space,
            (label, axis). whitening_all: the same for the covariance of all.
        stored: training patterns on the unit sphere of the principal axes, (pattern, axis).
        neighbour: which of the nearest stored ones counts. vim: factor from residual to logits.
    """

    mean: np.ndarray
    axes: np.ndarray
    whitening: np.ndarray
    centres: np.ndarray
    whitening_all: np.ndarray
    stored: np.ndarray
    neighbour: int
    vim: float

    @classmethod
    def fit(
        cls,
        found: np.ndarray,
        logits: np.ndarray,
        labels: np.ndarray,
        axes: int = 64,
        neighbour: int = 10,
        stored: int = 40,
        shrinkage: float = 0.01,
        seed: int = 0,
    ) -> "Statistics":
        """Statistics of training features (n, feature) with their logits (n, label) and true labels (n,).

        Raises ValueError if there are fewer patterns than principal axes or a feature is not finite.
        """
        if len(found) <= axes or not np.isfinite(found).all():
            raise ValueError(
                f"open set: {len(found)} training patterns for {axes} principal axes, or features not finite"
            )
        mean = found.mean(axis=0)
        _, _, rows = np.linalg.svd(found - mean, full_matrices=False)
        basis = rows[: min(axes, found.shape[1])].T
        low = (found - mean) @ basis
        present = np.unique(labels)
        centres = np.stack([low[labels == label].mean(axis=0) for label in present])
        within = low - centres[np.searchsorted(present, labels)]
        whitening = _whitening(within, shrinkage)
        rng = np.random.default_rng(seed)
        chosen = np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:stored] for label in present])
        residual = np.linalg.norm(found - mean - low @ basis.T, axis=1)
        top = logits.max(axis=1)
        return cls(
            mean.astype(np.float32),
            basis.astype(np.float32),
            whitening.astype(np.float32),
            (centres @ whitening).astype(np.float32),
            _whitening(low, shrinkage).astype(np.float32),
            _on_sphere(low[chosen]).astype(np.float32),
            min(neighbour, len(chosen)),
            float(top.mean() / max(residual.mean(), 1e-12)),
        )

    def scores(self, found: np.ndarray, logits: np.ndarray) -> dict[str, np.ndarray]:
        """Every score of `SCORES` for features (n, feature) and logits (n, label), each of shape (n,)."""
        found = found.astype(np.float64)
        low = (found - self.mean) @ self.axes
        energy = -log_sum_exp(logits.astype(np.float64))
        top = logits.max(axis=1)
        white = low @ self.whitening
        within = ((white**2).sum(1)[:, None] - 2 * white @ self.centres.T + (self.centres**2).sum(1)).min(axis=1)
        overall = ((low @ self.whitening_all) ** 2).sum(axis=1)
        closeness = _on_sphere(low) @ self.stored.T
        place = self.stored.shape[0] - self.neighbour
        kth = np.partition(closeness, place, axis=1)[:, place]
        residual = np.linalg.norm(found - self.mean - low @ self.axes.T, axis=1)
        return {
            "msp": 1 - np.exp(top + energy),
            "max_logit": -top,
            "energy": energy,
            "mahalanobis": within,
            "relative_mahalanobis": within - overall,
            "nearest": np.sqrt(np.maximum(0, 2 - 2 * kth)),
            "vim": self.vim * residual + energy,
        }

    def save(self, path: Path | str) -> None:
        """Write as safetensors."""
        from safetensors.numpy import save_file

        names = ("mean", "axes", "whitening", "centres", "whitening_all", "stored")
        numbers = {"neighbour": str(self.neighbour), "vim": repr(self.vim)}
        save_file({name: np.ascontiguousarray(getattr(self, name)) for name in names}, str(path), metadata=numbers)
        Path(path).chmod(0o644)

    @classmethod
    def load(cls, path: Path | str) -> "Statistics":
        """Read what `save` wrote; raises ValueError naming the file for anything else."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), "numpy") as file:
                arrays = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
                numbers = file.metadata() or {}
            return cls(**arrays, neighbour=int(numbers["neighbour"]), vim=float(numbers["vim"]))
        except (SafetensorError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: no statistics for the open-set score ({error}); make them again") from None


def _whitening(values: np.ndarray, shrinkage: float) -> np.ndarray:
    """Matrix W for which the covariance of `values @ W` is the unit matrix; symmetric (ZCA)."""
    covariance = values.T @ values / len(values)
    size = len(covariance)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / size * np.eye(size)
    variances, vectors = np.linalg.eigh(covariance)
    return vectors / np.sqrt(np.maximum(variances, 1e-12)) @ vectors.T


def _on_sphere(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


# --- AUROC -----------------------------------------------------------------------------------------------------------


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """Probability that an unknown pattern scores higher than a known one, ties counted half (Mann & Whitney 1947,
    10.1214/aoms/1177730491)."""
    ordered = np.sort(known)
    below, up_to = np.searchsorted(ordered, unknown, "left"), np.searchsorted(ordered, unknown, "right")
    return float((below + up_to).mean() / (2 * len(known)))


def auroc_interval(
    known: Sequence[np.ndarray],
    unknown: Sequence[np.ndarray],
    samples: int,
    seed: int,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Cluster bootstrap of the AUROC: crystals of both sides are drawn whole, with replacement.

    Args:
        known, unknown: scores by crystal, one array each.
    """
    pairs = np.array([[auroc(a, b) for b in unknown] for a in known])
    weights = np.array([[len(a) * len(b) for b in unknown] for a in known], dtype=float)
    rng = np.random.default_rng(seed)
    found = np.empty(samples)
    for number in range(samples):
        rows, columns = rng.integers(len(known), size=len(known)), rng.integers(len(unknown), size=len(unknown))
        chosen = np.ix_(rows, columns)
        found[number] = (pairs[chosen] * weights[chosen]).sum() / weights[chosen].sum()
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


# --- what nobody trained on -------------------------------------------------------------------------------------------


def read_unknown(path: Path | str) -> dict[str, list[Patterns]]:
    """The families of a file of `simulate_unknown`: one `Patterns` for each crystal, `intensity` (pattern, y, x).

    Raises ValueError naming the file if it is none.
    """
    with netCDF4.Dataset(path) as file:
        file.set_auto_mask(False)
        if missing := [name for name in ("family", "crystal", "intensity", "x", "y") if name not in file.variables]:
            raise ValueError(f"{path}: no file of unknown patterns, it lacks {missing[0]}; simulate it again")
        families, crystals = np.array(file["family"][:]), np.array(file["crystal"][:])
        x, y = (np.asarray(file[name][:], dtype=float) for name in ("x", "y"))
        out: dict[str, list[Patterns]] = {}
        for family in dict.fromkeys(families.tolist()):
            for crystal in dict.fromkeys(crystals[families == family].tolist()):
                place = np.flatnonzero((families == family) & (crystals == crystal))
                values = np.asarray(file["intensity"][place], dtype=np.float32)
                none = np.zeros(0)
                out.setdefault(family, []).append(Patterns(values, [], none, none, x, y, {"crystal": crystal}))
    return out


def made_up(kind: str, count: int, pixels: int, seed: int) -> np.ndarray:
    """Grey pictures in [0, 1] that are no patterns, float32 (n, y, x).

    `noise`: uniform noise. `dead_leaves`: opaque discs of all sizes over one another, which have the edges and the
    spectrum of photographs (Lee, Mumford & Huang 2001, 10.1023/A:1011109015675). `rings`: powder rings at random radii.
    `spots`: bright dots at random places, as many as a pattern has.
    """
    rng = np.random.default_rng([seed, sum(map(ord, kind))])
    y, x = np.mgrid[:pixels, :pixels] - (pixels - 1) / 2
    radius = np.hypot(x, y)
    out = np.zeros((count, pixels, pixels), dtype=np.float32)
    for image in out:
        if kind == "noise":
            image[:] = rng.random((pixels, pixels))
        elif kind == "dead_leaves":
            for size in np.sort(1 / np.sqrt(rng.uniform(1 / (pixels / 3) ** 2, 1 / 1.5**2, 300)))[::-1]:
                centre = rng.uniform(-pixels / 2, pixels / 2, 2)
                image[np.hypot(x - centre[0], y - centre[1]) < size] = rng.random()
        elif kind == "rings":
            for ring in rng.uniform(4, pixels * 0.7, rng.integers(2, 9)):
                image += rng.uniform(0.2, 1) * np.exp(-0.5 * ((radius - ring) / rng.uniform(0.5, 1.5)) ** 2)
        elif kind == "spots":
            for centre in rng.uniform(-pixels / 2, pixels / 2, (rng.integers(6, 80), 2)):
                spot = np.exp(-0.5 * ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / rng.uniform(0.4, 0.8) ** 2)
                np.maximum(image, rng.uniform(0.2, 1) * spot, out=image)
        else:
            raise ValueError(f"no made-up pictures called {kind!r}")
        image /= max(float(image.max()), 1e-12)
    return out


MADE_UP = ("noise", "dead_leaves", "rings", "spots")


# --- the measurement -------------------------------------------------------------------------------------------------


@dataclass
class _Group:
    """Scores of one family: `scores[name]` (n,), `cluster` (n,) the crystal of each pattern."""

    scores: dict[str, np.ndarray]
    cluster: np.ndarray

    def by_cluster(self, name: str, half: int | None = None) -> list[np.ndarray]:
        return [
            self.scores[name][self.cluster == number]
            for number in np.unique(self.cluster)
            if half is None or number % 2 == half
        ]


def measure(
    patterns: Mapping[str, Path | str],
    split: Path | str,
    weights: Path | str,
    card_path: Path | str,
    unknown: Path | str,
    output: Path | str,
    statistics: Path | str,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
) -> dict[str, Any]:
    """Fit the statistics of a trained network, measure every score, choose one, and write both.

    Args:
        patterns: pattern file by material id, for every crystal of the split table.
        split, weights, card_path: what training wrote. unknown: file of `unknown.simulate_unknown`.
        output: JSON with the AUROC of every score and family (of patterns, and of whole crystals by the mean score of
            all their patterns), the chosen score, its threshold and the temperature of
            ensembles (`fit_temperature`). statistics: safetensors of `Statistics`.
        settings: keys and defaults as in `DEFAULTS`.

    Training crystals give the statistics, held-out crystals the known patterns, in the specimens that the network was
    trained on. Of both the known and the unknown
    crystals one half chooses the score (largest mean AUROC over the families that geometry can tell apart) and the
    threshold, the other half is reported. The threshold that is kept comes from all held-out crystals.

    Raises ValueError without held-out crystals.
    """
    options = {**DEFAULTS, **(settings or {})}
    if threads:
        torch.set_num_threads(threads)
    target = model.choose_device(device)
    network, card = model.load(weights, card_path)
    network = network.to(target)
    table, rows = table_of_card(card), read_split(split)
    training, held_out = members(rows, "train"), members(rows, "held_out")
    if not held_out:
        raise ValueError(f"{split}: no held-out crystals, and so no known patterns to measure with")
    see = _Reader(network, card, table, options, seed)

    found, logits, labels, _ = see.files(patterns, training, "train", options["training_patterns"])
    keys = ("axes", "neighbour", "stored", "shrinkage")
    fitted = Statistics.fit(found, logits, labels, **{key: options[key] for key in keys}, seed=seed)
    log.info("statistics of %d patterns of %d training crystals", len(found), len(training))

    found, logits, labels, cluster = see.files(patterns, held_out, "held_out", None)
    known = _Group(fitted.scores(found, logits), cluster)
    temperature = fit_temperature(logits, labels, cluster, table, [row.space_group for row in held_out], seed)
    accuracy = float((logits.argmax(1) == labels).mean())

    groups: dict[str, _Group] = {}
    for family, crystals in read_unknown(unknown).items():
        groups[family] = see.simulated(crystals, fitted)
        log.info("%s: %d patterns of %d crystals", family, len(groups[family].cluster), len(crystals))
    groups["two_crystals"] = see.overlays([patterns[row.material] for row in held_out], options["pictures"], fitted)
    for kind in MADE_UP:
        grey = made_up(kind, options["pictures"], card["image"]["pixels"], seed)
        groups[kind] = see.pictures(grey, fitted)

    decided = [name for name in groups if name not in ("same_extinctions", "tilted_10_mrad")]
    choosing = {score: float(np.mean([_auroc(known, groups[name], score, 0) for name in decided])) for score in SCORES}
    best = max(SCORES, key=choosing.get)
    limit = float(np.quantile(np.concatenate(known.by_cluster(best, 0)), 1 - options["false_alarms"]))
    families = {}
    for name, group in groups.items():
        low, high = auroc_interval(known.by_cluster(best, 1), group.by_cluster(best, 1), options["bootstrap"], seed)
        families[name] = {
            "patterns": sum(map(len, group.by_cluster(best, 1))),
            "crystals": len(group.by_cluster(best, 1)),
            "auroc": _auroc(known, group, best, 1),
            "auroc_low": low,
            "auroc_high": high,
            "auroc_of_crystals": auroc(_means(known, best), _means(group, best)),
            "flagged": float((np.concatenate(group.by_cluster(best, 1)) > limit).mean()),
            "auroc_by_score": {score: _auroc(known, group, score, 1) for score in SCORES},
        }
    everything = known.scores[best]
    result = {
        "score": best,
        "threshold": float(np.quantile(everything, 1 - options["false_alarms"])),
        "false_alarms": options["false_alarms"],
        "false_alarms_measured": float((np.concatenate(known.by_cluster(best, 1)) > limit).mean()),
        "quantiles": np.quantile(everything, np.linspace(0, 1, QUANTILES)).tolist(),
        "ensemble_thresholds": _ensemble_thresholds(known, best, options["false_alarms"], seed),
        "ensemble_temperature": temperature,
        "mean_auroc_of_choice": choosing,
        "families": families,
        "known": {"patterns": len(everything), "crystals": len(held_out), "label_accuracy": accuracy},
        "settings": options,
        "seed": seed,
        "training_digest": card["data"]["training_digest"],
        "weights": sha256(weights),
    }
    fitted.save(statistics)
    Path(output).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def belongs(openset: Mapping[str, Any], card: Mapping[str, Any], weights: Path | str) -> bool:
    """Whether what `measure` wrote is of this network; files of older versions name its training data only."""
    if openset["training_digest"] != card["data"]["training_digest"]:
        return False
    return "weights" not in openset or openset["weights"] == sha256(weights)


def _auroc(known: _Group, unknown: _Group, score: str, half: int) -> float:
    return auroc(np.concatenate(known.by_cluster(score, half)), np.concatenate(unknown.by_cluster(score, half)))


def _means(group: _Group, score: str) -> np.ndarray:
    """Mean score of each crystal of the reported half."""
    return np.array([values.mean() for values in group.by_cluster(score, 1)])


def _ensemble_thresholds(known: _Group, score: str, false_alarms: float, seed: int) -> dict[str, float]:
    """By number k of patterns: what the mean score of k patterns of one held-out crystal exceeds so often."""
    rng = np.random.default_rng(seed)
    by_crystal = known.by_cluster(score)
    out = {}
    for k in ENSEMBLES:
        means = [rng.choice(values, (200, k)).mean(axis=1) for values in by_crystal]
        out[str(k)] = float(np.quantile(np.concatenate(means), 1 - false_alarms))
    return out


def fit_temperature(
    logits: np.ndarray,
    labels: np.ndarray,
    cluster: np.ndarray,
    table: Sequence[LabelRow],
    space_groups: Sequence[int],
    seed: int,
) -> float:
    """The T for which P(space group) ~ exp(sum of log P(space group | pattern) / T) fits held-out crystals best.

    Patterns of one crystal are not independent and a network is too sure of itself, so the plain product (T = 1) claims
    more than it knows. T minimises the negative log likelihood over ensembles of 1 to 16 random patterns of a crystal
    (as temperature scaling does for one pattern: Guo et al. 2017, 10.48550/arXiv.1706.04599).
    """
    groups = space_groups_of(table)
    probability = np.exp(logits - log_sum_exp(logits)[:, None]) @ space_group_given_label(table)
    evidence = np.log(np.maximum(probability, 1e-12))
    rng = np.random.default_rng(seed)
    sums, truth = [], []
    for number in np.unique(cluster):
        mine = evidence[cluster == number]
        for k in ENSEMBLES:
            sums.append(mine[rng.integers(len(mine), size=(50, k))].sum(axis=1))
            truth.append(np.full(50, groups.index(space_groups[number])))
    total, right = np.concatenate(sums), np.concatenate(truth)

    def loss(temperature: float) -> float:
        scaled = total / temperature
        return float((log_sum_exp(scaled) - scaled[np.arange(len(scaled)), right]).mean())

    grid = np.geomspace(*TEMPERATURES)
    return float(grid[np.argmin([loss(temperature) for temperature in grid])])


@dataclass
class _Reader:
    """Patterns to features, as the network sees them: displayed, and turned and shifted as in training."""

    network: torch.nn.Module
    card: Mapping[str, Any]
    table: Sequence[LabelRow]
    options: Mapping[str, Any]
    seed: int

    @property
    def specimens(self) -> str:
        """Those of each clean crystal that the network knows."""
        return self.card["settings"].get("specimens", "all")

    def _features(self, grey: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, number])
        images = torch.from_numpy(grey).float()[:, None]
        strength = {"mirror": False, **self.card["settings"]["augmentation"]}
        changes = draw_changes(len(grey), grey.shape[-1], rng, strength)
        images = resample(images, *changes) if changes.any else images
        return features(self.network, images)

    def _displayed(self, intensity: np.ndarray, x: np.ndarray, y: np.ndarray, most: int | None, number: int):
        """Grey values of at most `most` patterns drawn at random, with their places in the flat list of all."""
        flat = intensity.reshape(-1, *intensity.shape[-2:])
        place = np.arange(len(flat))
        if most is not None and most < len(flat):
            place = np.sort(np.random.default_rng([self.seed, number]).choice(len(flat), most, replace=False))
        shown = self.card["display"]
        return display(flat[place], x, y, shown["beam_stop"], shown["decades"]), place

    def files(
        self, patterns: Mapping[str, Path | str], rows: Sequence[SplitRow], part: str, most: int | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Features, logits, true labels and number of the crystal for the patterns of one part of the split."""
        parts = []
        for number, row in enumerate(rows):
            opened = load_patterns(patterns[row.material], self.specimens)
            inside = np.repeat(pattern_mask(row, part, opened.intensity.shape[:3]).ravel(), opened.intensity.shape[3])
            per_axis = true_labels(self.table, row.space_group, opened.zone_axes)
            labels = np.repeat(per_axis, len(inside) // len(per_axis))[inside]
            flat = opened.intensity.reshape(-1, *opened.intensity.shape[-2:])[inside]
            grey, place = self._displayed(flat, opened.x, opened.y, most, number)
            parts.append((*self._features(grey, number), labels[place], np.full(len(grey), number)))
        return tuple(np.concatenate(values) for values in zip(*parts, strict=True))

    def simulated(self, crystals: Sequence[Patterns], fitted: Statistics) -> _Group:
        """Scores of the patterns of some crystals, all of them."""
        parts = []
        for number, found in enumerate(crystals):
            grey, _ = self._displayed(found.intensity, found.x, found.y, None, number)
            parts.append((fitted.scores(*self._features(grey, number)), np.full(len(grey), number)))
        scores = {name: np.concatenate([part[0][name] for part in parts]) for name in SCORES}
        return _Group(scores, np.concatenate([part[1] for part in parts]))

    def overlays(self, files: Sequence[Path | str], count: int, fitted: Statistics) -> _Group:
        """Scores of sums of two patterns of two crystals, equally bright, the second turned by 90 degrees."""
        rng = np.random.default_rng([self.seed, count])
        drawn: list[np.ndarray] = []
        crystal: list[int] = []
        for number in rng.permutation(len(files)).tolist():
            opened = load_patterns(files[number], self.specimens)
            flat = opened.intensity.reshape(-1, *opened.intensity.shape[-2:])
            stop = np.hypot(*np.meshgrid(opened.x, opened.y)) < self.card["display"]["beam_stop"]
            for place in rng.choice(len(flat), min(len(flat), max(2, 2 * count // len(files) + 1)), replace=False):
                one = np.where(stop, 0, flat[place])
                drawn.append(one / max(float(one.max()), 1e-30))
                crystal.append(number)
        order = rng.permutation(len(drawn)).tolist()
        pairs = [(a, b) for a, b in zip(order[::2], order[1::2], strict=False) if crystal[a] != crystal[b]][:count]
        if not pairs:
            raise ValueError("overlays of two crystals need two held-out crystals; hold more out of the training")
        both = np.stack([drawn[a] + np.rot90(drawn[b]) for a, b in pairs])
        shown = self.card["display"]
        return self.pictures(display(both, opened.x, opened.y, shown["beam_stop"], shown["decades"]), fitted)

    def pictures(self, grey: np.ndarray, fitted: Statistics) -> _Group:
        """Scores of grey pictures, each a crystal of its own."""
        return _Group(fitted.scores(*self._features(grey, 0)), np.arange(len(grey)))
