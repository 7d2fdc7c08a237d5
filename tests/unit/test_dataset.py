"""Split by material, prototype and image, display transform, patterns in memory."""

from dataclasses import replace

import netCDF4
import numpy as np
import pytest

from defraction import config, dataset, materials
from defraction.hosts import read_hosts
from defraction.learning import labels
from defraction.pattern_files import DIMENSIONS


def crystals(count=40, groups=(221, 225, 229)):
    rows = [
        {"material": f"m{group}-{i}", "space_group": group, "formula": f"X{group}Y{i}", "prototype": f"p{i % 7}"}
        for group in groups
        for i in range(count)
    ]
    rows.append({"material": "al", "space_group": 225, "formula": "Al", "prototype": "A_cF4"})
    rows.append({"material": "fe", "space_group": 229, "formula": "Fe", "prototype": "A_cI2"})
    return rows


HOSTS = {"Al": 225, "Fe": 229}


def parts(rows):
    return {row.material: row.part for row in rows}


def write_patterns(path, intensity, zone_axes, width=8.0):
    pixels = intensity.shape[-1]
    centres = (np.arange(pixels) - (pixels - 1) / 2) * width / pixels
    with netCDF4.Dataset(path, "w") as file:
        for name, size in zip(DIMENSIONS, intensity.shape, strict=True):
            file.createDimension(name, size)
        file.createDimension("index", 3)
        file.createVariable("intensity", "f4", DIMENSIONS)[:] = intensity
        file.createVariable("uvw", "i4", ("zone_axis", "index"))[:] = zone_axes
        for name, size in (("voltage", intensity.shape[1]), ("camera_length", intensity.shape[2])):
            file.createVariable(name, "f8", (name,))[:] = np.arange(1, size + 1)
        for name in ("x", "y"):
            file.createVariable(name, "f8", (name,))[:] = centres


def test_split_is_stratified_and_disjoint():
    rows = dataset.split_table(crystals(), 0.3, seed=3)
    dataset.assert_disjoint(rows)
    for group, total in ((221, 40), (225, 41), (229, 41)):
        members = [row for row in rows if row.space_group == group]
        assert len(members) == total
        assert sum(row.part == "held_out" for row in members) == round(0.3 * total)
    for row in rows:
        mates = [r for r in rows if (r.space_group, r.prototype, r.part) == (row.space_group, row.prototype, "train")]
        assert row.prototype_in_training == bool(mates)


def test_split_does_not_depend_on_order_and_does_on_seed():
    rows = crystals()
    assert parts(dataset.split_table(rows, 0.3, 3)) == parts(dataset.split_table(rows[::-1], 0.3, 3))
    assert parts(dataset.split_table(rows, 0.3, 3)) != parts(dataset.split_table(rows, 0.3, 4))


def test_one_more_crystal_moves_at_most_one_other():
    rows = crystals()
    before = parts(dataset.split_table(rows, 0.3, 3))
    for i in range(12):
        more = [*rows, {"material": f"new-{i}", "space_group": 221, "formula": f"N{i}", "prototype": "p"}]
        after = parts(dataset.split_table(more, 0.3, 3))
        moved = [name for name, part in before.items() if after[name] != part]
        assert len(moved) <= 1
        assert all(name.startswith("m221") for name in moved)


@pytest.mark.parametrize("hosts", ["train", "held_out"])
def test_hosts_go_where_they_are_sent(hosts):
    for seed in range(6):
        rows = dataset.split_table(crystals(), 0.3, seed, hosts=hosts, host_crystals=HOSTS)
        assert {row.material for row in rows if row.host} == {"al", "fe"}
        assert all(row.part == hosts for row in rows if row.host)


