"""The diffraction engine's parts, its errors, and its file."""

import json
import logging
import math
import subprocess
import sys
import time
from types import ModuleType, SimpleNamespace

import netCDF4
import numpy as np
import pytest
import scipy.constants
import xarray
from ase import Atoms
from ase.build import bulk

from defraction import config, provenance
from defraction.diffraction import backend, direct, geometry, laue, patterns, planes, sampling, scattering
from defraction.diffraction import settings as defaults
from defraction.diffraction.specimen import Body, Specimen
from defraction.specimens import specimens
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


def test_rotation_and_tilt_are_those_of_the_conventions_page():
    cell = np.array([[4.0, 0, 0], [1.0, 5.0, 0], [-0.5, 0.7, 6.0]])
    x, y, z = geometry.zone_frame(cell, (1, -2, 3))  # three directions in the crystal
    turned = geometry.zone_frame(cell, (1, -2, 3), rotation=90.0)
    assert turned @ x == pytest.approx([0, 1, 0], abs=1e-14)  # x goes to y, y to -x
    assert turned @ y == pytest.approx([-1, 0, 0], abs=1e-14)
    t = 5e-3
    about_x = geometry.zone_frame(cell, (1, -2, 3), tilt=(5.0, 0.0))
    assert about_x @ y == pytest.approx([0, math.cos(t), math.sin(t)], abs=1e-14)  # y towards z
    about_y = geometry.zone_frame(cell, (1, -2, 3), tilt=(0.0, 5.0))
    assert about_y @ z == pytest.approx([math.sin(t), 0, math.cos(t)], abs=1e-14)  # z towards x
    # all three: rotation first, then about the fixed x, then about the fixed y
    u = 30e-3
    every = geometry.zone_frame(cell, (1, -2, 3), rotation=90.0, tilt=(5.0, 30.0))
    assert every @ x == pytest.approx([math.sin(t) * math.sin(u), math.cos(t), math.sin(t) * math.cos(u)], abs=1e-14)
    assert np.linalg.det(every) == pytest.approx(1.0)


def test_origin_of_a_tilted_beam():
    # q of the direction in which the beam arrives is zero, and every q starts there
    direction = (0.004, -0.003)
    beam = geometry.Beam(40.0, geometry.Detector(0.5, 20.0, 16), direction=direction)
    z = math.sqrt(1.0 - 0.004**2 - 0.003**2)
    x, y = 500.0 * np.array(direction) / z
    assert geometry.scattering_vectors(x, y, 40.0, 500.0) == pytest.approx(beam.origin, abs=1e-12)
    assert beam.origin == pytest.approx([0.16, -0.12, 40.0 * (z - 1.0)], abs=1e-12)


# --- outline


@pytest.fixture
def oblique() -> Atoms:
    cell = np.array([[4.0, 0.0, 0.0], [1.1, 3.8, 0.0], [0.9, -0.7, 5.0]])
    atoms = Atoms("Al2Fe", cell=cell, scaled_positions=[[0, 0, 0], [0.3, 0.6, 0.1], [0.7, 0.2, 0.8]], pbc=True)
    atoms.info["repeat"] = [9, 11, 12]
    return atoms


@pytest.mark.parametrize("shape", ["cylinder", "sphere"])
def test_inscribed_bodies_touch_the_block_and_stay_inside(oblique, shape):
    edges = oblique.cell[:] * np.array([[9], [11], [12]])
    body = Body.inscribed(shape, edges)
    rng = np.random.default_rng(3)
    if shape == "sphere":
        surface = rng.normal(size=(200_000, 3))
        surface *= body.radius / np.linalg.norm(surface, axis=1)[:, None]
    else:
        across = np.linalg.qr(np.column_stack([body.axis, np.eye(3)[:2].T]))[0][:, 1:]
        angle = rng.uniform(0, 2 * np.pi, 200_000)
        surface = body.radius * np.stack([np.cos(angle), np.sin(angle)], axis=1) @ across.T
        surface += np.outer(rng.choice([-0.5, 0.5], 200_000) * body.height, body.axis)
    fractions = np.abs(surface @ np.linalg.inv(edges))
    assert 0.4999 < fractions.max() < 0.500001
    if shape == "cylinder":
        assert body.axis == pytest.approx(oblique.cell[2] / np.linalg.norm(oblique.cell[2]))
        assert fractions[:, :2].max() > 0.4999  # the round side touches,
        assert fractions[:, 2].max() > 0.4999  # and so do the rims of the ends
        upright = Body.inscribed("cylinder", np.diag([30.0, 20.0, 50.0]))
        assert (upright.radius, upright.height) == (10.0, 50.0)


