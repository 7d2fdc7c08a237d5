"""What a network answered: prediction files and the arrays they hold."""

from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np

FLOOR = 1e-12
"""Smallest probability in a logarithm."""


@dataclass(frozen=True)
class Predictions:
    """Log probabilities of the patterns of some crystals.

    Attributes:
        log_probability: shape (material, zone_axis, voltage, camera_length, snapshot, copy, label), natural log.
        true_label: shape (material, zone_axis). space_group: shape (material,), of the perfect crystal.
        materials: ids, or the name of the condition.
        zone_axes: names, in order. voltages: kV. camera_lengths: m. Empty where nobody asks for accuracies by them.
        counted: shape of `log_probability` without copy and label; False where a pattern was trained on, and is left
            out of every count. None: all count.
    """

    log_probability: np.ndarray
    true_label: np.ndarray
    space_group: np.ndarray
    materials: list[str]
    zone_axes: tuple[str, ...] = ()
    voltages: tuple[float, ...] = ()
    camera_lengths: tuple[float, ...] = ()
    counted: np.ndarray | None = None

    @property
    def n_patterns(self) -> int:
        """Distinct (crystal, zone axis, voltage, camera length, snapshot) that count."""
        return int(np.prod(self.log_probability.shape[:5]) if self.counted is None else self.counted.sum())


def read_predictions(path: Path | str) -> Predictions:
    """Read a prediction file; raises ValueError naming the file if it is not one or is not finite."""
    with netCDF4.Dataset(path) as file:
        file.set_auto_mask(False)
        missing = {"log_probability", "true_label", "space_group", "material"} - set(file.variables)
        if missing:
            raise ValueError(f"{path}: not a prediction file, it lacks {', '.join(sorted(missing))}")

        def coordinate(name: str, kind: type) -> tuple:
            return tuple(kind(value) for value in file[name][:]) if name in file.variables else ()

        counted = np.asarray(file["held_out"][:], dtype=bool) if "held_out" in file.variables else None
        found = Predictions(
            log_probability=np.asarray(file["log_probability"][:], dtype=float),
            true_label=np.asarray(file["true_label"][:], dtype=int),
            space_group=np.asarray(file["space_group"][:], dtype=int),
            materials=[str(name) for name in file["material"][:]],
            zone_axes=coordinate("zone_axis", str),
            voltages=coordinate("voltage", float),
            camera_lengths=coordinate("camera_length", float),
            counted=counted,
        )
    if not np.isfinite(found.log_probability if counted is None else found.log_probability[counted]).all():
        raise ValueError(f"{path}: probabilities that are not finite; the training may have diverged")
    if counted is not None and not counted.any():
        raise ValueError(f"{path}: held_out is 0 everywhere, so no pattern counts; hold some out of the training")
    return found
