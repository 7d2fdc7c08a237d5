"""Reading and preparing diffraction pictures of any origin."""

import json

import h5py
import numpy as np
import pytest
import tifffile
from ase.build import bulk
from PIL import Image

from defraction import export, inspection, pictures
from defraction.dataset import display
from defraction.diffraction.geometry import wavelength
from defraction.diffraction.patterns import simulate
from defraction.pictures import Frame, Options, Picture

FRAME = Frame(64, 0.75, 2.0, 3.0, (0.0187, 0.0762), 0.5)
SETTINGS = {"pixels": 64, "detector_width": 48.0}


@pytest.fixture(scope="module")
def patterns():
    """Al along two axes, at two voltages, in the detector that `FRAME` describes."""
    crystal = bulk("Al", "fcc", a=4.05, cubic=True)
    return simulate(crystal, SETTINGS, "cpu", repeat=(10, 10, 10), zone_axes=[[0, 0, 1], [0, 1, 1]],
                    voltages=[120.0, 200.0], camera_lengths=[0.8])  # fmt: skip


def spots(size=128, centre=(60.3, 66.8), seed=0, decay=0.002, shape=None):
    """An oblique lattice of spots that fades with distance from `centre` (x, y), bright on 0, and unequal within pairs
    of neighbours, but the same at opposite points."""
    rng = np.random.default_rng(seed)
    height, width = shape or (size, size)
    y, x = np.mgrid[:height, :width]
    image = np.zeros((height, width))
    for h in range(-9, 10):
        for k in range(-9, 10):
            if (h, k) < (0, 0):
                continue
            weight = rng.uniform(0.3, 1.0) * np.exp(-decay * (h * h + k * k) * 40)
            for sign in (1, -1):
                at = (centre[0] + sign * (13.1 * h + 4.0 * k), centre[1] + sign * 14.2 * k)
                image += weight * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * 0.9**2))
    return image


def picture(values, **facts):
    values = np.asarray(values, dtype=np.float32)
    return Picture(values, np.zeros(values.shape, bool), "a.png", {}, facts.pop("intensity", "linear"), **facts)


# --- files -----------------------------------------------------------------------------------------------------------


def network_sees(patterns, index):
    values = patterns["intensity"].values[index]
    return display(values, patterns["x"].values, patterns["y"].values, 2.0, 3.0).astype(np.float32)


@pytest.mark.parametrize("kind", [".nc", ".hspy", ".zspy", "tiff", "png"])
def test_every_kind_of_file_of_ours_gives_what_the_network_was_trained_on(patterns, tmp_path, kind):
    """Bit for bit from files of intensities; a 16-bit logarithm over five decades adds its rounding."""
    order = list(np.ndindex(2, 2, 1, 1))
    if kind in ("tiff", "png"):
        paths = export.write_images(patterns, tmp_path, kind)
    else:
        paths = [tmp_path / f"al{kind}"]
        if kind == ".nc":
            patterns.to_netcdf(paths[0])
        else:
            export.write_signal(patterns, paths[0])
    found = [one for path in paths for one in pictures.read_pictures(path)]
    assert len(found) == 4
    for one, index in zip(found, order, strict=True):
        assert one.ours
        assert one.index["zone_axis"] == patterns["uvw"].values[index[0]].tolist()
        assert one.index["voltage_kV"] == patterns["voltage"].values[index[1]]
        assert one.scale == pytest.approx(1e-3 * 0.75 / (0.8 * wavelength(one.index["voltage_kV"])), rel=1e-12)
        prepared = pictures.prepare(one, FRAME, Options())
        assert prepared.assumed == []
        expected = network_sees(patterns, index)
        if kind == "png":
            # what lies nearer to the axis than 4 pixels was clipped to white
            far = np.hypot(*np.meshgrid(*[np.arange(64) - 31.5] * 2)) > 4.0
            assert np.abs(prepared.grey - expected)[far].max() < 2e-3
        else:
            assert np.array_equal(prepared.grey, expected)