@pytest.mark.parametrize("by", ["material", "prototype"])
@pytest.mark.parametrize("hosts", ["train", "held_out"])
def test_many_hosts_all_go_where_they_are_sent(root, hosts, by):
    """More of them than a small fraction holds out."""
    rows = [
        {key: getattr(m, key) for key in ("material", "space_group", "prototype", "formula")}
        for m in materials.read_table(root / "resources/materials.csv").values()
    ]
    known = {host.name: host.space_group for host in read_hosts(root / "resources/hosts.csv").values()}
    for seed in range(3):
        split = dataset.split_table(rows, 0.05, seed, by, hosts, host_crystals=known, validation=0.05)
        assert {row.part for row in split if row.host} == {hosts}
        assert sum(row.host for row in split) > 10


@pytest.mark.parametrize(("hosts", "by"), [("train", "material"), ("held_out", "material"), ("held_out", "prototype")])
def test_a_group_of_hosts_only_cannot_be_split(hosts, by):
    rows = [
        {"material": f"m{i}", "space_group": 225, "formula": f, "prototype": "p"} for i, f in enumerate(("Al", "Cu"))
    ]
    with pytest.raises(ValueError, match=f"hosts {hosts}, no crystal of space group 225 is left to"):
        dataset.split_table(rows, 0.3, 1, by, hosts, host_crystals={"Al": 225, "Cu": 225})


def test_hosts_whose_prototypes_are_all_of_a_group_cannot_be_held_out():
    rows = [
        {"material": formula, "space_group": 225, "formula": formula, "prototype": prototype}
        for formula, prototype in (("Al", "p"), ("X", "p"), ("Cu", "q"), ("Y", "q"))
    ]
    known = {"Al": 225, "Cu": 225}
    with pytest.raises(ValueError, match="is left to train on"):
        dataset.split_table(rows, 0.3, 1, "prototype", "held_out", host_crystals=known)
    split = dataset.split_table(rows, 0.3, 1, "material", "held_out", host_crystals=known)
    assert {row.material for row in split if row.part == "held_out"} == {"Al", "Cu"}


@pytest.mark.parametrize("hosts", ["train", "held_out"])
def test_a_split_by_prototype_keeps_prototypes_apart(root, hosts):
    """On the crystals of the shipped table: what cannot be kept apart is said row by row, and is what can not be."""
    rows = [
        {key: getattr(m, key) for key in ("material", "space_group", "prototype", "formula")}
        for m in materials.read_table(root / "resources/materials.csv").values()
    ]
    for seed in range(5):
        split = dataset.split_table(rows, 0.3, seed, "prototype", hosts, host_crystals=HOSTS)
        kinds = {p: {(r.space_group, r.prototype) for r in split if r.part == p} for p in ("train", "held_out")}
        divided = {(r.space_group, r.prototype) for r in split if r.by == "material"}
        assert kinds["train"] & kinds["held_out"] <= divided
        assert divided == (set() if hosts == "train" else {(229, "A_cI2_229_a")})  # 25 of the 32 crystals of 229
        assert all(row.part == hosts for row in split if row.host)
        assert not [r for r in split if r.part == "held_out" and r.prototype_in_training and r.by == "prototype"]
        for group in {row.space_group for row in split}:
            held_out = [row for row in split if row.space_group == group and row.part == "held_out"]
            assert 1 <= len(held_out) <= round(0.3 * sum(row.space_group == group for row in split))
    with pytest.raises(ValueError, match="is held out and in training"):
        kept = next(r for r in split if r.part == "held_out" and r.by == "prototype" and r.space_group == 225)
        twin = {**vars(kept), "material": "mate", "formula": "X9", "part": "train"}
        dataset.assert_disjoint([*split, dataset.SplitRow(**twin)])


def test_the_split_of_the_default_study_is_as_documented(root):
    """`docs/learning.md` says how many of its held-out crystals have relatives in training."""
    settings = config.load(root / "config/config.yaml")
    rows = [
        {key: getattr(m, key) for key in ("material", "space_group", "prototype", "formula")}
        for m in materials.read_table(root / "resources/materials.csv").values()
    ]
    split = settings.learning.split
    found = dataset.split_table(rows, split.held_out, settings.seed, split.by, split.hosts, host_crystals=HOSTS)
    out = [row for row in found if row.part == "held_out"]
    mates = sum(row.prototype_in_training for row in out)
    text = f"({mates} of the {len(out)} held out by seed {settings.seed})"
    assert text in (root / "docs/learning.md").read_text(encoding="utf-8")


