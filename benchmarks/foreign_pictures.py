"""How often `defraction classify` finds contrast and centre of pictures as a microscope might have taken them.

    python benchmarks/foreign_pictures.py [--crystals 60] [--pictures 8] [--size 512] [--model DIR [--split CSV]]

Patterns of crystals of resources/materials.csv are simulated and made into pictures, of which each draws: its place off
the middle, a turn, the width of its spots, how even their intensities are (as many beams make them), background,
amorphous rings, counting noise, hot pixels, a beam stop with its arm, the dark corners of a round screen, how
intensities become numbers, whether it is a negative, a scale bar. Printed for each of these: the share of pictures
whose contrast and whose centre is right, and how many of the wrong and of the right ones carry a doubt.

With MODEL also accuracies over labels: of the simulated patterns, and of the pictures with nothing stated and with
contrast, centre and scale stated. SPLIT is the split table of the model; then only held-out crystals are taken.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from scipy.ndimage import gaussian_filter, map_coordinates

from defraction import materials, pictures
from defraction.diffraction.geometry import wavelength
from defraction.diffraction.patterns import simulate
from defraction.learning.labels import ZONE_AXES

TABLE = Path(__file__).resolve().parents[1] / "resources/materials.csv"
WIDTH = 48.0  # mm, of the detector
VOLTAGES, LENGTHS = (120.0, 200.0, 300.0), (0.5, 0.8, 1.2)  # kV, m
BLOCK = (40, 30, 20)  # cells
MOST_ATOMS = 60  # in the cell; larger crystals take long
RIGHT = 1 / 128  # of the width, by which a centre may be off: half a pixel of a network of 64
FRAME = pictures.Frame(64, WIDTH / 64, 2.0, 3.0, None, 0.5)  # of a network as config/shipped.yaml trains it


@dataclass(frozen=True)
class Taken:
    """A picture (y, x) of 8 or 16 bits with what is true of it: direct beam (x, y) [px], and what spoiled it."""

    values: np.ndarray
    centre: tuple[float, float]
    spoiled: dict[str, str]

    @property
    def negative(self) -> bool:
        """Whether spots are dark."""
        return self.spoiled["contrast"] == "negative"

    def picture(self, **facts) -> pictures.Picture:
        """As if read from a file."""
        kind = "display" if self.values.dtype == np.uint8 else "linear"
        values = self.values.astype(np.float32)
        return pictures.Picture(values, np.zeros(values.shape, bool), "picture", {}, kind, **facts)


def take(intensity: np.ndarray, size: int, rng: np.random.Generator) -> Taken:
    """A picture of `size` pixels of a simulated pattern, intensities (y, x) centred in a square."""
    y, x = np.indices((size, size))
    pattern = _spots(intensity, rng)
    centre = (size - 1) / 2 + rng.uniform(-0.12, 0.12, 2) * size
    right, down = x - centre[0], y - centre[1]
    values = _placed(pattern, right * len(pattern) / size, down * len(pattern) / size, rng.uniform(0, 2 * np.pi))
    radius = np.hypot(right, down) / size

    background = str(rng.choice(["none", "wide", "rings"]))
    if background == "wide":
        values += rng.choice([0.01, 0.03, 0.1]) * np.exp(-radius / 0.12)
    elif background == "rings":
        rings = np.exp(-(((radius - 0.13) / 0.02) ** 2) / 2) + 0.4 * np.exp(-(((radius - 0.23) / 0.03) ** 2) / 2)
        values += 0.02 * rings
    dose = int(rng.choice([0, 300, 3000]))  # electrons in the brightest pixel of a spot
    if dose:
        values = rng.poisson(values * dose) / dose + rng.normal(0, 1 / dose, values.shape)
    hot = bool(rng.random() < 0.5)
    if hot:
        values[tuple(rng.integers(0, size, (2, 10)))] = 5 * values.max()
    stopped = bool(rng.random() < 0.5)
    if stopped:
        values = np.where(_beam_stop(right, down, size, rng), rng.choice([0.0, 0.02]) * values, values)
    corners = bool(rng.random() < 0.5)
    if corners:
        off = (size - 1) / 2 + rng.uniform(-0.03, 0.03, 2) * size
        values = np.where(np.hypot(x - off[0], y - off[1]) > size / 2, 0, values)

    response, shown = _response(np.maximum(values, 0), rng)
    negative = bool(rng.random() < 0.5)
    if negative:
        shown = shown.max() - shown
    bar = bool(rng.random() < 0.25)
    if bar:
        shown = _with_scale_bar(shown, rng)
    spoiled = {
        "numbers": response,
        "contrast": "negative" if negative else "bright spots",
        "background": background,
        "noise": f"{dose} electrons" if dose else "none",
        "beam stop": "yes" if stopped else "no",
        "dark corners": "yes" if corners else "no",
        "hot pixels": "yes" if hot else "no",
        "scale bar": "yes" if bar else "no",
    }
    return Taken(shown, (float(centre[0]), float(centre[1])), spoiled)


def _spots(intensity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The pattern with a weakened direct beam, spots of another width and evenness, 1 at its brightest spot."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in intensity.shape)
    direct = np.hypot(y[:, None], x) < 0.018 * len(intensity)
    spots = np.where(direct, 0, intensity)
    spots = (spots / spots.max()) ** rng.choice([0.5, 1.0])
    spots += np.where(direct, np.minimum(intensity / intensity[~direct].max(), 30), 0)
    spots = gaussian_filter(spots, rng.choice([1.0, 2.0, 3.0]) * len(intensity) / 512, mode="constant")
    return spots / spots[~direct].max()


def _placed(pattern: np.ndarray, right: np.ndarray, down: np.ndarray, angle: float) -> np.ndarray:
    """Values of a pattern at places relative to its centre, turned by `angle`; 0 outside of it."""
    middle, cosine, sine = (len(pattern) - 1) / 2, np.cos(angle), np.sin(angle)
    rows, columns = cosine * down - sine * right + middle, cosine * right + sine * down + middle
    return map_coordinates(pattern, [rows, columns], order=1, mode="constant")


def _beam_stop(right: np.ndarray, down: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A disc over the direct beam and the arm that holds it, bool (y, x)."""
    angle, radius = rng.uniform(0, 2 * np.pi), 0.025 * size
    along, across = right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle)
    return (np.hypot(right, down) < radius) | ((along > 0) & (np.abs(across) < 0.4 * radius))


