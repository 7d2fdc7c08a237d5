"""Pictures of one crystal to space groups: a model folder, its answers, the ensemble, the open-set warning."""

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from defraction.learning import model
from defraction.learning.infer import copy_angles
from defraction.learning.labels import LabelRow, parse_axis, space_group_given_label, space_groups_of
from defraction.learning.openset import Statistics, features, log_sum_exp
from defraction.learning.train import resample
from defraction.pictures import Frame, Options, Picture, frame_of, prepare

log = logging.getLogger(__name__)

WEIGHTS, CARD, OPENSET, STATISTICS = "model.safetensors", "card.json", "openset.json", "openset.safetensors"
BATCH = 64
MOST_COUNTED = 16  # patterns whose evidence adds up; ensembles were measured up to this number
FLOOR = 1e-12  # smallest probability in a logarithm
CARD_KEYS = ("architecture", "labels", "label_table", "image", "display", "settings", "data")


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
        table = [LabelRow(g, parse_axis(axis), label, card["labels"][label]) for g, axis, label in card["label_table"]]
        statistics, openset = None, None
        if (folder / OPENSET).is_file() and (folder / STATISTICS).is_file():
            openset = json.loads((folder / OPENSET).read_text(encoding="utf-8"))
            statistics = Statistics.load(folder / STATISTICS)
            if openset["training_digest"] != card["data"]["training_digest"]:
                raise ValueError(f"{folder}: {OPENSET} belongs to another network than {WEIGHTS}; make it again")
        else:
            log.warning("%s has no open-set statistics: patterns unlike the training patterns go unnoticed", folder)
        target = model.choose_device(device)
        return cls(network.to(target), card, table, frame_of(card), statistics, openset, folder)

    def answers(self, pictures: Iterable[Picture], options: Options, copies: int = 1) -> Iterator[dict[str, Any]]:
        """One answer for each picture, in order; `copies` turned copies of it are averaged.

        Answers hold plain values but for `_evidence`, the log of P(space group | pattern), which `ensemble` takes.
        """
        angles = copy_angles(copies, self.card["settings"]["augmentation"]["rotation"])
        given = space_group_given_label(self.table)
        groups = space_groups_of(self.table)
        pictures = iter(pictures)
        while batch := list(islice(pictures, BATCH)):
            prepared = [prepare(picture, self.frame, options) for picture in batch]
            grey = torch.from_numpy(np.stack([one.grey for one in prepared]))[:, None]
            logs, scores = [], []
            for angle in angles:
                n = len(grey)
                turned = resample(grey, np.full(n, np.radians(angle)), np.zeros((n, 2)), np.ones(n)) if angle else grey
                found, logits = features(self.network, turned)
                logs.append(logits - log_sum_exp(logits)[:, None])
                if self.statistics is not None:
                    scores.append(self.statistics.scores(found, logits)[self.openset["score"]])
            mean = np.mean(logs, axis=0, dtype=np.float64)
            probability = np.exp(mean - log_sum_exp(mean)[:, None])
            by_group = probability @ given
            for row, (picture, one) in enumerate(zip(batch, prepared, strict=True)):
                label = int(probability[row].argmax())
                answer = {
                    "file": picture.file,
                    "index": picture.index,
                    "label": label,
                    "label_name": self.card["labels"][label],
                    "probabilities": {str(n): float(p) for n, p in enumerate(probability[row])},
                    "space_group_probabilities": _named(groups, by_group[row]),
                    "unlikeness": None,
                    "warning": None,
                    "assumed": one.assumed,
                    "_evidence": np.log(np.maximum(by_group[row], FLOOR)),
                }
                if scores:
                    answer |= self._unlikeness(float(np.mean([score[row] for score in scores])))
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
        is averaged to that of 16. Raises ValueError without any answer.
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


def classify(
    classifier: Classifier, pictures: Iterable[Picture], options: Options | None = None, copies: int = 1
) -> dict[str, Any]:
    """The whole answer for the pictures of one crystal, as `defraction classify --json` prints it.

    Raises ValueError if there is no picture or one cannot be prepared.
    """
    answers = list(classifier.answers(pictures, options or Options(), copies))
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
        },
    }


def _named(groups: Sequence[int], probability: np.ndarray) -> dict[str, float]:
    return {str(group): float(p) for group, p in zip(groups, probability, strict=True)}