def test_a_group_of_one_prototype_is_divided_by_material():
    rows = [{"material": f"m{i}", "space_group": 221, "formula": f"X{i}", "prototype": "p"} for i in range(10)]
    split = dataset.split_table(rows, 0.3, 1, "prototype")
    assert {row.by for row in split} == {"material"} and sum(row.part == "held_out" for row in split) == 3


@pytest.mark.parametrize("unknown", ["-", "", None])
def test_a_crystal_without_a_known_prototype_has_one_of_its_own(unknown, tmp_path):
    """So it can be held out, and another one of unknown prototype is no relative."""
    rows = [{"material": f"m{i}", "space_group": 221, "formula": f"X{i}", "prototype": unknown} for i in range(10)]
    rows += [{"material": f"k{i}", "space_group": 221, "formula": f"K{i}", "prototype": "k"} for i in range(10)]
    for by in ("material", "prototype"):
        split = dataset.split_table(rows, 0.3, 1, by)
        out = [row for row in split if row.part == "held_out" and row.material.startswith("m")]
        assert out and not any(row.prototype_in_training for row in out)
        assert all(row.prototype == ("k" if row.material[0] == "k" else row.material) for row in split)


def test_a_split_by_image_divides_the_patterns_of_every_crystal(tmp_path):
    rows = dataset.split_table(crystals(5), 0.3, 2, "image", validation=0.2, grid=(4, 3, 3))
    dataset.write_split(tmp_path / "split.csv", rows)
    assert dataset.read_split(tmp_path / "split.csv") == rows
    for row in rows:
        masks = [dataset.pattern_mask(row, part, (4, 3, 3)) for part in dataset.PARTS]
        assert (np.sum(masks, axis=0) == 1).all()  # every pattern in exactly one part
        assert [int(mask.sum()) for mask in masks] == [20, 5, 11]
    assert len({row.held_out_patterns for row in rows}) == len(rows)  # each crystal its own draw
    assert dataset.members(rows, "train") == dataset.members(rows, "held_out") == rows
    with pytest.raises(ValueError, match="its file holds 9 patterns"):
        dataset.pattern_mask(rows[0], "train", (1, 3, 3))
    with pytest.raises(ValueError, match="are not given"):
        dataset.split_table(crystals(5), 0.3, 2, "image")
    few = dataset.split_table(crystals(5), 0.3, 2, "image", validation=0.1, grid=(3, 1, 1))
    assert {(len(row.held_out_patterns), len(row.validation_patterns)) for row in few} == {(1, 1)}
    with pytest.raises(ValueError, match="too few"):
        dataset.split_table(crystals(5), 0.3, 2, "image", validation=0.1, grid=(2, 1, 1))
    twice = dataset.SplitRow(**{**vars(rows[0]), "validation_patterns": rows[0].held_out_patterns[:1]})
    with pytest.raises(ValueError, match="in two parts"):
        dataset.assert_disjoint([twice, *rows[1:]])


@pytest.mark.parametrize("by", ["material", "prototype"])
def test_the_third_part_is_taken_from_what_is_not_held_out(by):
    two = dataset.split_table(crystals(), 0.3, 3, by, host_crystals=HOSTS)
    three = dataset.split_table(crystals(), 0.3, 3, by, validation=0.2, host_crystals=HOSTS)
    held_out = {row.material for row in two if row.part == "held_out"}
    assert {row.material for row in three if row.part == "held_out"} == held_out
    chosen = [row for row in three if row.part == "validation"]
    assert len(chosen) == pytest.approx(0.2 * (len(three) - len(held_out)), abs=3) and not any(r.host for r in chosen)
    for row in three:
        assert dataset.pattern_mask(row, row.part, (2, 1, 1)).all()