@pytest.mark.parametrize("shape", ["cylinder", "sphere"])
def test_cut_specimens_hold_the_atoms_inside(oblique, shape):
    whole = Specimen.from_atoms(oblique)
    cut = Specimen.from_atoms(oblique, shape=shape)
    body = Body.inscribed(shape, whole.cell * whole.repeat[:, None])
    # every atom of the block, one at a time
    kept = {"Al": 0, "Fe": 0}
    middle = 0.5 * whole.repeat @ whole.cell
    for n in np.ndindex(*whole.repeat):
        for symbol, r in zip(whole.symbols, whole.positions + np.array(n) @ whole.cell - middle, strict=True):
            along = 0.0 if shape == "sphere" else r @ body.axis
            inside = math.sqrt(max(0.0, r @ r - along**2)) <= body.radius and abs(along) <= 0.5 * body.height
            kept[symbol] += inside
    assert {element: cut.symbols.count(element) for element in kept} == kept
    assert cut.atom_count == len(cut.symbols) == sum(kept.values())
    assert cut.repeat.tolist() == [1, 1, 1]
    density = 3 / abs(np.linalg.det(whole.cell))
    assert cut.atom_count == pytest.approx(density * body.volume(), rel=0.05)


@pytest.mark.parametrize("shape", ["cylinder", "sphere"])
def test_area_is_the_shadow_of_the_body(oblique, shape):
    cut = Specimen.from_atoms(oblique, shape=shape)
    rng = np.random.default_rng(5)
    for axis, tilt in [((0, 0, 1), (0.0, 0.0)), ((1, 2, 1), (0.0, 0.0)), ((1, 0, 0), (120.0, -150.0))]:
        frame = geometry.zone_frame(cut.reference_cell, axis, 0.0, tilt)
        # rays along the beam at random places: what share meets the body, found by points along each
        size = math.hypot(cut.body.radius, 0.5 * cut.body.height)
        places = rng.uniform(-size, size, (4000, 2))
        depths = np.linspace(-size, size, 161)
        points = places[:, None, :] @ frame[:2] + depths[None, :, None] * frame[2]
        hit = cut.body.contains(points.reshape(-1, 3)).reshape(len(places), -1).any(axis=1)
        shadow = hit.mean() * (2 * size) ** 2
        # statistics: 4000 rays give 2 %
        assert cut.view(axis, tilt=tilt).area == pytest.approx(shadow, rel=0.06)
    if shape == "sphere":
        assert cut.view((0, 0, 1)).area == pytest.approx(math.pi * cut.body.radius**2)


def test_shapes_that_cannot_be(aluminium):
    aluminium.info["repeat"] = [900, 900, 900]
    with pytest.raises(ValueError, match=r"Al4: a sphere inside 900 x 900 x 900 cells holds about 1\.5e\+09 atoms"):
        patterns.PatternSet.plan([aluminium], SETTINGS | {"shape": "sphere"}, "Al4")
    flat = Atoms("Al", cell=[[40.0, 0, 0], [0, 40.0, 0], [0, 30.0, 3.0]], pbc=True)
    with pytest.raises(ValueError, match="so oblique and flat"):
        Specimen.from_atoms(flat, shape="cylinder")
    corner = Atoms("Al", cell=[4.0, 4.0, 4.0], pbc=True)
    with pytest.raises(ValueError, match="no atom lies inside the sphere"):
        Specimen.from_atoms(corner, shape="sphere")
    with pytest.raises(ValueError, match="model article knows blocks only"):
        Specimen.from_atoms(bulk("Al", cubic=True) * 3, shape="sphere").view((0, 0, 1), "article")


def test_a_million_atoms_are_seen_along_an_axis_quickly():
    atoms = Atoms("Al", cell=np.diag([3e2, 2e2, 1e2]), pbc=True)
    atoms = Atoms(np.full(10**6, 13), cell=atoms.cell, positions=np.random.default_rng(0).random((10**6, 3)) * 1e2)
    specimen = Specimen.from_atoms(atoms)
    specimen.view((0, 0, 1))  # sorted once
    start = time.process_time()
    view = specimen.view((1, 2, 3))
    assert time.process_time() - start < 2.0  # measured 0.1 s; to catch loops over atoms
    assert len(view.positions) == 10**6


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


