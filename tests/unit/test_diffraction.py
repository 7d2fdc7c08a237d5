"""The diffraction engine's parts, its errors, and its file."""

import json
import logging
import math
import subprocess
import sys

import netCDF4
import numpy as np
import pytest
import scipy.constants
import xarray
from ase import Atoms
from ase.build import bulk

from defraction.diffraction import backend, direct, geometry, laue, patterns, planes, sampling, scattering
from defraction.diffraction.specimen import Specimen
from defraction.structures import write_structures

SETTINGS = {
    "model": "physical",
    "scattering_factors": "c4322",
    "zone_axes": [[0, 0, 1], [1, 1, 2]],
    "voltages": [120.0, 200.0],
    "camera_lengths": [0.8, 1.2],
    "detector_width": 20.0,
    "pixels": 24,
    "response_sigma": 0.5,
}


@pytest.fixture
def aluminium() -> Atoms:
    atoms = bulk("Al", cubic=True)
    atoms.info["repeat"] = [8, 6, 4]
    return atoms


# --- geometry


def test_constants_are_those_of_scipy():
    assert scipy.constants.h == geometry.PLANCK
    assert scipy.constants.e == geometry.ELEMENTARY_CHARGE
    assert scipy.constants.c == geometry.SPEED_OF_LIGHT
    assert scipy.constants.m_e == pytest.approx(geometry.ELECTRON_MASS, rel=1e-8)  # editions of CODATA differ by 3e-10


@pytest.mark.parametrize(("voltage", "angstrom"), [(100, 0.037014), (200, 0.025079), (300, 0.019687)])
def test_wavelength(voltage, angstrom):
    assert geometry.wavelength(voltage) == pytest.approx(angstrom, abs=6e-7)


def test_relativistic_factor():
    assert geometry.relativistic_factor(510.99895) == pytest.approx(2.0, rel=1e-8)


def test_scattering_vectors_lie_on_the_ewald_sphere():
    k, distance = 40.0, 500.0
    x, y = np.array([0.0, 31.0, -200.0]), np.array([0.0, -17.0, 150.0])
    q = geometry.scattering_vectors(x, y, k, distance)
    assert np.linalg.norm(q + [0, 0, k], axis=-1) == pytest.approx(k, rel=1e-14)
    assert (q + [0, 0, k])[:, :2] / (q[:, 2:] + k) * distance == pytest.approx(np.stack([x, y], axis=1), abs=1e-10)
    two_theta = np.arctan(np.hypot(x, y) / distance)
    assert np.linalg.norm(q, axis=-1) == pytest.approx(2 * k * np.sin(two_theta / 2), abs=1e-12)
    flat = geometry.scattering_vectors(x, y, k, distance, flat=True)
    assert (flat[:, 2] == 0).all() and (flat[:, :2] == q[:, :2]).all()


def test_zone_frame_follows_the_conventions():
    cell = np.array([[4.0, 0, 0], [1.0, 5.0, 0], [-0.5, 0.7, 6.0]])
    frame = geometry.zone_frame(cell, (1, -2, 3))
    assert frame @ frame.T == pytest.approx(np.eye(3), abs=1e-14)
    assert np.linalg.det(frame) == pytest.approx(1.0)
    z = np.array([1, -2, 3]) @ cell
    assert frame @ z == pytest.approx([0, 0, np.linalg.norm(z)])
    assert (frame @ cell[0])[1] == pytest.approx(0, abs=1e-14) and (frame @ cell[0])[0] > 0
    along_a = geometry.zone_frame(cell, (1, 0, 0))  # a has no component across the beam: b takes its place
    assert (along_a @ cell[1])[1] == pytest.approx(0, abs=1e-14) and (along_a @ cell[1])[0] > 0


@pytest.mark.parametrize("axis", [(0, 0, 0), (0, 0, 0.5), (1, 2), (math.nan, 0, 1)])
def test_bad_zone_axis(axis):
    with pytest.raises(ValueError, match="zone_axes"):
        geometry.zone_frame(np.eye(3), axis)