def _response(values: np.ndarray, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """What kind of numbers the picture has, and those."""
    kind = str(rng.choice(["16 bits", "8 bits, linear", "levels", "gamma 0.4", "3 decades", "5 decades"]))
    if kind == "16 bits":
        return kind, np.rint(60000 * values / values.max()).astype(np.uint16)
    low, high = 0.0, max(float(np.percentile(values, 99.9)), 1e-6 * float(values.max()))
    if kind == "levels":  # contrast stretched until 0.35 % of the pixels are black and white
        low, high = np.percentile(values, [0.35, 99.65])
        high = max(high, low + 1e-6 * values.max())
    grey = (values - low) / (high - low)
    if kind.endswith("decades"):
        grey = 1 + np.log10(np.maximum(grey, 1e-30)) / int(kind[0])
    elif kind.startswith("gamma"):
        grey = grey**0.4
    return kind, np.rint(255 * np.clip(grey, 0, 1)).astype(np.uint8)


def _with_scale_bar(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A white or black bar with its length in a lower corner."""
    from PIL import Image, ImageDraw, ImageFont

    size = len(values)
    length, height, margin = int(size * rng.uniform(0.12, 0.25)), max(2, size // 100), size // 25
    left = margin if rng.random() < 0.5 else size - margin - length
    drawn = Image.new("L", (size, size))
    pen = ImageDraw.Draw(drawn)
    pen.rectangle((left, size - margin - height, left + length, size - margin - 1), fill=255)
    font = ImageFont.load_default(size=max(10, size // 30))
    pen.text((left + length // 4, size - margin - 6 * height), "5 1/nm", fill=255, font=font)
    return np.where(np.array(drawn) > 128, rng.choice([0, values.max()]), values).astype(values.dtype)


# --- measuring -------------------------------------------------------------------------------------------------------


def simulated(
    crystals: Sequence[tuple[int, Atoms]], number: int, pixels: int, seed: int
) -> Iterator[tuple[np.ndarray, float, int, tuple[int, ...]]]:
    """Intensities (y, x) of `number` patterns of each crystal (space group, atoms), at a random voltage and length.

    With their scale [1/angstrom per pixel], space group and zone axis.
    """
    for i, (group, atoms) in enumerate(crystals):
        rng = np.random.default_rng([seed, i])
        axes = [list(ZONE_AXES[k]) for k in sorted(rng.permutation(len(ZONE_AXES))[:number])]
        voltage, length = float(rng.choice(VOLTAGES)), float(rng.choice(LENGTHS))
        settings = {"pixels": pixels, "detector_width": WIDTH, "zone_axes": axes, "voltages": [voltage]}
        data = simulate(atoms, {**settings, "camera_lengths": [length]}, "cpu", repeat=BLOCK)
        scale = 1e-3 * WIDTH / pixels / (length * wavelength(voltage))
        for axis, intensity in zip(axes, data["intensity"].values[:, 0, 0, 0], strict=True):
            yield intensity.astype(np.float64), scale, group, tuple(axis)


def examine(taken: Taken) -> dict[str, bool | float]:
    """What `defraction classify` makes of a picture of which nothing is stated.

    `contrast` and `centre` right, `error` of the centre as share of the width (where the contrast is right), `doubted`.
    """
    try:
        prepared = pictures.prepare(taken.picture(), FRAME, pictures.Options())
    except ValueError:  # nothing is left of it, which the user is told
        return {"contrast": False, "centre": False, "error": float("nan"), "doubted": True}
    error = float(np.hypot(*np.subtract(prepared.facts["centre"], taken.centre))) / len(taken.values)
    contrast = prepared.facts["inverted"] == taken.negative
    found = {"contrast": contrast, "centre": error < RIGHT, "error": error}
    return {**found, "doubted": any("--contrast" in text or "--centre" in text for text in prepared.doubts)}


def table(taken: Sequence[Taken], found: Sequence[dict]) -> list[str]:
    """Shares by everything that a picture draws, as lines of Markdown."""
    lines = ["| pictures | | number | contrast right | centre right |", "|---|---|---|---|---|"]
    kinds: dict[tuple[str, str], list[dict]] = {("all", ""): list(found)}
    for one, result in zip(taken, found, strict=True):
        for pair in one.spoiled.items():
            kinds.setdefault(pair, []).append(result)
    for (what, how), rows in sorted(kinds.items()):
        shares = (np.mean([row[key] for row in rows]) for key in ("contrast", "centre"))
        lines.append(f"| {what} | {how} | {len(rows)} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")
    return lines


def accuracies(model: Path, patterns: Sequence[tuple], taken: Sequence[Taken], device: str) -> list[str]:
    """Accuracy over labels and share flagged, by what is known of the pictures, as lines of Markdown."""
    from defraction.dataset import true_labels
    from defraction.learning.classify import Classifier

    classifier = Classifier.load(model, device)
    truth = [int(true_labels(classifier.table, group, [axis])[0]) for _, _, group, axis in patterns]
    lines = ["| the picture | labels right | flagged |", "|---|---|---|"]
    known = []
    for intensity, scale, _, _ in patterns:
        middle = ((len(intensity) - 1) / 2,) * 2
        values, hidden = intensity.astype(np.float32), np.zeros(intensity.shape, bool)
        known.append(
            pictures.Picture(values, hidden, "pattern", {}, "linear", None, middle, scale, sigma=0.5, ours=True)
        )
    ways: dict[str, list[tuple[pictures.Picture, pictures.Options]]] = {
        "simulated, everything known": [(picture, pictures.Options()) for picture in known],
        "as taken, nothing stated": [(one.picture(), pictures.Options()) for one in taken],
        "as taken; contrast, centre and scale stated": [
            (
                one.picture(centre=one.centre, scale=pattern[1] * len(pattern[0]) / len(one.values)),
                pictures.Options(contrast="dark" if one.negative else "bright"),
            )
            for one, pattern in zip(taken, patterns, strict=True)
        ],
    }
    for name, pairs in ways.items():
        answers = []
        for picture, options in pairs:
            try:
                answers.append(next(classifier.answers([picture], options)))
            except ValueError:  # nothing is left of it
                answers.append({"label": None, "warning": "none"})
        right = np.mean([answer["label"] == label for answer, label in zip(answers, truth, strict=True)])
        flagged = np.mean([answer["warning"] is not None for answer in answers])
        lines.append(f"| {name} | {right:.0%} | {flagged:.0%} |")
    return lines


def main() -> None:
    """Simulate, take pictures, examine them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crystals", type=int, default=60)
    parser.add_argument("--pictures", type=int, default=8, help="of each crystal")
    parser.add_argument("--size", type=int, default=512, help="of a picture [px]; simulated with 512 or less")
    parser.add_argument("--model", type=Path, help="folder of a model, for accuracies")
    parser.add_argument("--split", type=Path, help="split table of the model, for held-out crystals")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rows = list(materials.read_table(TABLE).values())
    if arguments.split:
        from defraction.dataset import members, read_split

        held_out = {row.material for row in members(read_split(arguments.split), "held_out")}
        rows = [row for row in rows if row.material in held_out]
    rng = np.random.default_rng(arguments.seed)
    crystals: list[tuple[int, Atoms]] = []
    for i in rng.permutation(len(rows)):
        atoms = materials.crystal(rows[i])
        if len(atoms) <= MOST_ATOMS and len(crystals) < arguments.crystals:
            crystals.append((rows[i].space_group, atoms))
    patterns = list(simulated(crystals, arguments.pictures, min(arguments.size, 512), arguments.seed))
    taken = [
        take(pattern[0], arguments.size, np.random.default_rng([arguments.seed, n]))
        for n, pattern in enumerate(patterns)
    ]
    found = [examine(one) for one in taken]
    print(f"{len(taken)} pictures of {arguments.size} pixels, of {len(crystals)} crystals, seed {arguments.seed}")
    print("\n".join(table(taken, found)))
    right = [row for row in found if row["contrast"] and row["centre"]]
    wrong = [row for row in found if not (row["contrast"] and row["centre"])]
    print(f"median error of a right centre {np.median([row['error'] for row in right]):.2%} of the width")
    for name, rows in (("right", right), ("wrong", wrong)):
        print(f"{name}: {sum(row['doubted'] for row in rows)} of {len(rows)} carry a doubt")
    if arguments.model:
        print("\n".join(accuracies(arguments.model, patterns, taken, arguments.device)))


if __name__ == "__main__":
    main()