def test_hosts_alone_are_not_the_crystal_of_the_same_formula_in_another_group():
    rows = [*crystals(), {"material": "fe-fcc", "space_group": 225, "formula": "Fe", "prototype": "A_cF4"}]
    split = dataset.split_table(rows, 0.3, 1, host_crystals=HOSTS)
    assert {row.material for row in split if row.host} == {"al", "fe"}


def test_split_round_trip(tmp_path):
    rows = dataset.split_table(crystals(), 0.3, 3)
    dataset.write_split(tmp_path / "split.csv", rows)
    assert dataset.read_split(tmp_path / "split.csv") == rows


def test_a_table_from_before_there_were_drawn_crystals_is_read(tmp_path):
    rows = dataset.split_table([{"material": "d", "space_group": 221, "drawn": True}, *crystals()], 0.3, 3)
    dataset.write_split(tmp_path / "split.csv", rows)
    assert dataset.read_split(tmp_path / "split.csv") == rows and [row.material for row in rows if row.drawn] == ["d"]
    lines = (tmp_path / "split.csv").read_text().splitlines()
    (tmp_path / "old.csv").write_text("".join(line.rpartition(",")[0] + "\n" for line in lines))
    assert dataset.read_split(tmp_path / "old.csv") == [replace(row, drawn=False) for row in rows]


def test_bad_splits_are_refused(tmp_path):
    rows = crystals()
    with pytest.raises(ValueError, match="between 0 and 1"):
        dataset.split_table(rows, 1.0, 1)
    with pytest.raises(ValueError, match="train, held_out"):
        dataset.split_table(rows, 0.3, 1, hosts="both")
    with pytest.raises(ValueError, match="twice"):
        dataset.split_table([*rows, rows[0]], 0.3, 1)
    with pytest.raises(ValueError, match="has one crystal"):
        dataset.split_table([*rows, {"material": "a", "space_group": 227}], 0.3, 1)
    split = dataset.split_table(rows, 0.3, 1)
    trained = next(row for row in split if row.part == "train")
    leak = dataset.SplitRow(**{**vars(trained), "part": "held_out"})
    with pytest.raises(ValueError, match="is in held out and training"):
        dataset.assert_disjoint([*split, leak])
    twin = dataset.SplitRow(**{**vars(leak), "material": "same crystal under another id"})
    dataset.write_split(tmp_path / "split.csv", [*split, twin])
    with pytest.raises(ValueError, match="formula and space group"):
        dataset.read_split(tmp_path / "split.csv")


def test_display_is_the_stated_formula():
    x = y = np.array([-1.5, -0.5, 0.5, 1.5])
    image = np.zeros((4, 4))
    image[1:3, 1:3] = 100.0  # direct beam
    image[0, 0], image[0, 1], image[0, 2], image[0, 3] = 1.0, 0.1, 1e-4, 1e-7
    grey = dataset.display(image, x, y, beam_stop=1.0, decades=4, dtype=np.float32)
    np.testing.assert_array_equal(grey[1:3, 1:3], 0)
    np.testing.assert_allclose(grey[0], [1, 0.75, 0, 0], atol=1e-6)
    # scale free, whatever the exposure
    np.testing.assert_allclose(dataset.display(image * 1e-9, x, y, 1.0, 4, np.float32), grey, atol=1e-6)
    bright = dataset.display(image, x, y, beam_stop=0.0, decades=4, dtype=np.float32)
    assert bright[1, 1] == 1 and bright[0, 0] == pytest.approx(0.5, abs=1e-6)
    assert not dataset.display(np.zeros((2, 4, 4)), x, y, 1.0, 4).any()


def test_display_scales_each_pattern_by_itself_and_refuses_a_stop_over_everything():
    x = y = np.array([-1.5, -0.5, 0.5, 1.5])
    stack = np.random.default_rng(1).uniform(0, 1, (2, 3, 4, 4))
    grey = dataset.display(stack, x, y, 1.0, 4)
    assert grey.dtype == np.float16 and grey.shape == stack.shape
    assert (grey.max(axis=(-2, -1)) == 1).all()
    with pytest.raises(ValueError, match="hides all"):
        dataset.display(stack, x, y, 10.0, 4)


