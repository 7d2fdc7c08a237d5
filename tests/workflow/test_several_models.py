"""A study of several networks, run whole by Snakemake: seeds, splits, hosts held out, the article's model of
diffraction and two resolutions. ResNet-18 on tiny images for one pass: only who trained on what means anything.
"""

import csv
import html
import json
import statistics

import pytest
import yaml
from conftest import Study
from repository import copy_repository

STUDY = {
    "seed": 1,
    "reductions": ["test of several networks: one pass of ResNet-18, 32 x 32 pixels; accuracies mean nothing"],
    "materials": {"max_per_group": 3, "specimens": 1},
    "specimen": {"repeat": [12, 10, 8], "supercell_repeat": [6, 6, 6]},
    "diffraction": {
        "zone_axes": [[0, 0, 1], [0, 1, 1], [1, 1, 1]],
        "voltages": [200],
        "camera_lengths": [0.8],
        "pixels": 32,
        "detector_width": 32,
    },
    "conditions": [
        {"kind": "pristine", "host": "Al"},
        {"kind": "pristine", "host": "Fe"},
        {"kind": "strain", "host": "Al", "component": "xy", "values": [0.03]},
        {"kind": "strain", "host": "Fe", "component": "xy", "values": [0.03]},
    ],
    "learning": {"architecture": "resnet18", "epochs": 1, "split": {"by": "prototype"}},
    "pattern_sets": {"article": {"model": "article"}, "p40": {"pixels": 40}},
    "models": [
        {"name": "main", "seeds": [1, 2]},
        {"name": "strict", "split": {"hosts": "held_out"}},
        {"name": "article", "pattern_set": "article", "specimens": "block"},
        {"name": "image", "split": {"by": "image"}, "specimens": "block"},
        {"name": "p40", "pattern_set": "p40"},
    ],
    "evaluation": {"rotated_copies": 1, "ensemble_sizes": [1, 2], "draws": 20},
}
MODELS = ("main-seed1", "main-seed2", "strict-seed1", "article-seed1", "image-seed1", "p40-seed1")
HOSTS = {"Al", "Fe"}


@pytest.fixture(scope="module")
def several(tmp_path_factory, root) -> Study:
    """The study, finished."""
    study = Study(tmp_path_factory.mktemp("several") / "defraction", config="config/several.yaml")
    copy_repository(root, study.folder, "tests", "docs")
    (study.folder / study.config).write_text(yaml.safe_dump(STUDY, sort_keys=False))
    study.snakemake()
    return study


def table(study: Study, path: str, /, **wanted: str) -> list[dict[str, str]]:
    """Rows of a table of the results, those with the wanted cells."""
    with (study.folder / "results" / path).open(newline="") as file:
        return [row for row in csv.DictReader(file) if all(row[key] == value for key, value in wanted.items())]


def test_every_network_answers_for_every_condition(several):
    assert [row["model"] for row in table(several, "models.csv")] == list(MODELS)
    names = {"clean-held-out", "pooled-strain-xy+0.03rad"}
    names |= {row["condition"] for row in table(several, "conditions.csv")}
    for model in MODELS:
        assert names <= {row["condition"] for row in table(several, "accuracy.csv", model=model)}


def test_the_split_of_each_network_is_the_one_it_was_asked_for(several):
    for model in MODELS:
        rows = table(several, f"models/{model}/split.csv")
        parts = {row["formula"]: row["part"] for row in rows if row["host"] == "1"}
        assert set(parts) == HOSTS
        if model == "image-seed1":
            assert {row["by"] for row in rows} == {"image"}
            assert all(row["held_out_patterns"] for row in rows)
            continue
        assert {row["by"] for row in rows} == {"prototype"}
        assert set(parts.values()) == {"held_out" if model == "strict-seed1" else "train"}
        trained = {(row["space_group"], row["prototype"]) for row in rows if row["part"] == "train"}
        hidden = {(row["space_group"], row["prototype"]) for row in rows if row["part"] == "held_out"}
        assert model == "strict-seed1" or not trained & hidden
    assert table(several, "models/main-seed1/split.csv") == table(several, "models/main-seed2/split.csv")


