"""`defraction classify`, shipping and ONNX with a tiny network that nobody trained."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
from ase.build import bulk
from PIL import Image

from defraction import classify_command, cli, dataset, export, models, pictures
from defraction.diffraction.patterns import simulate
from defraction.learning import model, openset, shipping
from defraction.learning.classify import Classifier, classify
from defraction.learning.labels import axis_name, label_table

GROUPS, AXES = (213, 225, 229), ((0, 0, 1), (0, 1, 1), (1, 1, 1), (0, 1, 2))
TABLE = label_table(GROUPS, AXES)
NAMES = [next(row.name for row in TABLE if row.label == n) for n in range(max(row.label for row in TABLE) + 1)]
PIXELS = 32
CARD = {
    "architecture": "resnet18",
    "labels": NAMES,
    "label_table": [[row.space_group, axis_name(row.zone_axis), row.label] for row in TABLE],
    "image": {
        "pixels": PIXELS, "pixel_size_mm": 1.5, "voltages": [200.0], "camera_lengths": [0.8],
        "diffraction": {"response_sigma": 0.5},
    },
    "display": {"beam_stop": 2.0, "decades": 3.0},
    "normalisation": "logarithm",
    "settings": {"augmentation": {"rotation": 180.0, "shift": 1.0, "scale": 0.02, "mirror": True}},
    "seed": 1,
    "precision": "fp32",
    "data": {
        "training_digest": "0123456789abcdef0123", "training_crystals": 3, "training_patterns": 12,
        "split": "3 crystals train, 1 crystals held out",
    },
    "metrics": {"train_loss": 1.0, "held_out_accuracy": 0.125},
    "selection": "weights of the last step",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a random network that has seen a few batches (so that batch norms hold something), its card and
    open-set statistics of spots."""
    folder = tmp_path_factory.mktemp("models") / "tiny-seed1"
    folder.mkdir()
    torch.manual_seed(0)
    network = model.build("resnet18", len(NAMES))
    for module in network.modules():  # zero at the start: random instead, so that every layer counts
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    spots = openset.made_up("spots", 400, PIXELS, 1)
    network.train()
    with torch.no_grad():
        for start in range(0, 320, 32):
            network(torch.from_numpy(spots[start : start + 32])[:, None])
    network.eval()
    with torch.no_grad():
        network.fc.weight *= 20  # so that it is sure of something
    model.save(network, CARD, folder / "model.safetensors", folder / "card.json")
    found, logits = openset.features(network, torch.from_numpy(spots)[:, None])
    statistics = openset.Statistics.fit(found[:300], logits[:300], logits[:300].argmax(1), axes=16)
    statistics.save(folder / "openset.safetensors")
    scores = statistics.scores(found[300:], logits[300:])["mahalanobis"]
    family = {
        "patterns": 1, "crystals": 1, "auroc": 0.9, "auroc_low": 0.8, "auroc_high": 0.95, "flagged": 0.5,
        "auroc_of_crystals": 0.9, "auroc_by_score": {},
    }  # fmt: skip
    facts = {
        "score": "mahalanobis",
        "threshold": float(np.quantile(scores, 0.95)),
        "quantiles": np.quantile(scores, np.linspace(0, 1, 201)).tolist(),
        "ensemble_thresholds": {str(k): float(np.quantile(scores, 0.9)) for k in openset.ENSEMBLES},
        "ensemble_temperature": 2.0,
        "false_alarms": 0.05,
        "false_alarms_measured": 0.06,
        "known": {"patterns": 100, "crystals": 3, "label_accuracy": 0.1},
        "families": {"other_system": family, "same_extinctions": family, "noise": family | {"flagged": 1.0}},
        "training_digest": CARD["data"]["training_digest"],
    }
    (folder / "openset.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Patterns of Al in every kind of file."""
    folder = tmp_path_factory.mktemp("patterns")
    data = simulate(bulk("Al", "fcc", a=4.05, cubic=True), {"pixels": PIXELS, "detector_width": 48.0}, "cpu",
                    repeat=(8, 8, 8), zone_axes=[[0, 0, 1], [0, 1, 1], [0, 1, 2]], voltages=[200.0],
                    camera_lengths=[0.8])  # fmt: skip
    data.to_netcdf(folder / "al.nc")
    export.write_signal(data, folder / "al.zspy")
    export.write_images(data, folder, "png")
    export.write_images(data, folder, "tiff")
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Run `defraction ARGUMENTS`, with the tiny model unless one is given; exit status, stdout, stderr."""

    def start(*arguments):
        given = [] if "--model" in map(str, arguments) or arguments[0] != "classify" else ["--model", folder]
        monkeypatch.setattr(sys, "argv", ["defraction", *map(str, (*arguments, *given))])
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code or 0
        return status, *capsys.readouterr()

    return start


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_json_is_as_documented(run, files):
    status, out, _ = run("classify", *sorted(files.glob("*.tif")), "--json")
    answer = json.loads(out)
    assert status == 0
    ensemble, patterns = answer["ensemble"], answer["patterns"]
    assert set(ensemble["space_group_probabilities"]) == {"213", "225", "229"}
    assert sum(ensemble["space_group_probabilities"].values()) == pytest.approx(1)
    assert ensemble["patterns"] == len(patterns) == 3
    for pattern, axis in zip(patterns, ([0, 0, 1], [0, 1, 1], [0, 1, 2]), strict=True):
        assert pattern["file"].endswith(".tif") and pattern["index"]["zone_axis"] == axis
        assert sum(pattern["probabilities"].values()) == pytest.approx(1)
        assert sum(pattern["space_group_probabilities"].values()) == pytest.approx(1)
        assert pattern["probabilities"][str(pattern["label"])] == max(pattern["probabilities"].values())
        assert pattern["label_name"] == NAMES[pattern["label"]]
        assert pattern["unlikeness"]["threshold"] > 0
        assert (pattern["warning"] is None) == (pattern["unlikeness"]["score"] <= pattern["unlikeness"]["threshold"])


def test_all_kinds_of_files_of_ours_give_the_same_answer(run, files):
    answers = [json.loads(run("classify", *paths, "--json")[1]) for paths in (
        [files / "al.nc"], [files / "al.zspy"], sorted(files.glob("*.tif")))]  # fmt: skip
    groups = [answer["ensemble"]["space_group_probabilities"] for answer in answers]
    for other in groups[1:]:
        assert other == pytest.approx(groups[0], rel=1e-5)
    assert [p["label"] for p in answers[0]["patterns"]] == [p["label"] for p in answers[2]["patterns"]]


def test_the_text_names_patterns_groups_and_assumptions(run, files, tmp_path):
    picture = tmp_path / "foreign.png"
    with Image.open(sorted(files.glob("*.png"))[0]) as image:
        Image.fromarray((np.array(image) >> 8).astype(np.uint8)).save(picture)
    status, out, _ = run("classify", picture)
    assert status == 0
    assert "foreign.png" in out and "space group (1 pattern):" in out
    assert "assumed: grey values" in out and "assumed: centre" in out and "assumed: its scale is not known" in out


def test_assumptions_of_many_patterns_are_told_once(run, files, tmp_path):
    seen = tmp_path / "seen"
    for number, path in enumerate(sorted(files.glob("*.png"))):
        with Image.open(path) as image:
            Image.fromarray((np.array(image) >> 8).astype(np.uint8)).save(tmp_path / f"{number}.png")
    status, out, _ = run("classify", *sorted(tmp_path.glob("*.png")), "--background", "none", "--seen", seen)
    assert status == 0
    (line,) = (line for line in out.splitlines() if line.startswith("assumed: its scale is not known"))
    assert line.endswith("(3 patterns)")
    assert classify_command._assumed([["centre: x 1.5, y 2"], ["centre: x -3.0, y 2"], ["black"]]) == [
        "assumed: centre: x -3.0 to 1.5, y 2 (2 patterns)", "assumed: black"
    ]  # fmt: skip
    written = sorted(seen.iterdir())
    assert [path.name[:4] for path in written] == ["001-", "002-", "003-"]
    assert all(Image.open(path).size == (PIXELS, PIXELS) for path in written)
    assert run("classify", files / "al.nc", "--seen", files / "al.nc")[0] == 2


def test_the_limit_of_geometry_stands_beside_the_answer(run, folder, files):
    """P(space group | label) by hand from the label table; patterns that no group shows together have no limit."""
    classifier = Classifier.load(folder, "cpu")

    def limit(*labels):
        shares = np.ones(len(GROUPS))
        for label in labels:
            shares *= [sum(row.label == label for row in TABLE if row.space_group == g) for g in GROUPS]
        return shares.max() / shares.sum() if shares.any() else None

    result = classify(classifier, pictures.read_pictures(files / "al.nc"))
    assert result["model"]["single_pattern_limit"] == pytest.approx(np.mean([limit(row.label) for row in TABLE]))
    for pattern in result["patterns"]:
        assert pattern["limit_space_group"] == pytest.approx(limit(pattern["label"]))
    answers = [{"label": n, "_evidence": np.zeros(3), "warning": None, "unlikeness": {"score": 0.0}}
               for n in range(len(NAMES))]  # fmt: skip
    for some in ([0], [0, 1], [1, 1, 0], list(range(len(NAMES)))):
        expected = limit(*some)
        found = classifier.ensemble([answers[n] for n in some])["limit_space_group"]
        assert found == (None if expected is None else pytest.approx(expected))
    assert limit(*range(len(NAMES))) is None
    lines = classify_command._lines(result | {"patterns": result["patterns"][:1], "ensemble": result["ensemble"] | {
        "patterns": 1, "limit_space_group": 0.25}})  # fmt: skip
    assert any("limit of geometry" in line and "25%" in line for line in lines)


def test_the_order_of_patterns_does_not_matter(folder, files):
    """The ensemble sums exactly, so that only the rounding of the network's batches is left."""
    classifier = Classifier.load(folder, "cpu")
    paths = sorted(files.glob("*.tif"))
    found = [one for path in paths for one in pictures.read_pictures(path)]
    forward, back = classify(classifier, found), classify(classifier, found[::-1])
    assert back["ensemble"]["space_group_probabilities"] == pytest.approx(
        forward["ensemble"]["space_group_probabilities"], rel=1e-4
    )
    answers = list(classifier.answers(found, pictures.Options()))
    assert classifier.ensemble(answers) == classifier.ensemble(answers[::-1])


def test_the_ensemble_is_the_tempered_product(folder, files):
    classifier = Classifier.load(folder, "cpu")
    answers = list(classifier.answers(pictures.read_pictures(files / "al.nc"), pictures.Options()))
    product = np.prod([list(a["space_group_probabilities"].values()) for a in answers], axis=0) ** (1 / 2.0)
    expected = product / product.sum()
    assert list(classifier.ensemble(answers)["space_group_probabilities"].values()) == pytest.approx(expected.tolist())
    # more than 16 patterns count as 16: the same pattern 32 times says what it says 16 times
    few, many = classifier.ensemble(answers[:1] * 16), classifier.ensemble(answers[:1] * 32)
    assert few["space_group_probabilities"] == pytest.approx(many["space_group_probabilities"])


def test_turned_copies_are_averaged(folder, files):
    classifier = Classifier.load(folder, "cpu")
    one, four = (classify(classifier, pictures.read_pictures(files / "al.nc"), copies=n) for n in (1, 4))
    assert len(one["patterns"]) == len(four["patterns"])
    assert one["patterns"][0]["probabilities"] != four["patterns"][0]["probabilities"]
    for single, copied in zip(one["patterns"], four["patterns"], strict=True):
        assert copied["unlikeness"] == single["unlikeness"]  # the threshold is one of single patterns


def test_a_picture_that_is_no_pattern_is_flagged(run, tmp_path):
    """Statistics were fitted to dots on black; uniform noise lies far from them."""
    rng = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "noise.tif", rng.random((64, 64)).astype(np.float32))
    status, out, _ = run("classify", tmp_path / "noise.tif", "--background", "none", "--middle", "--json")
    answer = json.loads(out)
    assert status == 0
    assert "unlike" in answer["patterns"][0]["warning"] and answer["ensemble"]["patterns_with_warning"] == 1
    assert answer["model"]["open_set"] == {
        "rule": "mahalanobis",
        "false_alarms": 0.06,
        "unseen_crystals": None,
        "families": {
            "other_system": {"auroc": 0.9, "flagged": 0.5},
            "same_extinctions": {"auroc": 0.9, "flagged": 0.5},
            "noise": {"auroc": 0.9, "flagged": 1.0},
        },
    }
    words = run("classify", tmp_path / "noise.tif", "--background", "none", "--middle")[1]
    assert "warning: looks unlike" in words
    assert "6% of known patterns, 50% of those of other crystal systems (AUROC 0.90) and 100% of noise" in words