def test_a_method_without_kernels_says_that_it_computed_on_the_cpu(aluminium, monkeypatch):
    card = ModuleType("cupy")
    runtime = SimpleNamespace(getDeviceProperties=lambda number: {"name": b"a card"})
    card.cuda = SimpleNamespace(runtime=runtime, Device=lambda: SimpleNamespace(id=0))
    monkeypatch.setitem(sys.modules, "cupy", card)
    monkeypatch.setattr(provenance, "used_gpus", set())
    assert backend.select_backend("auto").name == "a card"
    data = patterns.simulate(aluminium, SETTINGS, device="gpu", method="spots")
    assert data.attrs["device"] == "cpu"
    assert not provenance.used_gpus


# --- structures and settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "exact"}, "model: 'exact'"),
        ({"scattering_factors": "peng1996"}, "scattering_factors: 'peng1996' is not one of c4322, lobato"),
        ({"zone_axes": []}, r"zone_axes: \[\] is not a list of at least one"),
        ({"zone_axes": [[0, 0, 0]]}, r"zone_axes: \[0, 0, 0\]"),
        ({"voltages": [-5.0]}, "voltages: -5.0"),
        ({"camera_lengths": [0.0]}, "camera_lengths: 0.0"),
        ({"detector_width": 0.0}, "detector_width"),
        ({"pixels": 0}, "pixels: 0"),
        ({"response_sigma": 0.1}, "response_sigma: 0.1"),
        ({"method": "fourier"}, "method: 'fourier' is not one of auto, laue"),
        ({"zone_axes": [0, 0, 1]}, "zone_axes: 0 is not a direction"),
        ({"voltages": 200.0}, "voltages: 200.0 is not a list of at least one"),
        ({"debye_waller": 0.8}, "debye_waller: 0.8 does not give B"),
        ({"tilt": 1.0}, "tilt: 1.0 is not two angles"),
        ({"tilt": [1.0]}, "tilt"),
        ({"tilt": [0.0, 900.0]}, "tilt.*at most 200 mrad"),
        ({"rotation": math.nan}, "rotation"),
        ({"convergence": -0.1}, "convergence: -0.1"),
        ({"shape": "cone"}, "shape: 'cone'"),
        ({"shape": "sphere", "model": "article"}, "shape: sphere has no meaning in the model article"),
        ({"average_snapshots": 1}, "average_snapshots"),
        ({"debye_waller": {"Zz": 1.0}}, "debye_waller: 'Zz'"),
        ({"debye_waller": {"Al": -1.0}}, "debye_waller: B = -1.0"),
        ({"debye_waller": {"Al": math.inf}}, "debye_waller: B = inf"),
        ({"debye_waller": {"Fe": 0.3}}, "debye_waller: Al4 holds no Fe; its elements are Al"),
        ({"method": "multislice", "model": "article"}, "model: 'article' cannot be used with the method multislice"),
        ({"voltage": [200.0]}, "voltage: unknown setting; did you mean 'voltages'"),
    ],
)
def test_bad_settings(aluminium, change, message):
    with pytest.raises(ValueError, match=message):
        patterns.simulate([aluminium], SETTINGS | change)