def test_a_split_by_image_counts_the_held_out_patterns_of_every_crystal(several):
    (row,) = table(several, "accuracy.csv", model="image-seed1", condition="clean-held-out")
    crystals = table(several, "models/image-seed1/split.csv")
    assert int(row["n_crystals"]) == len(crystals) == 15
    assert int(row["n_patterns"]) == sum(len(crystal["held_out_patterns"].split()) for crystal in crystals)


def test_two_seeds_are_two_networks_and_have_a_spread(several):
    weights = [several.folder / f"results/models/main-seed{seed}/model.safetensors" for seed in (1, 2)]
    assert weights[0].read_bytes() != weights[1].read_bytes()
    values = [
        float(row["accuracy_label"])
        for seed in (1, 2)
        for row in table(several, "accuracy.csv", model=f"main-seed{seed}", condition="clean-held-out")
    ]
    (row,) = table(several, "accuracy_spread.csv", name="main", condition="clean-held-out", quantity="accuracy_label")
    assert int(row["seeds"]) == 2
    assert float(row["mean"]) == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert float(row["sd"]) == pytest.approx(statistics.stdev(values), abs=1e-6)
    (row,) = table(several, "accuracy_spread.csv", name="strict", condition="clean-held-out", quantity="accuracy_label")
    assert (row["seeds"], row["sd"]) == ("1", "")


def test_the_comparison_says_of_which_networks_the_hosts_are_training_crystals(several):
    rows = table(several, "comparison.csv", item="al-pristine")
    assert [row["model"] for row in rows] == list(MODELS)
    for row in rows:
        if row["model"] == "strict-seed1":
            assert "train" not in row["remark"]
        else:
            kind = "part of its patterns trains" if row["name"] == "image" else "its patterns train"
            assert f"{kind} the network; held out in strict" in row["remark"]
    main = [row for row in rows if row["name"] == "main"]
    assert {row["seeds"] for row in main} == {"2"}
    assert len({(row["seeds_min"], row["seeds_max"]) for row in main}) == 1
    assert min(float(row["accuracy_label"]) for row in main) == float(main[0]["seeds_min"])
    assert {row["diffraction_model"] for row in rows if row["name"] == "article"} == {"article"}


def test_the_article_set_is_other_physics_of_the_same_specimens(several):
    from netCDF4 import Dataset

    pictures = {}
    for folder in ("patterns", "pattern_sets/article", "pattern_sets/p40"):
        with Dataset(several.folder / f"results/{folder}/al-pristine.nc") as data:
            pictures[folder] = data["intensity"][:].filled()
    assert pictures["patterns"].shape == pictures["pattern_sets/article"].shape
    assert abs(pictures["patterns"] - pictures["pattern_sets/article"]).max() > 0.01 * pictures["patterns"].max()
    assert pictures["pattern_sets/p40"].shape[-2:] == (40, 40)


def test_resolutions_are_compared(several):
    rows = table(several, "resolution.csv", group="clean-held-out")
    assert {row["name"]: row["pixels"] for row in rows} == {
        "main": "32", "strict": "32", "article": "32", "image": "32", "p40": "40",
    }  # fmt: skip
    assert (several.folder / "results/figures/resolution.png").stat().st_size > 5000


def test_cards_and_report_tell_the_networks_apart(several):
    cards = {model: json.loads((several.folder / f"results/models/{model}/card.json").read_text()) for model in MODELS}
    digests = {model: card["data"]["training_digest"] for model, card in cards.items()}
    assert digests["main-seed1"] == digests["main-seed2"]
    assert len({digests[model] for model in MODELS if model != "main-seed2"}) == len(MODELS) - 1
    text = html.unescape((several.folder / "results/report.html").read_text())
    assert all(name in text for name in ("main", "strict", "article", "image", "p40"))
    assert STUDY["reductions"][0] in text
    assert several.planned() == {}