def test_flat_reference_cell():
    with pytest.raises(ValueError, match="reference_cell"):
        geometry.zone_frame([[1, 0, 0], [2, 0, 0], [0, 0, 1]], (0, 0, 1))


def test_excitation_error_is_positive_inside_the_sphere():
    k = 40.0
    g = np.array([[0, 0, -0.1], [0, 0, 0.1], [1.0, 0.5, 0.0]])
    assert (np.linalg.norm(g + [0, 0, k], axis=1) < k).tolist() == [True, False, False]
    s = geometry.excitation_error(g, k)
    assert (s > 0).tolist() == [True, False, False]
    assert np.linalg.norm(g + np.outer(s, [0, 0, 1]) + [0, 0, k], axis=1) == pytest.approx(k, rel=1e-14)


def test_spot_position_is_where_the_line_along_the_beam_meets_the_sphere():
    k, distance, g = 40.0, 800.0, np.array([0.7, -1.1, 0.03])
    x, y = geometry.spot_position(g, k, distance)
    assert geometry.scattering_vectors(x, y, k, distance)[:2] == pytest.approx(g[:2], abs=1e-13)


def test_detector_centres():
    detector = geometry.Detector(0.8, 64.0, 4)
    assert detector.positions() == pytest.approx([-24, -8, 8, 24])
    assert detector.pixel_of(detector.positions()) == pytest.approx([0, 1, 2, 3])


def test_projected_area_of_a_tilted_cube():
    frame = geometry.zone_frame(np.eye(3), (1, 1, 1))
    assert geometry.projected_area(np.eye(3) @ frame.T) == pytest.approx(math.sqrt(3))


# --- scattering factors


def test_interpolated_scattering_factors():
    elements = ["H", "Al", "Cs", "Au", "U"]
    q = np.linspace(0.0, 4.0, 3001)
    table = scattering.Factors().tabulate(elements, 4.0)
    for element, values in zip(elements, table, strict=True):
        found = [laue.cubic(values, node) for node in q**2 / scattering.STEP]
        assert found == pytest.approx(scattering.Factors().of(element, q), rel=1e-7)


def test_scattering_factor_at_zero_is_the_sum_of_the_amplitudes():
    a, _ = scattering.coefficients("Al")
    assert scattering.Factors().of("Al", np.zeros(1))[0] == pytest.approx(a.sum())
    assert a.sum() == pytest.approx(5.889, abs=0.01)  # Å, neutral Al, International Tables C 4.3.2.2


def test_unknown_table_names_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown table 'peng'.*c4322"):
        scattering.Factors("peng")


@pytest.mark.parametrize("element", ["Xx", "al", "Og"])
def test_unknown_element(element):
    with pytest.raises(ValueError, match=element):
        scattering.coefficients(element)


# --- sampling


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.2])
def test_response_conserves_electrons(sigma):
    n = 5
    assert sampling.response_weights(n, sigma).sum() == pytest.approx(1.0)
    far = np.arange(-40, 41)  # an electron anywhere is recorded once in all
    for position in (0.0, 0.31):
        assert sampling.response(position - far, sigma).sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("ratio", [2, 3, 7])
