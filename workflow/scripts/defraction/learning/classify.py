"""Pictures of one crystal to space groups: a model folder, its answers, the ensemble, the open-set warning."""

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from defraction.learning import model
from defraction.learning.infer import copied, copy_changes
from defraction.learning.labels import (
    LabelRow,
    single_pattern_limit,
    space_group_given_label,
    space_groups_of,
    table_of_card,
)
from defraction.learning.openset import Statistics, belongs, features, log_sum_exp
from defraction.pictures import Frame, Options, Picture, frame_of, prepare

log = logging.getLogger(__name__)

WEIGHTS, CARD, OPENSET, STATISTICS = "model.safetensors", "card.json", "openset.json", "openset.safetensors"
BATCH = 64
MOST_COUNTED = 16  # patterns whose evidence adds up; ensembles were measured up to this number
FLOOR = 1e-12  # smallest probability in a logarithm
CARD_KEYS = ("architecture", "labels", "label_table", "image", "display", "settings", "seed", "data")

Seen = Callable[[Picture, np.ndarray], None]


@dataclass(frozen=True)
class Classifier:
    """A trained network with what it takes to answer: its card, its label table and its open-set statistics.

    `statistics` and `openset` are None for a model without them: then nothing is said about how known a pattern looks.
    """

    network: torch.nn.Module
    card: Mapping[str, Any]
    table: Sequence[LabelRow]
    frame: Frame
    statistics: Statistics | None
    openset: Mapping[str, Any] | None
    folder: Path

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto") -> "Classifier":
        """Read a model folder: weights and card, and the open-set statistics where they are.

        Raises FileNotFoundError without weights or card, ValueError if they do not belong together.
        """
        folder = Path(folder)
        for name in (WEIGHTS, CARD):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"{folder}: no model, there is no {name}; train one, or name another folder (docs/classify.md)"
                )
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if missing := [key for key in CARD_KEYS if key not in card]:
            raise ValueError(f"{folder / CARD}: not the card of a model, it lacks {missing[0]}")
        network, card = model.load(folder / WEIGHTS, folder / CARD)
        table = table_of_card(card)
        statistics, openset = None, None
        if (folder / OPENSET).is_file() and (folder / STATISTICS).is_file():
            openset = json.loads((folder / OPENSET).read_text(encoding="utf-8"))
            statistics = Statistics.load(folder / STATISTICS)
            if not belongs(openset, card, folder / WEIGHTS):
                raise ValueError(f"{folder}: {OPENSET} belongs to another network than {WEIGHTS}; make it again")
        else:
            log.warning("%s has no open-set statistics: patterns unlike the training patterns go unnoticed", folder)
        target = model.choose_device(device)
        return cls(network.to(target), card, table, frame_of(card), statistics, openset, folder)

    def look(self, grey: np.ndarray, copies: int = 1) -> tuple[np.ndarray, np.ndarray | None]:
        """What the network sees in grey images (n, y, x): log P(label) of each copy, and how unlike the images look.

        Returns natural logarithms, shape (copy, n, label), of the copies of `infer.copy_changes`; and the open-set
        scores, shape (n,), of the images as they are, because the threshold is one for single patterns (None without
        open-set statistics).
        """
        changes = copy_changes(copies, self.card["settings"]["augmentation"], grey.shape[-1], self.card["seed"])
        images = torch.from_numpy(np.ascontiguousarray(grey)).float()[:, None]
        logs, scores = [], None
        for number in range(len(changes.angle)):
            found, logits = features(self.network, copied(images, changes, number))
            logs.append(logits - log_sum_exp(logits)[:, None])
            if number == 0 and self.statistics is not None:
                scores = self.statistics.scores(found, logits)[self.openset["score"]]
        return np.stack(logs), scores

    def answers(
        self, pictures: Iterable[Picture], options: Options, copies: int = 1, seen: Seen | None = None
    ) -> Iterator[dict[str, Any]]:
        """One answer for each picture, in order; log probabilities of `copies` test copies of it are averaged.

        `limit_space_group` is how often someone is right about the space group who knows that this is the label. `seen`
        is called with each picture and its grey values.
        Answers hold plain values but for `_evidence`, the log of P(space group | pattern), which `ensemble` takes.
        """
        given = space_group_given_label(self.table)
        groups = space_groups_of(self.table)
        pictures = iter(pictures)
        while batch := list(islice(pictures, BATCH)):
            prepared = [prepare(picture, self.frame, options) for picture in batch]
            logs, scores = self.look(np.stack([one.grey for one in prepared]), copies)
            mean = np.mean(logs, axis=0, dtype=np.float64)
            probability = np.exp(mean - log_sum_exp(mean)[:, None])
            by_group = probability @ given
            for row, (picture, one) in enumerate(zip(batch, prepared, strict=True)):
                if seen is not None:
                    seen(picture, one.grey)
                label = int(probability[row].argmax())
                answer = {
                    "file": picture.file,
                    "index": picture.index,
                    "label": label,
                    "label_name": self.card["labels"][label],
                    "probabilities": {str(n): float(p) for n, p in enumerate(probability[row])},
                    "space_group_probabilities": _named(groups, by_group[row]),
                    "limit_space_group": float(given[label].max()),
                    "unlikeness": None,
                    "warning": None,
                    "doubts": one.doubts,
                    "assumed": one.assumed,
                    "prepared": one.facts,
                    "_evidence": np.log(np.maximum(by_group[row], FLOOR)),
                }
                if scores is not None:
                    answer |= self._unlikeness(float(scores[row]))
                yield answer

    def _unlikeness(self, score: float) -> dict[str, Any]:
        threshold, quantiles = self.openset["threshold"], self.openset["quantiles"]
        above = 1 - float(np.searchsorted(quantiles, score)) / (len(quantiles) - 1)
        share = min(max(above, 0.0), 1.0)
        warning = None
        if score > threshold:
            rarely = f"{share:.1%}" if share > 0 else "none"
            warning = f"looks unlike anything the network was trained on: {rarely} of known patterns score so high"
        return {
            "unlikeness": {
                "rule": self.openset["score"],
                "score": score,
                "threshold": threshold,
                "share_of_known_patterns_above": share,
            },
            "warning": warning,
        }

    def ensemble(self, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What the patterns of one crystal say together; the order of `answers` does not matter.

        P(space group) ~ exp(sum of log P(space group | pattern) / T): Bayes' rule for a uniform prior, made humbler by
        the temperature T that held-out crystals fitted (1 where the model has none). Evidence of more than 16 patterns
        is averaged to that of 16. `limit_space_group` is how often someone would be right who knows that the labels are
        these, each from an axis at random; None if no space group has them all. Raises ValueError without any answer.
        """
        if not answers:
            raise ValueError("no pattern to classify")
        groups = space_groups_of(self.table)
        temperature = self.openset["ensemble_temperature"] if self.openset else 1.0
        weight = min(1.0, MOST_COUNTED / len(answers)) / temperature
        evidence = np.array(
            [weight * math.fsum(answer["_evidence"][i] for answer in answers) for i in range(len(groups))]
        )
        probability = np.exp(evidence - log_sum_exp(evidence))
        flagged = sum(answer["warning"] is not None for answer in answers)
        result = {
            "space_group_probabilities": _named(groups, probability),
            "space_group": groups[int(probability.argmax())],
            "limit_space_group": self._limit([answer["label"] for answer in answers]),
            "patterns": len(answers),
            "rule": "normalised product, tempered",
            "temperature": temperature,
            "patterns_with_warning": flagged,
            "unlikeness": None,
            "warning": None,
        }
        if self.openset:
            score = math.fsum(answer["unlikeness"]["score"] for answer in answers) / len(answers)
            thresholds = {int(k): value for k, value in self.openset["ensemble_thresholds"].items()}
            threshold = thresholds[max(k for k in thresholds if k <= len(answers))]
            result["unlikeness"] = {"rule": self.openset["score"], "mean_score": score, "threshold": threshold}
            if score > threshold:
                result["warning"] = "the patterns together look unlike the crystals that the network was trained on"
        return result

    def _limit(self, labels: Sequence[int]) -> float | None:
        """Largest P(space group | labels) for a uniform prior over groups and axes; None if no group has them all."""
        given = space_group_given_label(self.table)
        counts = np.bincount(labels, minlength=len(given))
        possible = (given[counts > 0] > 0).all(axis=0)
        if not possible.any():
            return None
        evidence = counts @ np.log(np.where(given > 0, given, 1.0))[:, possible]
        return float(1 / np.exp(evidence - evidence.max()).sum())


def classify(
    classifier: Classifier,
    pictures: Iterable[Picture],
    options: Options | None = None,
    copies: int = 1,
    seen: Seen | None = None,
) -> dict[str, Any]:
    """The whole answer for the pictures of one crystal, as `defraction classify --json` prints it.

    `seen` is called with each picture and the grey values that the network is shown. Raises ValueError if there is no
    picture or one cannot be prepared.
    """
    answers = list(classifier.answers(pictures, options or Options(), copies, seen))
    ensemble = classifier.ensemble(answers)
    card = classifier.card
    return {
        "ensemble": ensemble,
        "patterns": [{key: value for key, value in answer.items() if key != "_evidence"} for answer in answers],
        "model": {
            "folder": str(classifier.folder),
            "architecture": card["architecture"],
            "pixels": card["image"]["pixels"],
            "training_digest": card["data"]["training_digest"],
            "single_pattern_limit": single_pattern_limit(classifier.table),
            "open_set": _worth(classifier.openset, card),
        },
    }


def _worth(openset: Mapping[str, Any] | None, card: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the warning of single patterns was measured to be worth, by family; None without open-set statistics."""
    if openset is None:
        return None
    unseen = (card.get("shipped") or {}).get("unseen_crystals")
    return {
        "rule": openset["score"],
        "false_alarms": openset["false_alarms_measured"],
        "unseen_crystals": unseen and {key: unseen["rows"][0][key] for key in ("crystals", "flagged")},
        "families": {
            name: {"auroc": row["auroc"], "flagged": row["flagged"]} for name, row in openset["families"].items()
        },
    }


def _named(groups: Sequence[int], probability: np.ndarray) -> dict[str, float]:
    return {str(group): float(p) for group, p in zip(groups, probability, strict=True)}
