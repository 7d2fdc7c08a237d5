"""The commands `defraction simulate` and `defraction reflections`, as they are typed."""

import csv
import os
import signal
import subprocess
import sys
import time

import h5py
import netCDF4
import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from PIL import Image

from defraction import cli, config
from defraction.diffraction import patterns
from defraction.diffraction import settings as defaults
from defraction.structures import write_structures

QUICK = ["--size", "16", "--repeat", "3", "3", "2", "--voltage", "200", "--camera-length", "0.8", "--device", "cpu"]
ONE = [*QUICK, "--zone-axis", "0", "0", "1"]


@pytest.fixture(scope="module")
def crystals(tmp_path_factory):
    """A folder with structure files of several kinds."""
    folder = tmp_path_factory.mktemp("crystals")
    aluminium = bulk("Al", "fcc", a=4.05, cubic=True)
    write(folder / "al.cif", aluminium)
    write(folder / "POSCAR", aluminium)
    write(folder / "nacl.cif", bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    frames = []
    for seed in range(3):
        frames.append(aluminium.copy())
        frames[-1].rattle(0.1, seed=seed)
    write(folder / "frames.xyz", frames)
    stated = aluminium.copy()
    stated.info["repeat"] = [1, 1, 1]
    write_structures([stated], folder / "single.cif", folder / "single.xyz")
    stated.info["repeat"] = [2, 3, 4]
    write_structures([stated], folder / "stated.cif")
    (folder / "text.cif").write_text("not a crystal\n")
    write(folder / "molecule.xyz", bulk("Al", "fcc", a=4.05, cubic=True), format="xyz")  # without a cell
    return folder


@pytest.fixture
def run(crystals, tmp_path, monkeypatch, capsys):
    """Run a command in a folder of its own beside the crystals; returns exit status, stdout, stderr."""
    for file in crystals.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["defraction", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return start


def attribute(path, name):
    with netCDF4.Dataset(path) as file:
        value = file.getncattr(name)
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_file_holds_what_the_library_gives(run, crystals):
    status, out, _ = run(
        "simulate", "al.cif", "-o", "al.nc", *QUICK, "--zone-axis", "-1", "1", "0", "--zone-axis", "0", "0", "1",
        "--voltage", "300", "--detector-width", "50", "--table", "peng", "--model", "article", "--rotation", "7",
        "--tilt", "-2", "1.5", "--response-sigma", "0.7", "--debye-waller", "Al", "0.8", "--method", "laue",
    )  # fmt: skip
    assert status == 0
    assert out.startswith("laue: 4 patterns in ")
    assert out.endswith(" s, al.nc\n")
    expected = patterns.simulate(
        crystals / "al.cif", repeat=(3, 3, 2), device="cpu", zone_axes=[[-1, 1, 0], [0, 0, 1]], voltages=[200.0, 300.0],
        camera_lengths=[0.8], pixels=16, detector_width=50.0, scattering_factors="peng", model="article", rotation=7.0,
        tilt=[-2.0, 1.5], response_sigma=0.7, debye_waller={"Al": 0.8}, method="laue",
    )  # fmt: skip
    with patterns.read_patterns("al.nc") as file:
        assert file["uvw"][...].tolist() == [[-1, 1, 0], [0, 0, 1]]
        assert file["voltage"][...].tolist() == [200.0, 300.0]
        assert (file["intensity"][...] == expected.intensity.values).all()
    assert attribute("al.nc", "settings") == expected.attrs["settings"]


def test_defaults_are_those_of_the_configuration(run, monkeypatch):
    seen = {}

    def write_patterns(structures, output, settings, device, memory, *rest, **named):
        seen.update(settings=settings, device=device, memory=memory, repeat=structures[0].info["repeat"])
        raise ValueError("enough")

    monkeypatch.setattr(patterns, "write_patterns", write_patterns)
    assert run("simulate", "al.cif", "-o", "al.nc")[0] == 2
    assert seen["settings"] == config.plain(config.Diffraction())
    assert (seen["device"], seen["memory"]) == (config.Runtime().device, config.Runtime().memory)
    assert tuple(seen["repeat"]) == config.Specimen().repeat


def test_help_states_the_defaults(run):
    status, text, _ = run("simulate", "--help")
    assert status == 0
    text = " ".join(text.split())

    def listed(values):
        return ", ".join(f"{value:g}" for value in values)

    given = defaults.DEFAULTS
    axes = given["zone_axes"]
    for default in (
        f"{len(axes)} axes, {' '.join(map(str, axes[0]))} to {' '.join(map(str, axes[-1]))}",
        listed(given["voltages"]),
        listed(given["camera_lengths"]),
        str(given["pixels"]),
        f"{given['detector_width']:g}",
        f"{given['response_sigma']:g}",
        f"{config.Runtime().memory:g}",
        *(given[key] for key in ("method", "model", "scattering_factors", "shape")),
        f"{given['rotation']:g}",
        f"{given['convergence']:g}",
        " ".join(f"{value:g}" for value in given["tilt"]),
    ):
        assert f"[default: {default}]" in text, default
    assert "else " + " ".join(map(str, config.Specimen().repeat)) in text
    assert all(f"[{unit}]" in text for unit in ("kV", "m", "mm", "GiB", "mrad", "px", "degree", "Å^2"))


def test_help_starts_without_the_heavy_packages():
    code = (
        "import sys; from typer.testing import CliRunner; from defraction.cli import app;"
        "assert CliRunner().invoke(app, ['simulate', '--help']).exit_code == 0;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        "print(sorted({'numpy', 'ase', 'numba', 'xarray', 'rich.progress', 'abtem'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("file", "options", "expected"),
    [
        ("stated.cif", [], [2, 3, 4]),
        ("single.cif", [], [1, 1, 1]),  # stated to be single: not the default
        ("single.xyz", [], [1, 1, 1]),
        ("al.cif", ["--repeat", "2", "1", "3"], [2, 1, 3]),
        ("stated.cif", ["--repeat", "1", "1", "2"], [1, 1, 2]),
        ("POSCAR", ["--repeat", "2", "1", "3"], [2, 1, 3]),
    ],
)
def test_repeat(run, file, options, expected):
    quick = [*ONE[:2], *ONE[6:]]
    status, _, message = run("simulate", file, "-o", "out.nc", *quick, *options)
    assert status == 0, message
    assert attribute("out.nc", "repeat") == expected


def test_large_cell_with_the_default_repeat_is_pointed_out(run, monkeypatch, caplog):
    write("large.cif", bulk("Al", "fcc", a=4.05, cubic=True).repeat((9, 8, 7)))

    def write_patterns(*given, **named):
        raise ValueError("enough")

    monkeypatch.setattr(patterns, "write_patterns", write_patterns)
    run("simulate", "large.cif", "-o", "out.nc")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "2016 atoms is repeated 40 x 30 x 20 times" in warnings[0]
    caplog.clear()
    run("simulate", "large.cif", "-o", "out.nc", "--repeat", "1", "1", "1")
    assert not caplog.records


def test_frames_and_files_are_snapshots(run):
    assert run("simulate", "frames.xyz", "nacl.cif", "-o", "all.nc", *ONE)[0] == 0
    with patterns.read_patterns("all.nc") as file:
        assert file["intensity"].shape == (1, 1, 1, 4, 16, 16)
        names = list(file["structure"][...])
        images = file["intensity"][0, 0, 0]
    assert names == [*(f"frames.xyz, snapshot {i}" for i in range(3)), "nacl.cif"]
    assert run("simulate", "frames.xyz", "-o", "mean.nc", *ONE, "--average")[0] == 0
    with patterns.read_patterns("mean.nc") as file:
        assert file["intensity"].shape == (1, 1, 1, 1, 16, 16)
        assert file["intensity"][0, 0, 0, 0] == pytest.approx(images[:3].mean(axis=0), rel=1e-5)


def test_other_formats_and_images(run, tmp_path):
    for name in ("al.hspy", "al.zspy"):
        for _ in range(2):  # the second time over the first
            status, out, message = run("simulate", "al.cif", "-o", name, *ONE, "--png", "png", "--tiff", "a/b/tiff")
            assert status == 0, message
            assert out.endswith(f", {name}\n")
    with h5py.File("al.hspy") as file:
        (experiment,) = file["Experiments"].values()
        data = experiment["data"][...]
    assert data.shape == (16, 16)
    assert (tmp_path / "al.zspy/Experiments/al.cif/data/.zarray").is_file()
    with Image.open("png/al_001_200kV_0.8m.png") as image:
        assert image.size == (16, 16)
    assert (tmp_path / "a/b/tiff/al_001_200kV_0.8m.tif").is_file()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("fault", ["error", "termination"])
def test_a_run_that_breaks_off_leaves_the_old_file_and_no_other(run, tmp_path, monkeypatch, fault):
    (tmp_path / "out.nc").write_text("precious")
    before = {path.name for path in tmp_path.iterdir()}

    def write_patterns(structures, output, *rest, **named):
        output.write_text("half")
        assert output.resolve().parent == tmp_path  # a rename within one file system
        if fault == "error":
            raise OSError("disk full")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(patterns, "write_patterns", write_patterns)
    handler = signal.getsignal(signal.SIGTERM)
    status, _, message = run("simulate", "al.cif", "-o", "out.nc", *ONE)
    assert status == 2 and "disk full" in message if fault == "error" else status == "defraction: terminated"
    assert {path.name for path in tmp_path.iterdir()} == before
    assert (tmp_path / "out.nc").read_text() == "precious"
    assert signal.getsignal(signal.SIGTERM) is handler


BAD = [
    (["al.cif", "-o", "out.txt"], "out.txt: give an output that ends in .nc or .zspy or .hspy"),
    (["al.cif", "-o", "nowhere/out.nc"], "there is no folder nowhere"),
    (["al.cif", "-o", "folder.nc"], "folder.nc: is a folder"),
    (["al.cif", "-o", "folder.zspy"], "folder.zspy: is a folder"),
    (["missing.cif", "-o", "out.nc"], "missing.cif: no such structure file"),
    (["text.cif", "-o", "out.nc"], "text.cif: is not a valid CIF file"),
    (["molecule.xyz", "-o", "out.nc", "--repeat", "1", "1", "1"], "molecule.xyz: the cell"),
    (["al.cif", "-o", "out.nc", "--table", "doyle"], "--table: input should be"),
    (["al.cif", "-o", "out.nc", "--method", "guess"], "--method: input should be"),
    (["al.cif", "-o", "out.nc", "--zone-axis", "0", "0", "0"], "--zone-axis: [0, 0, 0] is no direction"),
    (["al.cif", "-o", "out.nc", "--zone-axis", "0", "0", "x"], "--zone-axis: '0 0 x' is not three whole numbers"),
    (["al.cif", "-o", "out.nc", "--voltage", "5"], "--voltage: input should be greater"),
    (["al.cif", "-o", "out.nc", "--memory", "0"], "--memory: input should be greater"),
    (["al.cif", "-o", "out.nc", "--repeat", "0", "1", "1"], "--repeat: input should be greater"),
    (["al.cif", "-o", "out.nc", "--debye-waller", "Al", "x"], "--debye-waller: 'Al x' is not an element and a number"),
    (["al.cif", "-o", "out.nc", "--debye-waller", "Fe", "1"], "--debye-waller: al.cif holds no Fe"),
    (["frames.xyz", "-o", "out.nc", "--debye-waller", "Al", "1"], "--debye-waller: frames.xyz, snapshot 0 is one of 3"),
    (["al.cif", "-o", "out.nc", "--method", "multislice", "--model", "article"], "--model: 'article' cannot be used"),
    (["al.cif", "-o", "out.nc", "--shape", "sphere", "--model", "article"], "--shape: sphere has no meaning"),
    (["al.cif", "-o", "out.nc", "--png", "al.cif"], "al.cif: is a file"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_ends_with_one_line_before_any_work(run, tmp_path, monkeypatch, arguments, message):
    (tmp_path / "folder.nc").mkdir()
    (tmp_path / "folder.zspy").mkdir()
    before = {path.name for path in tmp_path.iterdir()}
    monkeypatch.setattr(patterns, "_compute", lambda *_: pytest.fail("work began"))
    status, out, text = run("simulate", *arguments)
    assert status == 2
    assert out == ""
    assert text.startswith("defraction: ") and text.count("\n") == 1
    assert message in text
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "options", [["--zone-axis", "0", "0"], ["--tilt", "1"], ["--voltage", "much"], ["--sise", "3"]]
)
def test_bad_options_end_with_the_usage(run, options):
    status, _, text = run("simulate", "al.cif", "-o", "out.nc", *options)
    assert status == 2
    assert text.splitlines()[-1].startswith("Error: ")
    assert options[0] in text


def test_gpu_that_is_not_there(run):
    try:
        import cupy

        if cupy.cuda.runtime.getDeviceCount():
            pytest.skip("there is a GPU")
    except (ImportError, RuntimeError):
        pass
    status, _, text = run("simulate", "al.cif", "-o", "out.nc", *ONE, "--device", "gpu")
    assert status == 2
    assert text.splitlines()[-1].startswith("defraction: --device: gpu was asked for")


# --- reflections


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_reflections_of_the_crystal(run):
    status, out, _ = run("reflections", "al.cif", "-o", "al.csv", "--g-max", "0.6")
    rows = table("al.csv")
    assert status == 0
    assert out == f"{len(rows)} reflections, al.csv\n"
    assert ",".join(rows[0]) == "h,k,l,g_per_angstrom,f_real_angstrom,f_imag_angstrom,f_squared_angstrom2"
    # 000, six {100}, twelve {110}, eight {111} and six {200} have g < 0.6 / Å for a = 4.05 Å
    assert len(rows) == 1 + 6 + 12 + 8 + 6 + 0 + 24 * (np.sqrt(5) / 4.05 < 0.6) + 24 * (np.sqrt(6) / 4.05 < 0.6)
    seen = [row for row in rows if float(row["f_squared_angstrom2"]) > 1e-6]
    assert all(int(r["h"]) % 2 == int(r["k"]) % 2 == int(r["l"]) % 2 for r in seen)


def test_reflections_along_a_zone_axis(run):
    status, _, _ = run("reflections", "al.cif", "-o", "al.csv", "--zone-axis", "-1", "1", "0", "--g-max", "0.6")
    assert status == 0
    rows = table("al.csv")
    assert ",".join(list(rows[0])[7:]) == "excitation_error_per_angstrom,x_px,y_px,radius_mm"
    # the middle ones of the default voltages and camera lengths: 200 kV, 0.8 m; tan(2 theta) of 002
    found = {(r["h"], r["k"], r["l"]): r for r in rows}
    wavelength = 0.0250793  # Å, 200 kV
    expected = 800.0 * np.tan(2.0 * np.arcsin(0.5 * wavelength * 2.0 / 4.05))
    assert float(found["0", "0", "2"]["radius_mm"]) == pytest.approx(expected, rel=2e-4)
    assert float(found["0", "0", "2"]["excitation_error_per_angstrom"]) == pytest.approx(
        -0.5 * wavelength * (2.0 / 4.05) ** 2, rel=1e-3
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["al.cif", "-o", "al.nc"], "al.nc: give an output that ends in .csv"),
        (["al.cif", "-o", "al.csv", "--voltage", "100"], "--voltage: places spots on a detector"),
        (["al.cif", "-o", "al.csv", "--g-max", "-1"], "--g-max: -1.0 1/Å is not positive"),
        (["al.cif", "-o", "al.csv", "--zone-axis", "0", "0", "0"], "--zone-axis: [0, 0, 0] is no direction"),
        (["text.cif", "-o", "al.csv"], "text.cif: is not a valid CIF file"),
    ],
)
def test_bad_requests_for_reflections(run, tmp_path, arguments, message):
    status, out, text = run("reflections", *arguments)
    assert (status, out) == (2, "")
    assert text.startswith("defraction: ") and text.count("\n") == 1
    assert message in text
    assert not (tmp_path / "al.csv").exists()