def test_a_larger_detector_is_shown_at_the_scale_of_training(patterns, tmp_path):
    """The same pattern with 4 x 4 finer pixels: averaged down, it is that of the coarse detector to a few per cent of a
    decade, as both are integrals of the same spots with a response of half a coarse pixel."""
    crystal = bulk("Al", "fcc", a=4.05, cubic=True)
    fine = simulate(crystal, {"pixels": 256, "detector_width": 48.0}, "cpu", repeat=(10, 10, 10), zone_axes=[[0, 0, 1]],
                    voltages=[200.0], camera_lengths=[0.8])  # fmt: skip
    fine.to_netcdf(tmp_path / "fine.nc")
    (one,) = pictures.read_pictures(tmp_path / "fine.nc")
    grey = pictures.prepare(one, FRAME, Options()).grey
    expected = network_sees(patterns, (0, 1, 0, 0))
    bright = expected > 0.4
    assert np.abs(grey - expected)[bright].mean() < 0.05
    blunt = pictures.prepare(one, Frame(64, 0.75, 2.0, 3.0, (0.0187, 0.0762), None), Options()).grey
    assert np.abs(grey - expected).mean() < np.abs(blunt - expected).mean()


def test_colours_palettes_opacity_and_pages(tmp_path):
    grey = (255 * spots() / spots().max()).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / "rgb.png")
    Image.fromarray(np.stack([grey] * 3 + [np.full_like(grey, 255)], -1)).save(tmp_path / "rgba.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([grey, grey]).astype(np.uint16))
    tifffile.imwrite(tmp_path / "rgb.tif", np.stack([grey] * 3, -1), photometric="rgb")
    (first,) = pictures.read_pictures(tmp_path / "grey.png")
    for name in ("rgb.png", "rgba.png", "palette.png", "rgb.tif"):
        (one,) = pictures.read_pictures(tmp_path / name)
        assert one.intensity == "display" and one.notes == ()
        assert np.array_equal(one.values, first.values), name
    pages = list(pictures.read_pictures(tmp_path / "stack.tif"))
    assert [page.index for page in pages] == [{"page": 0}, {"page": 1}]
    assert pages[0].intensity == "linear"
    red = np.zeros((64, 64, 3), np.uint8)
    red[20:40, 20:40, 0] = 200
    Image.fromarray(red).save(tmp_path / "red.png")
    (one,) = pictures.read_pictures(tmp_path / "red.png")
    assert one.values.max() == round(0.299 * 200) and one.notes


def test_the_calibration_of_a_foreign_signal(tmp_path):
    """1/nm and an offset: scale in 1/angstrom and the centre follow."""
    with h5py.File(tmp_path / "a.hspy", "w") as file:
        signal = file.create_group("Experiments/other")
        signal["data"] = np.random.default_rng(0).random((3, 64, 80)).astype(np.float32)
        for n, (name, size) in enumerate((("n", 3), ("y", 64), ("x", 80))):
            axis = {
                "name": name,
                "size": size,
                "scale": 0.2,
                "offset": -0.2 * 30.5,
                "units": "1/nm",
                "navigate": n == 0,
            }
            signal.create_group(f"axis-{n}").attrs.update(axis)
    found = list(pictures.read_pictures(tmp_path / "a.hspy"))
    assert [one.index for one in found] == [{"index": [n]} for n in range(3)]
    assert found[0].scale == pytest.approx(0.02)
    assert found[0].centre == pytest.approx((30.5, 30.5))
    assert not found[0].ours


@pytest.mark.parametrize("unit", ["1/nm", "1 / nm", "nm^-1", "$nm^{-1}$", "k_nm^-1", "nm⁻¹"])
def test_every_spelling_of_a_reciprocal_length(unit):
    assert pictures._per_angstrom(unit) == 0.1
    assert pictures._per_angstrom(unit.replace("nm", "Å")) == 1.0
    assert pictures._per_angstrom("nm") is None and pictures._per_angstrom("px") is None


@pytest.mark.parametrize("where", ["TEM", "TEM/Detector/Diffraction"])
def test_camera_lengths_of_hyperspy_are_millimetres_and_of_pyxem_centimetres(tmp_path, where):
    with h5py.File(tmp_path / "a.hspy", "w") as file:
        signal = file.create_group("Experiments/other")
        signal["data"] = np.random.default_rng(0).random((64, 64)).astype(np.float32)
        for n in range(2):
            axis = {"size": 64, "scale": 0.5, "offset": 0.0, "units": "mm", "navigate": False}
            signal.create_group(f"axis-{n}").attrs.update(axis)
        signal.create_group("metadata/Acquisition_instrument/TEM").attrs["beam_energy"] = 200.0
        place = signal.require_group(f"metadata/Acquisition_instrument/{where}")
        place.attrs["camera_length"] = 800.0 if where == "TEM" else 80.0
    (one,) = pictures.read_pictures(tmp_path / "a.hspy")
    assert one.scale == pytest.approx(0.5 / (800.0 * wavelength(200.0)))


def test_what_tiffs_say_of_their_scale_and_greys(tmp_path):
    """Tags of Gatan's software and of ImageJ; black and white exchanged; a palette; pages of several sizes."""
    grey = (255 * spots() / spots().max()).astype(np.uint8)
    tags = [(65003, "s", 0, "1/nm", False), (65009, "d", 1, 0.13, False)]
    tifffile.imwrite(tmp_path / "gatan.tif", grey.astype(np.uint16), extratags=tags)
    tifffile.imwrite(tmp_path / "imagej.tif", grey, imagej=True, resolution=(1 / 0.13, 1 / 0.13),
                     metadata={"unit": "1/nm"})  # fmt: skip
    for name in ("gatan", "imagej"):
        (one,) = pictures.read_pictures(tmp_path / f"{name}.tif")
        assert one.scale == pytest.approx(0.013), name
        said = pictures.prepare(one, FRAME, Options(centre=(60.3, 66.8))).assumed
        assert any("as the file states" in text for text in said)
    tifffile.imwrite(tmp_path / "white.tif", 255 - grey, photometric="miniswhite")
    falling = np.stack([np.arange(256)[::-1] * 257] * 3).astype(np.uint16)
    tifffile.imwrite(tmp_path / "palette.tif", 255 - grey, photometric="palette", colormap=falling)
    for name in ("white", "palette"):
        (one,) = pictures.read_pictures(tmp_path / f"{name}.tif")
        assert np.array_equal(one.values, grey), name
    Image.fromarray(grey).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    assert np.array_equal(next(pictures.read_pictures(tmp_path / "lzw.tif")).values, grey)
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as file:
        for values in (grey, grey[:64, :64], grey):
            file.write(values)
    assert sorted(one.values.shape[0] for one in pictures.read_pictures(tmp_path / "mixed.tif")) == [64, 128, 128]


def bad_files(folder):
    good = (200 * spots() / spots().max()).astype(np.float32)
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    (folder / "text.tif").write_text("no picture")
    (folder / "camera.dm4").write_text("no picture")
    (folder / "text.nc").write_text("no picture")
    (folder / "text.hspy").write_text("no picture")
    (folder / "cut.png").write_bytes(b"")
    Image.fromarray(good.astype(np.uint8)).save(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:900])
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(folder / "black.png")
    Image.fromarray(good.astype(np.uint8)[:10, :10]).save(folder / "tiny.png")
    tifffile.imwrite(folder / "nan.tif", np.full((64, 64), np.nan, np.float32))
    tifffile.imwrite(folder / "complex.tif", good.astype(np.complex64))
    (folder / "folder").mkdir()
    (folder / "store.zspy").mkdir()
    with h5py.File(folder / "spectrum.hspy", "w") as file:
        signal = file.create_group("Experiments/s")
        signal["data"] = np.zeros((5, 64))
        for n in range(2):
            signal.create_group(f"axis-{n}").attrs.update({"size": 64, "scale": 1.0, "offset": 0.0, "navigate": n == 0})