def test_interpolation_weights(ratio):
    weights = sampling.interpolation_weights(ratio)
    taps = np.arange(sampling.TAPS) - (sampling.TAPS // 2 - 1)
    for frequency in np.linspace(0, 0.5 / sampling.OVERSAMPLING, 20):
        wave = np.exp(2j * np.pi * frequency * taps)
        wanted = np.exp(2j * np.pi * frequency * np.arange(ratio) / ratio)
        assert abs(weights @ wave - wanted).max() < 5e-6


# --- backend


def test_unknown_device():
    with pytest.raises(ValueError, match="device: 'cuda'"):
        backend.select_backend("cuda")


def test_missing_gpu_is_an_error_only_if_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert backend.select_backend("auto").device == "cpu"
    assert backend.select_backend("cpu").xp is np
    with pytest.raises(RuntimeError, match="gpu was asked for"):
        backend.select_backend("gpu")


# --- structures and settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "exact"}, "model: 'exact'"),
        ({"scattering_factors": "lobato"}, "unknown table 'lobato'"),
        ({"zone_axes": []}, "zone_axes: the list is empty"),
        ({"zone_axes": [[0, 0, 0]]}, r"zone_axes: \[0, 0, 0\]"),
        ({"voltages": [-5.0]}, "voltages: -5.0"),
        ({"camera_lengths": [0.0]}, "camera_lengths: 0.0"),
        ({"detector_width": 0.0}, "detector_width"),
        ({"pixels": 0}, "pixels: 0"),
        ({"response_sigma": 0.1}, "response_sigma: 0.1"),
    ],
)
def test_bad_settings(aluminium, change, message):
    with pytest.raises(ValueError, match=message):
        patterns.simulate([aluminium], SETTINGS | change)


def test_missing_settings(aluminium):
    with pytest.raises(ValueError, match="lack voltages"):
        patterns.simulate([aluminium], {key: value for key, value in SETTINGS.items() if key != "voltages"})


def test_no_structure_and_no_memory(aluminium):
    with pytest.raises(ValueError, match="no structure"):
        patterns.simulate([], SETTINGS)
    with pytest.raises(ValueError, match="memory: 0"):
        patterns.simulate([aluminium], SETTINGS, memory=0)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(cell=[4, 4, 4]), "no atoms"),
        (Atoms("Al"), "cell"),
        (Atoms("Al", cell=[4, 4, 4], positions=[[math.nan, 0, 0]]), "not a finite number"),
        (Atoms("Al", cell=[4, 4, 4], info={"repeat": [4, 0, 4]}), "repeat"),
        (Atoms("Al", cell=[4, 4, 4], info={"repeat": [4, 4]}), "repeat"),
    ],
)
def test_bad_structures(atoms, message):
    with pytest.raises(ValueError, match=message):
        Specimen.from_atoms(atoms, "the.cif")


# --- results


def test_file_holds_what_simulate_returns(aluminium, tmp_path):
    snapshots = [aluminium, aluminium.copy()]
    snapshots[1].rattle(0.05, seed=1)
    snapshots[1].info.update(repeat=[8, 6, 4], reference_cell=aluminium.cell[:].tolist())
    write_structures(snapshots, tmp_path / "al.cif")
    patterns.simulate_file(tmp_path / "al.cif", tmp_path / "al.nc", SETTINGS, origin={"rule": "simulate"})
    expected = patterns.simulate(snapshots, SETTINGS)
    with xarray.open_dataset(tmp_path / "al.nc") as data:
        assert data.intensity.dims == ("zone_axis", "voltage", "camera_length", "snapshot", "y", "x")
        assert data.intensity.shape == (2, 2, 2, 2, 24, 24)
        assert data.intensity.dtype == np.float32
        # the CIF holds positions to 1e-10 of the cell, which single precision does not see
        assert data.intensity.values == pytest.approx(expected.intensity.values, rel=1e-4, abs=1e-9)
        assert data.zone_axis.values.tolist() == ["[0 0 1]", "[1 1 2]"]
        assert data.uvw.values.tolist() == [[0, 0, 1], [1, 1, 2]]
        assert data.x.values == pytest.approx(geometry.Detector(0.8, 20.0, 24).positions())
        assert data.attrs["Conventions"].startswith("CF-")
        assert json.loads(data.attrs["settings"]) == SETTINGS
        assert json.loads(data.attrs["origin"]) == {"rule": "simulate"}
        assert data.attrs["method"] == "laue" and data.attrs["intensity_error_bound"] == 1e-5
        assert data.attrs["atoms_in_specimen"] == 4 * 8 * 6 * 4
        for name, variable in data.variables.items():
            assert "long_name" in variable.attrs, name
            assert name == "zone_axis" or "units" in variable.attrs, name
        units = {name: data[name].attrs["units"] for name in ("voltage", "camera_length", "x", "y", "wavelength")}
        assert units == {"voltage": "kV", "camera_length": "m", "x": "mm", "y": "mm", "wavelength": "angstrom"}
    with netCDF4.Dataset(tmp_path / "al.nc") as file:
        assert file["intensity"].chunking() == [1, 1, 1, 1, 24, 24]
        assert file["intensity"].filters()["zlib"] and file["intensity"].filters()["complevel"] == 1
    with patterns.read_patterns(tmp_path / "al.nc") as file:
        image = file["intensity"][1, 0, 1, 1]
        assert not np.ma.isMaskedArray(image)
        assert (image > 0).all()