def test_what_is_not_given_has_the_default_of_the_configuration(aluminium):
    section = config.plain(config.Diffraction())
    assert section == defaults.complete({})
    assert set(config.Diffraction.model_fields) == set(defaults.DEFAULTS)
    plan = patterns.PatternSet.plan([aluminium], {"voltages": [80.0]})
    assert plan.shape == (16, 1, 3, 1) and plan.settings == section | {"voltages": [80.0]}
    assert defaults.TABLES == scattering.TABLES


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
        assert json.loads(data.attrs["settings"]) == defaults.complete(SETTINGS)
        assert json.loads(data.attrs["origin"]) == {"rule": "simulate"}
        assert data.attrs["method"] == "laue" and data.attrs["intensity_error_bound"] == 1e-5
        assert data.attrs["atoms_in_specimen"] == 4 * 8 * 6 * 4
        for name, variable in data.variables.items():
            assert "long_name" in variable.attrs, name
            assert name in ("zone_axis", "structure") or "units" in variable.attrs, name
        units = {name: data[name].attrs["units"] for name in ("voltage", "camera_length", "x", "y", "wavelength")}
        assert units == {"voltage": "kV", "camera_length": "m", "x": "mm", "y": "mm", "wavelength": "angstrom"}
    with netCDF4.Dataset(tmp_path / "al.nc") as file:
        assert file["intensity"].chunking() == [1, 1, 1, 1, 24, 24]
        assert file["intensity"].filters()["zlib"] and file["intensity"].filters()["complevel"] == 1
    with patterns.read_patterns(tmp_path / "al.nc") as file:
        image = file["intensity"][1, 0, 1, 1]
        assert not np.ma.isMaskedArray(image)
        assert (image > 0).all()


def test_simulate_takes_paths_atoms_and_lists(aluminium, tmp_path):
    iron = bulk("Fe", cubic=True)
    iron.info["repeat"] = [6, 6, 6]
    write_structures([aluminium], tmp_path / "al.cif")
    write_structures([iron], tmp_path / "fe.cif")
    one = patterns.simulate(aluminium, SETTINGS)
    again = patterns.simulate(str(tmp_path / "al.cif"), **SETTINGS)
    both = patterns.simulate([tmp_path / "al.cif", iron, tmp_path / "fe.cif"], SETTINGS, voltages=[200.0])
    assert again.intensity.values == pytest.approx(one.intensity.values, rel=1e-4, abs=1e-9)
    assert both.structure.values.tolist() == ["al.cif", "Fe2", "fe.cif"]
    assert both.sizes["voltage"] == 1 and both.sizes["snapshot"] == 3
    assert both.intensity.values[:, :, :, :1] == pytest.approx(one.intensity.values[:, 1:], rel=1e-4, abs=1e-9)
    assert both.intensity.values[..., 1, :, :] == pytest.approx(both.intensity.values[..., 2, :, :], rel=1e-4, abs=1e-9)
    assert (both.illuminated_area[:, 0] != both.illuminated_area[:, 1]).all()
    # two crystals in two files are no snapshots: their Debye-Waller factors are allowed
    hot = patterns.simulate([tmp_path / "al.cif", tmp_path / "fe.cif"], SETTINGS, debye_waller={"Al": 0.8, "Fe": 0.3})
    assert json.loads(hot.attrs["debye_waller_angstrom2"]) == {"Al": 0.8, "Fe": 0.3}


def test_repeat_of_the_caller_counts(aluminium, caplog):
    del aluminium.info["repeat"]
    with caplog.at_level(logging.WARNING):
        assert patterns.simulate(aluminium, SETTINGS, repeat=(3, 2, 1)).attrs["repeat"].tolist() == [3, 2, 1]
        assert not caplog.records
        assert patterns.simulate(aluminium, SETTINGS).attrs["atoms_in_specimen"] == 4
    assert "single cell; give repeat" in caplog.text
    assert "repeat" not in aluminium.info


def test_progress_counts_patterns(aluminium):
    seen: list[tuple[int, int]] = []
    for more in ({}, {"convergence": 0.3}):
        seen.clear()
        patterns.simulate(aluminium, SETTINGS | more, memory=1e-6, progress=lambda *numbers: seen.append(numbers))
        assert seen[0] == (0, 8) and seen[-1] == (8, 8)
        assert seen == sorted(seen)


def test_average_of_snapshots_is_the_mean_of_the_intensities(aluminium, tmp_path):
    snapshots = []
    for seed in range(3):
        atoms = aluminium.copy()
        atoms.rattle(0.1, seed=seed)
        atoms.info["repeat"] = [8, 6, 4 + seed]  # the illuminated areas differ too
        snapshots.append(atoms)
    each = patterns.simulate(snapshots, SETTINGS)
    mean = patterns.simulate(snapshots, SETTINGS, average_snapshots=True, memory=1e-6)
    assert mean.sizes["snapshot"] == 1 and mean.attrs["snapshots_averaged"] == 3
    assert mean.structure.values.tolist() == ["mean of 3: Al4"]
    expected = each.intensity.values.astype(float).mean(axis=3, keepdims=True)
    assert mean.intensity.values == pytest.approx(expected, rel=1e-6)
    assert mean.illuminated_area.values[:, 0] == pytest.approx(each.illuminated_area.values.mean(axis=1))
    patterns.write_patterns(snapshots, tmp_path / "mean.nc", SETTINGS | {"average_snapshots": True})
    with xarray.open_dataset(tmp_path / "mean.nc") as data:
        assert (data.intensity.values == patterns.simulate(snapshots, SETTINGS, average_snapshots=True).intensity).all()