def test_true_labels_know_equivalent_axes():
    table = labels.label_table()
    np.testing.assert_array_equal(
        dataset.true_labels(table, 225, [(-1, 1, 0), (3, 1, -2)]),
        dataset.true_labels(table, 225, [(0, 1, 1), (1, 2, 3)]),
    )
    with pytest.raises(ValueError, match="add both"):
        dataset.true_labels(table, 225, [(0, 1, 5)])


def test_images_are_those_of_the_files_and_their_digest_follows_the_data(tmp_path):
    axes = [(0, 0, 1), (0, 1, 1)]
    table = labels.label_table([221, 225], axes)
    rng = np.random.default_rng(0)
    rows = [dataset.SplitRow(name, group, "", "", False, "train", True) for name, group in (("a", 221), ("b", 225))]
    stored = {}
    for row, snapshots in zip(rows, (1, 2), strict=True):
        stored[row.material] = rng.uniform(0, 1, (2, 1, 2, snapshots, 8, 8))
        write_patterns(tmp_path / f"{row.material}.nc", stored[row.material], axes)
    files = {row.material: tmp_path / f"{row.material}.nc" for row in rows}
    found = dataset.load_images(files, rows, table, 1.0, 4.0)
    block = dataset.load_images(files, rows, table, 1.0, 4.0, specimens="block")  # the first snapshot only
    np.testing.assert_array_equal(block.images, found.images[[0, 1, 2, 3, 4, 6, 8, 10]])
    half = dataset.SplitRow("b", 225, "", "", False, "image", True, "image", held_out_patterns=(1, 2))
    divided = [rows[0], half]
    trained = dataset.load_images(files, divided, table, 1.0, 4.0)
    np.testing.assert_array_equal(trained.images, found.images[[0, 1, 2, 3, 4, 5, 10, 11]])
    held = dataset.load_images(files, divided, table, 1.0, 4.0, "held_out")
    np.testing.assert_array_equal(held.images, found.images[6:10])
    np.testing.assert_array_equal(held.labels, found.labels[6:10])
    with pytest.raises(ValueError, match="part 'validation' of the split table is empty"):
        dataset.load_images(files, divided, table, 1.0, 4.0, "validation")
    assert found.images.shape == (4 + 8, 8, 8)
    np.testing.assert_array_equal(found.material, [0] * 4 + [1] * 8)
    label = labels.label_of(table)
    assert found.labels[:4].tolist() == [label[(221, axes[0])]] * 2 + [label[(221, axes[1])]] * 2
    read = dataset.load_patterns(files["a"])
    np.testing.assert_array_equal(
        found.images[1], dataset.display(read.intensity, read.x, read.y, 1.0, 4.0)[0, 0, 1, 0]
    )
    assert found.digest == dataset.load_images(files, rows, table, 1.0, 4.0).digest
    stored["b"][1, 0, 1, 1, 0, 0] += 0.5
    write_patterns(files["b"], stored["b"], axes)
    assert found.digest != dataset.load_images(files, rows, table, 1.0, 4.0).digest
    with pytest.raises(ValueError, match="no pattern file"):
        dataset.load_images({"a": files["a"]}, rows, table, 1.0, 4.0)


def test_files_that_are_no_patterns_are_named(tmp_path):
    with netCDF4.Dataset(tmp_path / "other.nc", "w") as file:
        file.createDimension("x", 2)
    with pytest.raises(ValueError, match=r"other\.nc: holds no variable intensity"):
        dataset.load_patterns(tmp_path / "other.nc")
    bad = np.ones((1, 1, 1, 1, 4, 4))
    bad[..., 0] = np.nan
    write_patterns(tmp_path / "nan.nc", bad, [(0, 0, 1)])
    with pytest.raises(ValueError, match="not finite"):
        dataset.load_patterns(tmp_path / "nan.nc")
