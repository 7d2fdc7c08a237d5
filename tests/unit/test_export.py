"""Patterns in the hands of the programs they are written for: HyperSpy with pyxem, Pillow, tifffile."""

import json

import h5py
import numpy as np
import pytest
import tifffile
from ase.build import bulk
from PIL import Image

from defraction import export
from defraction.diffraction import geometry, patterns

PIXELS = 64
LATTICE = 4.05


@pytest.fixture(scope="module")
def aluminium():
    atoms = bulk("Al", "fcc", a=LATTICE, cubic=True)
    return patterns.simulate(
        atoms, repeat=(10, 10, 5), zone_axes=[[0, 0, 1], [-1, 1, 0]], voltages=[200.0], camera_lengths=[0.8],
        pixels=PIXELS, detector_width=40.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def several():
    atoms = bulk("Al", "fcc", a=LATTICE, cubic=True)
    return patterns.simulate(
        [atoms, atoms], repeat=(3, 3, 3), zone_axes=[[0, 0, 1]], voltages=[120.0, 200.0, 300.0],
        camera_lengths=[0.5, 0.8], pixels=16,
    )  # fmt: skip


def spot_of(image, column):
    """Centre of mass of the spot nearest to ``column`` on the central rows, in pixels."""
    middle = len(image) // 2
    rows, columns = np.s_[middle - 3 : middle + 3], np.s_[round(column) - 3 : round(column) + 4]
    window = image[rows, columns].astype(float)
    return (window.sum(axis=0) * np.arange(PIXELS)[columns]).sum() / window.sum()


def test_hyperspy_reads_both_formats_as_pyxem_signals(aluminium, tmp_path):
    hs = pytest.importorskip("hyperspy.api")
    for name in ("al.hspy", "al.zspy"):
        export.write_signal(aluminium, tmp_path / name)
        signal = hs.load(tmp_path / name)
        assert type(signal).__name__ == "ElectronDiffraction2D"
        assert (signal.data == aluminium.intensity.values[:, 0, 0, 0]).all()
        horizontal, vertical = signal.axes_manager.signal_axes
        assert (horizontal.name, vertical.name, horizontal.units, vertical.units) == ("x", "y", "k_A^-1", "k_A^-1")
        # g of 200 is 2 / a; its spot lies to the right of the beam, where the axis says 2 / a
        column = spot_of(signal.data[0], horizontal.value2index(2.0 / LATTICE))
        g = horizontal.offset + column * horizontal.scale
        assert g == pytest.approx(2.0 / LATTICE, abs=0.2 * horizontal.scale)
        assert signal.beam_energy == 200.0
        assert signal.camera_length == pytest.approx(800.0)  # HyperSpy's field, in mm
        detector = signal.metadata.Acquisition_instrument.TEM.Detector
        assert detector.Diffraction.camera_length == pytest.approx(80.0)  # pyxem's set_experimental_parameters, in cm
        attributes = signal.original_metadata.attributes
        assert attributes.method == "laue"
        assert json.loads(attributes.settings)["voltages"] == [200.0]
        assert json.loads(signal.original_metadata.coordinates.zone_axis) == [[0, 0, 1], [-1, 1, 0]]
        lazy = hs.load(tmp_path / name, lazy=True)
        assert lazy.data.chunksize == (1, PIXELS, PIXELS)
        assert (lazy.data[1].compute() == signal.data[1]).all()


def test_layout_is_the_one_that_rosettasciio_writes(aluminium, tmp_path):
    hspy = pytest.importorskip("rsciio.hspy")
    export.write_signal(aluminium, tmp_path / "ours.hspy")
    (signal,) = hspy.file_reader(tmp_path / "ours.hspy")
    signal["attributes"].pop("learning_results")
    signal.update(
        models={}, tmp_parameters={}, learning_results={}, package_info={"package": "x", "package_version": ""}
    )
    hspy.file_writer(tmp_path / "theirs.hspy", signal, show_progressbar=False)

    def tree(path):
        found = {}
        with h5py.File(path) as file:
            file.visititems(lambda name, item: found.update({name: (type(item), set(item.attrs))}))
            return found, set(file.attrs)

    ours, theirs = tree(tmp_path / "ours.hspy"), tree(tmp_path / "theirs.hspy")
    assert ours[1] == theirs[1]
    assert set(ours[0]) == set(theirs[0])
    for name in ours[0]:
        assert ours[0][name] == theirs[0][name], name


def test_axes_of_several_voltages_and_camera_lengths(several, tmp_path):
    with export.open_source(several) as source:
        axes = export.signal_axes(source)
    assert [axis["name"] for axis in axes] == ["voltage", "camera_length", "snapshot", "y", "x"]  # one zone axis: none
    assert axes[0]["_type"] == "DataAxis"  # 120, 200, 300 are not evenly spaced
    assert axes[0]["axis"].tolist() == [120.0, 200.0, 300.0]
    assert (axes[1]["offset"], axes[1]["scale"]) == pytest.approx((0.5, 0.3))
    assert axes[-1]["units"] == "mm"  # no single scale in 1/Å
    assert axes[-1]["scale"] == pytest.approx(63.5 / 16)
    assert axes[-1]["offset"] == pytest.approx(-63.5 / 2 + 63.5 / 32)
    reader = pytest.importorskip("rsciio.zspy")
    export.write_signal(several, tmp_path / "several.zspy")
    (signal,) = reader.file_reader(tmp_path / "several.zspy")
    assert (np.asarray(signal["data"]) == several.intensity.values[0]).all()
    assert "beam_energy" not in signal["metadata"]["Acquisition_instrument"]["TEM"]


def test_single_pattern_is_a_signal_without_navigation(aluminium, tmp_path):
    export.write_signal(aluminium.isel(zone_axis=[1]), tmp_path / "one.hspy")
    with h5py.File(tmp_path / "one.hspy") as file:
        (experiment,) = file["Experiments"].values()
        assert experiment["data"].shape == (PIXELS, PIXELS)
        assert [experiment[f"axis-{i}"].attrs["name"] for i in range(2)] == ["y", "x"]


def test_file_and_dataset_give_the_same(aluminium, tmp_path):
    aluminium.to_netcdf(tmp_path / "al.nc")
    export.write_signal(tmp_path / "al.nc", tmp_path / "from-file.hspy")
    export.write_signal(aluminium, tmp_path / "from-memory.hspy")
    contents = []
    for name in ("from-file.hspy", "from-memory.hspy"):
        with h5py.File(tmp_path / name) as file:
            (experiment,) = file["Experiments"].values()
            contents.append((experiment["data"][...], dict(experiment["axis-2"].attrs)))
    assert (contents[0][0] == contents[1][0]).all()
    assert contents[0][1] == contents[1][1]


def test_png_holds_grey_values_and_how_they_came_about(aluminium, tmp_path):
    paths = export.write_images(aluminium, tmp_path / "images", "png", decades=4.0)
    assert [path.name for path in paths] == ["Al4_001_200kV_0.8m.png", "Al4_-110_200kV_0.8m.png"]
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            text, grey = image.text, np.asarray(image).astype(float)
        intensity = aluminium.intensity.values[number, 0, 0, 0]
        facts = json.loads(text["Description"])
        assert facts["zone_axis"] == [[0, 0, 1], [-1, 1, 0]][number]
        assert (facts["voltage_kV"], facts["camera_length_m"]) == (200.0, 0.8)
        wavelength = geometry.wavelength(200.0)
        assert facts["pixel_per_angstrom_at_centre"] == pytest.approx(40.0 / PIXELS / 800.0 / wavelength, rel=1e-12)
        assert facts["attributes"]["method"] == "laue"
        brightest = float(text["Display"].split("I_0 = ")[1].split()[0])
        assert "log10(I / I_0) / 4" in text["Display"]
        # undo the transform that the text states, where nothing is clipped
        shown = (grey > 0) & (grey < 65535)
        assert shown.sum() > 50
        assert brightest * 10 ** (4.0 * (grey / 65535 - 1))[shown] == pytest.approx(intensity[shown], rel=1e-4)
        assert (intensity[grey == 0] <= brightest * 1.0001e-4).all()
        assert (intensity[grey == 65535] >= brightest * 0.9999).all()


def test_direct_beam_does_not_set_the_scale():
    image = np.full((32, 32), 1e-6)
    image[15:17, 15:17] = 5.0
    image[4, 20] = 1e-2
    grey, brightest = export.grey_values(image, 3.0)
    assert brightest == 1e-2
    assert grey[4, 20] == grey[15, 15] == 1.0
    assert grey[0, 0] == 0.0
    assert not export.grey_values(np.zeros((32, 32)))[0].any()


def test_tiff_holds_the_intensities_and_their_calibration(several, tmp_path):
    paths = export.write_images(several, tmp_path, "tiff")
    assert len(paths) == 12
    assert paths[-1].name == "Al4_001_300kV_0.8m_0001.tif"
    with tifffile.TiffFile(paths[-1]) as file:
        page = file.pages[0]
        assert page.dtype == np.float32
        assert (page.asarray() == several.intensity.values[0, 2, 1, 1]).all()
        facts = json.loads(page.description)
        numerator, denominator = page.tags["XResolution"].value
    assert facts["pixel_mm"] == pytest.approx(63.5 / 16)
    assert 10.0 * denominator / numerator == pytest.approx(63.5 / 16, rel=1e-6)  # pixels per centimetre
    assert json.loads(facts["attributes"]["settings"])["pixels"] == 16
    reader = pytest.importorskip("rsciio.tiff")
    assert (reader.file_reader(str(paths[-1]))[0]["data"] == several.intensity.values[0, 2, 1, 1]).all()


def test_bad_requests_are_refused(aluminium, tmp_path):
    with pytest.raises(ValueError, match=r"al\.hdf5.*\.hspy or \.zspy"):
        export.write_signal(aluminium, tmp_path / "al.hdf5")
    with pytest.raises(ValueError, match="'gif' is not one of png, tiff"):
        export.write_images(aluminium, tmp_path, "gif")
    aluminium[["wavelength"]].to_netcdf(tmp_path / "other.nc")
    with pytest.raises(ValueError, match=r"other\.nc: holds no variable intensity"):
        export.write_images(tmp_path / "other.nc", tmp_path, "png")
    assert not list(tmp_path.glob("*.png"))