FAULTS = {
    "no file": (["missing.png"], "no such file"),
    "not a picture": (["text.png"], "not a picture"),
    "word for intensity": (["al.nc", "--intensity", "loud"], "--intensity"),
    "word for contrast": (["al.nc", "--contrast", "grey"], "--contrast"),
    "word for background": (["al.nc", "--background", "flat"], "--background"),
    "word for marks": (["al.nc", "--marks", "all"], "--marks"),
    "word for device": (["al.nc", "--device", "tpu"], "--device"),
    "negative scale": (["al.nc", "--pixel-size", "-1"], "--pixel-size"),
    "angle without voltage": (["al.nc", "--pixel-angle", "1"], "--voltage"),
    "detector without width": (["al.nc", "--camera-length", "1", "--voltage", "200"], "--detector-width"),
    "voltage alone": (["al.nc", "--voltage", "200"], "--voltage"),
    "two scales": (["al.nc", "--pixel-size", "0.1", "--pixel-angle", "1", "--voltage", "200"], "twice"),
    "centre outside": (["al.nc", "--centre", "900", "3"], "--centre"),
    "decades of linear": (["al.nc", "--decades", "4", "--intensity", "linear"], "--decades"),
    "no copies": (["al.nc", "--copies", "0"], "--copies"),
    "mask of another size": (["al.nc", "--mask", "mask.png"], "mask"),
    "mask that is none": (["al.nc", "--mask", "text.png"], "--mask"),
    "no model": (["al.nc", "--model", "nowhere"], "export-model"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_end_with_one_line_and_status_2(run, files, tmp_path, monkeypatch, fault):
    arguments, word = FAULTS[fault]
    (tmp_path / "al.nc").symlink_to(files / "al.nc")
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    status, out, err = run("classify", *arguments)
    assert status == 2 and out == ""
    assert err.startswith("defraction: ") and err.count("\n") == 1 and word in err


def test_a_model_without_statistics_says_so(run, folder, files, tmp_path, caplog):
    for name in ("model.safetensors", "card.json"):
        (tmp_path / name).symlink_to(folder / name)
    status, out, _ = run("classify", files / "al.nc", "--model", tmp_path, "--json")
    assert status == 0 and "open-set" in caplog.text
    assert json.loads(out)["patterns"][0]["unlikeness"] is None


def test_the_shipped_model_is_found_from_the_repository(root):
    assert classify_command.MODEL.relative_to(root).as_posix() == "resources/models/resnet101-clean"


def test_help_and_bad_files_need_no_torch(root, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    code = (
        "import sys; from defraction import cli; sys.argv = ['defraction', 'classify', sys.argv[1]]\n"
        "try: cli.main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.png"], capture_output=True, text=True,
                          env={"PYTHONPATH": str(root / "workflow/scripts"), "PATH": ""}, check=False)  # fmt: skip
    assert done.stdout.split() == ["2", "False"], done.stderr


# --- shipping --------------------------------------------------------------------------------------------------------


def test_shipping_halves_the_file_and_keeps_the_answers(run, folder, files, tmp_path):
    status, out, err = run("export-model", folder, tmp_path / "shipped", "--command", "make run")
    assert status == 0, err
    assert "MB" in out
    sizes = [(path / "model.safetensors").stat().st_size for path in (folder, tmp_path / "shipped")]
    assert sizes[1] < 0.51 * sizes[0]
    card = json.loads((tmp_path / "shipped/card.json").read_text())
    assert card["shipped"]["half_precision"]["largest_difference"] < 0.02
    text = (tmp_path / "shipped/README.md").read_text()
    assert text.startswith("---\nlicense: mit") and "AUROC" in text and "`make run`" in text
    assert CARD["data"]["split"] in text and "on purpose" in card["shipped"]["training_set"]
    assert "held_out_accuracy" not in text  # progress of the training, no measurement
    full, half = (json.loads(run("classify", files / "al.nc", "--model", path, "--json")[1])
                  for path in (folder, tmp_path / "shipped"))  # fmt: skip
    for one, other in zip(full["patterns"], half["patterns"], strict=True):
        assert other["probabilities"] == pytest.approx(one["probabilities"], abs=0.02)


def test_precisions_are_compared_on_the_patterns_that_the_model_knows(run, folder, files, tmp_path):
    """Those of its own pattern set, by the table of models; patterns of another detector are refused."""
    results = tmp_path / "results"
    shutil.copytree(folder, results / "models/tiny-seed1")
    for name in ("patterns", "pattern_sets/fine"):
        (results / name / "clean").mkdir(parents=True)
    header = "material,space_group,prototype,formula,host,part,prototype_in_training,by,held_out_patterns,"
    rows = "Al-225,225,p,Al,0,held_out,0,material,,,0\nFe-229,229,q,Fe,0,train,0,material,,,0\n"
    (results / "models/tiny-seed1/split.csv").write_text(f"{header}validation_patterns,drawn\n{rows}")
    shutil.copy(files / "al.nc", results / "pattern_sets/fine/clean/Al-225.nc")
    status, out, err = run("export-model", results / "models/tiny-seed1", tmp_path / "main")
    assert status == 0 and "made-up spots" in out, err
    row = dict.fromkeys(models.COLUMNS, "1") | {"model": "tiny-seed1", "pattern_set": "fine"}
    models.write_table(results / "models.csv", [row])
    status, out, err = run("export-model", results / "models/tiny-seed1", tmp_path / "fine")
    assert status == 0 and "held-out clean patterns" in out, err
    card = json.loads((folder / "card.json").read_text())
    card["image"]["pixel_size_mm"] *= 2
    (results / "models/tiny-seed1/card.json").write_text(json.dumps(card))
    status, _, err = run("export-model", results / "models/tiny-seed1", tmp_path / "other")
    assert status == 2 and "the network was trained on" in err


def test_what_half_precision_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"conv1\.weight"):
        shipping.half_precision({"conv1.weight": torch.full((2, 2), 1e5)})
    kept = shipping.half_precision({"bn.running_var": torch.full((2,), 1e5), "n": torch.tensor(3)})
    assert kept["bn.running_var"].dtype == torch.float32 and kept["n"].dtype == torch.int64


def test_shipping_needs_the_statistics_of_the_same_network(run, folder, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("model.safetensors", "card.json", "openset.safetensors"):
        (source / name).symlink_to(folder / name)
    status, _, err = run("export-model", source, tmp_path / "shipped")
    assert status == 2 and "openset.json" in err and "snakemake" in err
    facts = json.loads((folder / "openset.json").read_text()) | {"training_digest": "other"}
    (source / "openset.json").write_text(json.dumps(facts))
    status, _, err = run("export-model", source, tmp_path / "shipped")
    assert status == 2 and "another network" in err
    assert not (tmp_path / "shipped").exists()


def coarse(state):
    """Three bits of mantissa: a precision that no answer survives."""
    return {name: value.to(torch.float8_e4m3fn).half() if value.ndim > 1 else value for name, value in state.items()}


REFUSED = {
    "too large a file": ("LIMIT", 10**6, "more than 1 MB"),
    "another precision, other answers": ("half_precision", coarse, "changes a probability by"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_model_that_cannot_be_shipped_leaves_the_shipped_one(run, folder, tmp_path, monkeypatch, reason):
    name, value, words = REFUSED[reason]
    target = tmp_path / "shipped"
    target.mkdir()
    (target / "model.safetensors").write_text("the one before")
    monkeypatch.setattr(shipping, name, value)
    status, _, err = run("export-model", folder, target)
    assert status == 2 and words in err
    assert [path.name for path in target.iterdir()] == ["model.safetensors"]
    assert (target / "model.safetensors").read_text() == "the one before"


SHIPPED = classify_command.MODEL


def test_the_limits_of_the_shipped_model_are_those_that_were_measured():
    card = json.loads((SHIPPED / "card.json").read_text())
    measured = json.loads((SHIPPED / "openset.json").read_text())
    limits = card["shipped"]["limits"]
    assert limits == shipping._limits(card, measured)
    assert any(f"flags {measured['false_alarms_measured']:.0%} of known ones" in text for text in limits)
    assert (SHIPPED / "README.md").read_text() == shipping.readme(card)


def test_the_shipped_model_knows_aluminium(tmp_path):
    """Al, a crystal of its training, along its 16 axes: the folder as a user finds it, the command's own way."""
    assert (SHIPPED / "model.safetensors").stat().st_size < 90 * 10**6
    card = json.loads((SHIPPED / "card.json").read_text())
    assert card["shipped"]["half_precision"]["largest_difference"] <= shipping.LARGEST_DIFFERENCE
    assert card["shipped"]["accuracy"] and card["shipped"]["unseen_crystals"]
    classifier = Classifier.load(SHIPPED, "cpu")
    assert classifier.statistics is not None and len(classifier.card["labels"]) == 48
    image = card["image"]
    settings = {**image["diffraction"], "debye_waller": {}, "average_snapshots": False}
    data = simulate(bulk("Al", "fcc", a=4.0496, cubic=True), settings, "cpu", repeat=(40, 30, 20),
                    voltages=image["voltages"][:1], camera_lengths=image["camera_lengths"][:1])  # fmt: skip
    data.to_netcdf(tmp_path / "al.nc")
    answer = classify(classifier, pictures.read_pictures(tmp_path / "al.nc"))
    assert answer["ensemble"]["patterns"] == 16 and answer["ensemble"]["space_group"] == 225
    truth = dataset.true_labels(classifier.table, 225, data["uvw"].values.tolist())
    right = [pattern["label"] == label for pattern, label in zip(answer["patterns"], truth, strict=True)]
    assert sum(right) >= 10  # 11 of 16; of Al 80 % along all settings (its card)
    unseen = card["shipped"]["unseen_crystals"]["rows"][0]
    worth = answer["model"]["open_set"]
    assert worth["unseen_crystals"] == {"crystals": unseen["crystals"], "flagged": unseen["flagged"]}
    words = f"{unseen['flagged']:.0%} of the patterns of {unseen['crystals']} crystals of its own groups"
    assert words in classify_command._worth(worth)
    assert answer["ensemble"]["patterns_with_warning"] <= 2  # one in twenty of all known patterns has a warning


def test_onnx_gives_the_answers_of_torch_for_any_batch(run, folder, files, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed: make setup")
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed: make setup")
    output = tmp_path / "tiny.onnx"
    status, _, err = run("export-onnx", folder, "-o", output)
    assert status == 0, err
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    classifier = Classifier.load(folder, "cpu")
    found = list(pictures.read_pictures(files / "al.nc"))
    grey = np.stack([pictures.prepare(one, classifier.frame, pictures.Options()).grey for one in found])[:, None]
    logs, groups = session.run(None, {"grey": grey})
    for row, answer in enumerate(classify(classifier, found)["patterns"]):
        assert np.exp(logs[row]) == pytest.approx(list(answer["probabilities"].values()), abs=1e-4)
        assert groups[row] == pytest.approx(list(answer["space_group_probabilities"].values()), abs=1e-4)
    assert json.loads(session.get_modelmeta().custom_metadata_map["labels"]) == NAMES
    assert run("export-onnx", folder, "-o", tmp_path / "tiny.txt")[0] == 2