BAD = {
    "missing.png": "no such file",
    "empty.png": "is empty",
    "text.png": "not a picture",
    "cut.png": "damaged",
    "text.tif": "TIFF",
    "camera.dm4": r"hyperspy\.api\.load",
    "text.nc": "netCDF",
    "text.hspy": "HyperSpy",
    "black.png": "empty",
    "tiny.png": "too few",
    "nan.tif": "not finite",
    "complex.tif": "complex",
    "folder": "folder",
    "store.zspy": "HyperSpy",
    "spectrum.hspy": "signal",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_with_what_is_wrong(tmp_path, name):
    bad_files(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=BAD[name]) as caught:
        list(pictures.read_pictures(tmp_path / name))
    assert name in str(caught.value) and "\n" not in str(caught.value)


# --- preparing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("stopped", [False, True])
def test_the_centre_is_found_by_inversion_symmetry(seed, stopped):
    """Also behind a beam stop, in a picture that is not square, with noise; to half a pixel of spots 1.8 px wide."""
    centre = tuple(np.random.default_rng(seed).uniform(50, 70, 2))
    image = spots(centre=centre, seed=seed, shape=(124, 150)) + 0.02 * np.random.default_rng(seed).random((124, 150))
    if stopped:
        y, x = np.indices(image.shape)
        image[np.hypot(x - centre[0], y - centre[1]) < 8] = 0
        image[np.abs(y - centre[1]) < 2,] = 0
    assert inspection.find_centre(image)[:2] == pytest.approx(centre, abs=0.5)


def test_large_pictures_are_searched_at_lower_resolution():
    image = np.kron(spots(size=160, centre=(78.0, 84.0)), np.ones((8, 8)))
    # pixel i of the small picture is centred at 8 i + 3.5 of the large one
    assert inspection.find_centre(image)[:2] == pytest.approx((8 * 78 + 3.5, 8 * 84 + 3.5), abs=3)


def test_resampling_keeps_the_mean_and_is_exact_at_ratio_one():
    values = np.random.default_rng(1).random((90, 90)).astype(np.float32)
    centre = (44.5, 44.5)
    assert np.array_equal(pictures.resample(values, centre, 1.0, 90), values)
    assert np.allclose(pictures.resample(values, centre, 3.0, 30), values.reshape(30, 3, 30, 3).mean((1, 3)), atol=1e-6)
    ramp = np.arange(90.0) + np.zeros((90, 1))
    fine = pictures.resample(ramp, centre, 0.5, 60)  # linear interpolation of a linear function
    assert np.allclose(fine[10], 44.5 + (np.arange(60) - 29.5) * 0.5, atol=1e-4)
    outside = pictures.resample(values, (0.0, 0.0), 1.0, 90)
    assert not outside[:44, :44].any()


def test_rotation_turns_x_towards_y():
    image = np.zeros((65, 65), np.float32)
    image[32, 52] = 1.0  # on the x axis
    turned = pictures.resample(image, (32.0, 32.0), 1.0, 65, rotation=90.0)
    assert np.unravel_index(turned.argmax(), turned.shape) == (52, 32)  # on the y axis, downwards


def test_dark_spots_on_white_are_inverted_and_background_goes():
    image = spots()
    image /= image.max()
    y, x = np.indices(image.shape)
    glow = 0.3 * np.exp(-np.hypot(x - 60.3, y - 66.8) / 40)
    rng = np.random.default_rng(3)
    options = Options(centre=(60.3, 66.8))
    plain = pictures.prepare(picture(image), FRAME, options).grey
    noisy = pictures.prepare(picture(image + glow + 0.003 * rng.random(image.shape)), FRAME, options).grey
    raw = pictures.prepare(picture(image + glow), FRAME, Options(centre=(60.3, 66.8), background="none")).grey
    assert np.abs(noisy - plain).mean() < 0.2 * np.abs(raw - plain).mean()
    levels = np.rint(255 * image).astype(np.uint8)
    dark, light = (picture(values, intensity="display") for values in (255 - levels, levels))
    one, other = (pictures.prepare(value, FRAME, options) for value in (dark, light))
    assert any("inverted" in text for text in one.assumed) and not any("inverted" in text for text in other.assumed)
    assert np.abs(one.grey - other.grey).max() < 0.02
    with pytest.raises(ValueError, match="nothing is left"):  # what is called dark spots here is background
        pictures.prepare(light, FRAME, Options(centre=(60.3, 66.8), contrast="dark"))


@pytest.mark.parametrize("size", [512, 1024])
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("shown", ["logarithm", "gamma", "16 bits"])
def test_contrast_is_told_apart_behind_a_beam_stop_and_on_a_round_screen(size, corners, stopped, shown):
    """8-bit displays and 16-bit counts, each as it is and as a negative."""
    scale = size // 128
    image = np.kron(spots(), np.ones((scale, scale)))
    image /= image.max()
    y, x = (np.indices(image.shape) + 0.5) / scale - 0.5
    away = np.hypot(x - 60.3, y - 66.8)
    image = np.random.default_rng(1).poisson(2000 * (image + 0.03 * np.exp(-away / 25))).astype(float)
    if stopped:
        image[(away < 5) | ((x > 60.3) & (np.abs(y - 66.8) < 2))] = 0
    if corners:
        image[np.hypot(x - 63.5, y - 63.5) > 64] = 0
    image /= np.percentile(image, 99.9)
    grey = {"logarithm": 1 + np.log10(np.maximum(image, 1e-9)) / 3, "gamma": image**0.4, "16 bits": image}[shown]
    grey = np.rint((60000 if shown == "16 bits" else 255) * np.clip(grey, 0, 1))
    every = np.ones(grey.shape, bool)
    assert inspection.contrast(grey, every) > pictures.UNCLEAR_CONTRAST
    assert inspection.contrast(grey.max() - grey, every) < -pictures.UNCLEAR_CONTRAST


def test_contrast_and_centre_of_pictures_as_a_microscope_takes_them():
    """A small sample of what benchmarks/foreign_pictures.py measures; docs/classify.md has the shares of more."""
    import foreign_pictures as benchmark

    crystals = [
        (225, bulk("Al", "fcc", a=4.05, cubic=True)),
        (229, bulk("Fe", "bcc", a=2.87, cubic=True)),
        (227, bulk("Si", "diamond", a=5.43, cubic=True)),
        (221, bulk("CsCl", "cesiumchloride", a=4.12)),
    ]
    patterns = list(benchmark.simulated(crystals, 6, 256, 3))
    taken = [benchmark.take(one[0], 256, np.random.default_rng([3, n])) for n, one in enumerate(patterns)]
    found = [benchmark.examine(one) for one in taken]
    assert sum(one["contrast"] for one in found) >= 23
    assert sum(one["centre"] for one in found) >= 22
    assert {one.negative for one in taken} == {True, False}


def with_bar(image, value=255):
    marked = image.copy()
    marked[118:121, 8:40] = value
    marked[110:114, 14:16] = value  # part of a letter
    return marked


def test_a_scale_bar_is_hidden_and_said():
    image = np.rint(200 * spots() / spots().max()).astype(np.uint8)
    options = Options(centre=(60.3, 66.8), contrast="bright")
    plain = pictures.prepare(picture(image, intensity="display"), FRAME, options)
    marked = picture(with_bar(image), intensity="display")
    hidden = pictures.prepare(marked, FRAME, options)
    assert any("a bar of 32 x 3 pixels at x 8, y 118" in text for text in hidden.assumed)
    # grey values are shares of the brightest one, which the bar no longer is
    assert np.abs(hidden.grey - plain.grey).mean() < 0.005
    assert plain.doubts == hidden.doubts == []
    kept = pictures.prepare(marked, FRAME, Options(centre=(60.3, 66.8), contrast="bright", marks="keep"))
    assert any("nothing opposite" in text and "--mask" in text for text in kept.doubts)
    assert (kept.grey > 0.5).sum() < 0.7 * (plain.grey > 0.5).sum()


def test_patterns_without_marks_have_none(patterns):
    for values in patterns["intensity"].values[:, :, 0, 0].reshape(-1, 64, 64):
        grey = np.rint(255 * np.clip(1 + np.log10(values / values.max() + 1e-30) / 5, 0, 1))
        for shown in (grey, 255 - grey):
            mask, bars = inspection.drawn_marks(shown)
            assert not bars and not mask.any()


def test_a_round_screen_leaves_no_arc():
    """Background that ends at a screen off the middle: without the screen known, rings at its edge stand out."""
    image = np.kron(spots(), np.ones((4, 4))) / spots().max()
    y, x = np.indices(image.shape)
    image += 0.05 * np.exp(-np.hypot(x - 243, y - 269) / 300)
    away = np.hypot(x - 266, y - 250)
    image[away > 240] = 0
    found = inspection.subtract_background(image, (243, 269), inspection.screen(np.log1p(100 * image)))
    rim = (away > 215) & (away < 245)
    assert np.count_nonzero(found[rim] > 0.01) < 0.2 * np.count_nonzero(
        inspection.subtract_background(image, (243, 269))[rim] > 0.01
    )


def test_spots_too_near_or_too_far_apart_are_doubted_where_the_scale_is_not_known():
    """Square lattices 14 and 60 of 512 pixels apart, and a single pair of spots, 400 apart."""
    place = np.arange(512) - 255.5

    def row(spacing):
        comb = [k * spacing for k in range(-18, 19) if abs(k * spacing) < 300]
        return sum(np.exp(-(((place - at) / 3) ** 2) / 2 - at**2 / 4e4) for at in comb)

    alone = np.exp(-((place / 3) ** 2) / 2)
    pair = np.exp(-(((np.abs(place) - 200) / 3) ** 2) / 2)
    for across, down, doubted in ((row(14), row(14), True), (row(60), row(60), False), (pair, alone, True)):
        image, options = np.outer(down, across), Options(background="none", centre=(255.5, 255.5))
        found = pictures.prepare(picture(image), FRAME, options)
        assert any("apart" in text or "regular" in text for text in found.doubts) == doubted
        scaled = pictures.prepare(picture(image, scale=0.003), FRAME, options)
        assert not any("apart" in text or "regular" in text for text in scaled.doubts)


def test_a_centre_that_is_not_the_only_one_is_doubted():
    """Equal spots of a lattice: the points between them are centres too."""
    y, x = np.indices((256, 256))
    image = np.exp(3 * (np.cos(2 * np.pi * x / 16) + np.cos(2 * np.pi * y / 16)))
    lattice = pictures.prepare(picture(image), FRAME, Options(background="none", contrast="bright"))
    assert any("--centre" in text for text in lattice.doubts)
    assert inspection.find_centre(np.log1p(spots())).lead > pictures.UNCLEAR_CENTRE


def test_a_logarithmic_picture_of_known_decades_is_brought_to_those_of_the_network():
    image = spots() + 1e-9
    five = np.clip(1 + np.log10(image / image.max()) / 5, 0, 1)
    options = Options(centre=(60.3, 66.8), intensity="display", decades=5.0)
    shown = pictures.prepare(picture(five, intensity="display"), FRAME, options).grey
    linear = pictures.prepare(picture(image), FRAME, Options(centre=(60.3, 66.8))).grey
    assert np.abs(shown - linear).max() < 0.01


def test_hidden_pixels_take_the_value_of_the_opposite_side():
    image = spots(size=129, centre=(64.0, 64.0))
    mask = np.zeros(image.shape, bool)
    mask[60:69, 64:] = True  # a beam stop from the centre to the right edge
    options = Options(centre=(64.0, 64.0), mask=mask)
    whole = pictures.prepare(picture(image), FRAME, Options(centre=(64.0, 64.0))).grey
    filled = pictures.prepare(picture(np.where(mask, 7.0, image)), FRAME, options)
    assert np.abs(filled.grey - whole).max() < 0.02  # the part of the mask that hides its own opposite is the beam stop
    assert any("hidden" in text for text in filled.assumed)
    with pytest.raises(ValueError, match="mask has 3 x 3"):
        pictures.prepare(picture(image), FRAME, Options(mask=np.zeros((3, 3), bool)))


def test_the_scale_decides_what_the_frame_shows():
    """A picture of which the network knows no such scale is cut, or set into black; the spots land where they must."""
    image = spots(size=128, centre=(63.5, 63.5))
    expected = {0.005: 0.0187, 0.02: None, 0.2: 0.0762}
    for scale, taken in expected.items():
        prepared = pictures.prepare(picture(image), FRAME, Options(centre=(63.5, 63.5), scale=scale))
        said = [text for text in prepared.assumed if "1/Å" in text]
        assert bool(said) == (taken is not None)
        if taken:
            assert f"{taken:.4f}" in said[0]
    half = pictures.prepare(picture(image), FRAME, Options(centre=(63.5, 63.5), width=128 * 0.02))
    same = pictures.prepare(picture(image), FRAME, Options(centre=(63.5, 63.5), scale=0.02))
    assert np.array_equal(half.grey, same.grey)


def test_frame_of_a_card():
    image = {"pixels": 64, "pixel_size_mm": 0.75, "voltages": [120.0, 300.0], "camera_lengths": [0.5, 1.2]}
    card = {"image": image, "display": {"beam_stop": 2.0, "decades": 3.0}}
    frame = pictures.frame_of(json.loads(json.dumps(card)))
    assert frame.scales == pytest.approx((7.5e-4 / (1.2 * wavelength(120.0)), 7.5e-4 / (0.5 * wavelength(300.0))))
    del image["voltages"]
    assert pictures.frame_of(card).scales is None


@pytest.mark.parametrize("sigma", [0.6, 1.0, 2.5])
def test_the_width_of_spots_is_found(sigma):
    """Spots at random sub-pixel places, integrated over pixels; to 10 % or 0.05 pixels."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(1)
    fine = np.zeros((5 * 160, 5 * 160))
    fine[rng.integers(60, 740, 40), rng.integers(60, 740, 40)] = rng.uniform(0.3, 1, 40)
    image = gaussian_filter(fine, 5 * sigma).reshape(160, 5, 160, 5).sum((1, 3))
    found = inspection.spot_width(image, (79.5, 79.5), 4.0)
    assert found == pytest.approx(sigma, rel=0.1, abs=0.05)


def test_spots_of_an_unknown_detector_are_blurred_to_those_of_training(patterns, tmp_path):
    """A pattern with four times finer pixels and no word about its response: what it misses is found from its spots."""
    crystal = bulk("Al", "fcc", a=4.05, cubic=True)
    fine = simulate(crystal, {"pixels": 256, "detector_width": 48.0}, "cpu", repeat=(10, 10, 10), zone_axes=[[0, 0, 1]],
                    voltages=[200.0], camera_lengths=[0.8])  # fmt: skip
    expected = network_sees(patterns, (0, 1, 0, 0))
    values, scale = fine["intensity"].values[0, 0, 0, 0], 1e-3 * 0.1875 / (0.8 * wavelength(200.0))
    foreign = picture(values, centre=(127.5, 127.5), scale=scale)
    sharp = Frame(64, 0.75, 2.0, 3.0, FRAME.scales, None)
    one, other = (
        np.abs(pictures.prepare(foreign, frame, Options()).grey - expected).mean() for frame in (FRAME, sharp)
    )
    assert one < 2 / 3 * other