def test_debye_waller_factors_are_refused_where_atoms_are_displaced(aluminium, tmp_path):
    hot = SETTINGS | {"debye_waller": {"Al": 0.8}}
    with pytest.raises(ValueError, match="one of 2 snapshots"):
        patterns.simulate([aluminium, aluminium], hot)
    write_structures([aluminium, aluminium], tmp_path / "two.cif")
    with pytest.raises(ValueError, match=r"two\.cif, snapshot 0 is one of 2 snapshots"):
        patterns.simulate(tmp_path / "two.cif", hot)
    write_structures([aluminium], tmp_path / "thermal.cif", metadata={"rule": "structure_thermal"})
    with pytest.raises(ValueError, match=r"thermal\.cif comes from molecular dynamics"):
        patterns.simulate_file(tmp_path / "thermal.cif", tmp_path / "thermal.nc", hot)
    moving = aluminium.copy()
    moving.set_momenta(np.ones((4, 3)))
    with pytest.raises(ValueError, match="molecular dynamics"):
        patterns.simulate(moving, hot)
    assert not (tmp_path / "thermal.nc").exists()
    # independent specimens with static defects are at rest
    write_structures([aluminium] * 2, tmp_path / "random.cif", metadata={"rule": "structure_block"})
    patterns.simulate_file(tmp_path / "random.cif", tmp_path / "random.nc", hot)


def test_debye_waller_factors_apply_to_every_specimen_of_a_clean_crystal(aluminium, tmp_path):
    images = specimens(aluminium, [8, 6, 4], 1, seed=1)
    write_structures(images, tmp_path / "al.cif", metadata={"rule": "clean_structure"})
    found = {}
    for name, factors in (("rest", {}), ("hot", {"Al": 0.8})):
        patterns.simulate_file(tmp_path / "al.cif", tmp_path / f"{name}.nc", SETTINGS | {"debye_waller": factors})
        with xarray.open_dataset(tmp_path / f"{name}.nc") as data:
            found[name] = data.intensity.sum(("zone_axis", "voltage", "camera_length", "y", "x")).values
    assert len(found["hot"]) == 2
    assert (found["hot"] < 0.999 * found["rest"]).all()