def test_reading_another_file(tmp_path):
    netCDF4.Dataset(tmp_path / "other.nc", "w").close()
    with pytest.raises(ValueError, match=r"other\.nc"):
        patterns.read_patterns(tmp_path / "other.nc")


def test_unreadable_structure(tmp_path):
    (tmp_path / "bad.cif").write_text("this is no crystal\n")
    with pytest.raises(ValueError, match=r"bad\.cif"):
        patterns.simulate_file(tmp_path / "bad.cif", tmp_path / "bad.nc", SETTINGS)


def test_memory_sets_the_batch_and_never_the_result(aluminium, caplog):
    with caplog.at_level(logging.INFO):
        whole = patterns.simulate([aluminium], SETTINGS)
        parts = patterns.simulate([aluminium], SETTINGS, memory=1e-6)
    assert "8 patterns in 1 batches" in caplog.text
    assert "8 patterns in 8 batches" in caplog.text
    assert (whole.intensity.values == parts.intensity.values).all()  # to the bit


def test_squared_amplitude_is_recovered(aluminium):
    data = patterns.simulate([aluminium], SETTINGS)
    specimen = Specimen.from_atoms(aluminium)
    view = specimen.view((1, 1, 2))
    beam = geometry.Beam(1 / geometry.wavelength(200.0), geometry.Detector(1.2, 20.0, 24))
    one = data.isel(zone_axis=1, voltage=1, camera_length=1, snapshot=0)
    squared = one.intensity.values * one.to_squared_amplitude.values / one.obliquity.values
    cosine = 1200.0 / np.sqrt(one.x.values**2 + one.y.values[:, None] ** 2 + 1200.0**2)
    expected = direct.intensity(view, beam, 0.5, scattering.Factors(), (3, 3)) / cosine**3
    assert squared == pytest.approx(expected, rel=1e-4, abs=1e-5 * expected[:8].max())
    assert view.area == pytest.approx(float(one.illuminated_area))
    assert view.area == pytest.approx(
        4.05**2 * (8 * 6 * 2 + 6 * 4 * 1 + 8 * 4 * 1) / math.sqrt(6)  # faces times cosines to [112]
    )


def test_kernels_are_compiled_once(aluminium):
    patterns.simulate([aluminium], SETTINGS)
    patterns.simulate([aluminium], SETTINGS | {"model": "article", "zone_axes": [[1, 0, 0]], "voltages": [300.0]})
    for kernel in (laue._cell_amplitudes, laue._rows, laue._pixels):
        assert len(kernel.signatures) == 1, kernel


def test_method_follows_the_cost(aluminium):
    plan = patterns.PatternSet.plan([aluminium], SETTINGS)
    assert plan.method() is patterns.LAUE
    rng = np.random.default_rng(0)
    cell = np.diag([120.0, 90.0, 5.0])
    plate = Atoms("Al3000", cell=cell, scaled_positions=rng.random((3000, 3)))
    plan = patterns.PatternSet.plan([plate], SETTINGS)
    assert plan.method() is patterns.NUFFT
    assert plan.method().error_bound == planes.ERROR_BOUND


def test_starting_needs_no_heavy_package(root):
    code = "import sys, defraction.diffraction.patterns; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=root / "workflow/scripts", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert {"xarray", "pandas", "torch", "pymatgen", "matplotlib", "finufft"}.isdisjoint(run.stdout.split())