def test_a_study_gives_each_crystal_the_factors_of_its_elements(aluminium, tmp_path):
    write_structures([aluminium], tmp_path / "al.cif")
    given = SETTINGS | {"debye_waller": {"Al": 0.8, "Fe": 0.3}}
    patterns.simulate_file(tmp_path / "al.cif", tmp_path / "al.nc", given)
    with xarray.open_dataset(tmp_path / "al.nc") as data:
        assert json.loads(data.attrs["debye_waller_angstrom2"]) == {"Al": 0.8}
        expected = patterns.simulate(aluminium, SETTINGS, debye_waller={"Al": 0.8})
        assert data.intensity.values == pytest.approx(expected.intensity.values, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("shape", ["block", "sphere"])
def test_every_setting_under_each_method_by_name(aluminium, shape):
    small = {"zone_axes": [[1, 1, 2]], "voltages": [200.0], "camera_lengths": [1.2], "pixels": 16}
    small |= {"tilt": [4.0, -3.0], "rotation": 25.0, "convergence": 0.2, "shape": shape, "debye_waller": {"Al": 0.8}}
    aluminium.info["repeat"] = [4, 4, 3]
    images = {}
    for name in ("laue", "nufft", "direct"):
        data = patterns.simulate(aluminium, SETTINGS | small, method=name)
        assert data.attrs["method"] == name
        images[name] = data.intensity.values[0, 0, 0, 0].astype(float)
    outside = np.abs(np.arange(16) - 7.5) > 3
    outside = outside[:, None] | outside[None, :]
    for name, bound in (("laue", laue.ERROR_BOUND), ("nufft", planes.ERROR_BOUND)):
        largest = images["direct"][outside].max()
        assert np.abs(images[name] - images["direct"])[outside].max() < bound * largest


def test_direct_sum_warns_before_it_takes_minutes(aluminium, monkeypatch, caplog):
    monkeypatch.setattr(direct, "intensity", lambda *_: np.zeros((256, 256)))
    one = {"method": "direct", "zone_axes": [[0, 0, 1]], "voltages": [200.0], "camera_lengths": [0.8]}
    with caplog.at_level(logging.WARNING):
        patterns.simulate(aluminium, one, repeat=(4, 3, 2))
        assert not caplog.records
        patterns.simulate(aluminium, one, repeat=(40, 30, 20))
    assert "will take about" in caplog.text
    views = [Specimen.from_atoms(aluminium * n).view((0, 0, 1)) for n in (2, 5)]
    beam = geometry.Beam(1 / geometry.wavelength(200.0), geometry.Detector(0.8, 63.5, 256))
    assert direct.pattern_bytes(views[1], beam, 0.5) > direct.pattern_bytes(views[0], beam, 0.5) > 256**2 * 16


def test_spots_by_name_refuse_what_they_cannot_do(aluminium):
    aluminium.info["repeat"] = [8, 6, 1]
    with pytest.raises(ValueError, match="method: spots"):
        patterns.PatternSet.plan([aluminium], SETTINGS | {"method": "spots"})


def test_two_runs_give_the_same_bits(aluminium):
    more = SETTINGS | {"convergence": 0.2, "tilt": [3.0, -2.0], "rotation": 20.0}
    runs = [patterns.simulate(aluminium, more).intensity.values for _ in range(2)]
    assert (runs[0] == runs[1]).all()


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
    batches = [record.args[0] for record in caplog.records if "in a batch" in record.msg]
    assert batches == [8] + [1] * 8
    assert (whole.intensity.values == parts.intensity.values).all()  # to the bit
    # the beams of a view share planes: they stay together whatever the memory, and so does the result
    shared = [patterns.simulate([aluminium], SETTINGS, memory=m, method="nufft").intensity.values for m in (2.0, 1e-6)]
    assert (shared[0] == shared[1]).all()


def test_configuration_refuses_what_does_not_go_together():
    def fault(section, conditions=({"kind": "pristine", "host": "Al"},)):
        with pytest.raises(config.ConfigError) as error:
            config.validate({"diffraction": section, "conditions": list(conditions)}, "c.yaml")
        return str(error.value)

    assert fault({"model": "article", "shape": "sphere"}).startswith(
        "c.yaml: diffraction: shape: sphere has no meaning"
    )
    assert "diffraction.debye_waller: debye_waller: 'Alu'" in fault({"debye_waller": {"Alu": 0.8}})
    assert "diffraction.debye_waller: debye_waller: B = -1.0" in fault({"debye_waller": {"Al": -1}})
    assert "diffraction.tilt[1]" in fault({"tilt": [0, 300]})
    assert "diffraction.convergence" in fault({"convergence": 20})
    thermal = {"kind": "thermal", "host": "Al", "supercell": [2, 2, 2], "temperatures": [300]}
    message = fault({"debye_waller": {"Al": 0.8}}, [{"kind": "pristine", "host": "Al"}, thermal])
    assert message.startswith("c.yaml: diffraction.debye_waller: conditions[1] (thermal)")


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
    assert plan.method().name == "laue"
    rng = np.random.default_rng(0)
    cell = np.diag([120.0, 90.0, 5.0])
    plate = Atoms("Al3000", cell=cell, scaled_positions=rng.random((3000, 3)))
    plan = patterns.PatternSet.plan([plate], SETTINGS)
    assert plan.method().name == "nufft"
    aluminium.info["repeat"] = [22, 22, 22]
    assert patterns.PatternSet.plan([aluminium], SETTINGS | {"shape": "sphere"}).method().name == "nufft"
    assert plan.method().error_bound == planes.ERROR_BOUND


def test_starting_needs_no_heavy_package(root):
    code = "import sys, defraction.diffraction.patterns; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=root / "workflow/scripts", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert {"xarray", "pandas", "torch", "pymatgen", "matplotlib", "finufft"}.isdisjoint(run.stdout.split())
