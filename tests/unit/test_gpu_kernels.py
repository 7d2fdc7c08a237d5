"""The GPU engine: its kernels compiled by NVRTC, run on the CPU by an emulator, and run on a GPU where there is one."""

import re
import tracemalloc
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from cuda_emulator import Emulator

from defraction import provenance
from defraction.diffraction import direct, geometry, gpu, gpu_laue, gpu_planes, kernels, laue, planes
from defraction.diffraction.backend import Backend, select_backend
from defraction.diffraction.geometry import Beam, Detector
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import Specimen

FACTORS = Factors()
SIGMA = 0.5
PLAIN = Backend("cpu", np, "emulated GPU")
# GPU and CPU share sampling and tables and differ by roundings of single precision, a tenth of either's error bound.
SAME = 1e-6
NUFFT = 5e-6  # eight points of spreading in single precision leave 1e-6


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    return Emulator(kernels.SOURCE, kernels.KERNELS, tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module")
def device() -> Backend:
    backend = select_backend("auto")
    if backend.device != "gpu":
        pytest.skip("no GPU on this machine: the kernels are compiled and emulated only")
    return backend


def random_crystal(repeat, atoms=7, seed=3) -> Atoms:
    """A triclinic cell of three species, so that no mirror, exchange of axes or of species would go unseen."""
    points = np.random.default_rng(seed).random((atoms, 3))
    cell = [[3.9, 0, 0], [0.7, 4.4, 0], [-0.5, 0.6, 5.1]]
    result = Atoms([("Al", "Fe", "Au")[i % 3] for i in range(atoms)], cell=cell, scaled_positions=points, pbc=True)
    result.info["repeat"] = list(repeat)
    return result


def aluminium(repeat) -> Atoms:
    atoms = bulk("Al", "fcc", 4.05, cubic=True)
    atoms.info["repeat"] = list(repeat)
    return atoms


def plate() -> Atoms:
    """120 atoms of three species in a plate of 33 x 24 Å, repeated along its thickness of 5 Å."""
    atoms = random_crystal((1, 1, 5), 120)
    atoms.set_cell([[33.9, 0, 0], [4.7, 24.4, 0], [-0.5, 0.6, 5.1]], scale_atoms=True)
    atoms.info["reference_cell"] = np.diag([4.05] * 3).tolist()
    return atoms


def electrons(voltage, camera_length, width, pixels, flat=False, direction=(0.0, 0.0)) -> Beam:
    return Beam(1.0 / geometry.wavelength(voltage), Detector(camera_length, width, pixels), flat, direction)


def condition(model="physical", pixels=24):
    """Views and beams of eight patterns that differ in everything a pattern can differ in."""
    flat = model == "article"
    specimens = [Specimen.from_atoms(random_crystal((7, 5, 4))), Specimen.from_atoms(aluminium((9, 7, 5)))]
    views = [s.view(axis, model) for s in specimens for axis in ((0, 0, 1), (1, 1, 2))]
    beams = [
        electrons(200.0, 0.8, 24.0, pixels, flat),
        electrons(300.0, 0.5, 40.0, pixels, flat, (0.004, -0.002)),
    ]
    return [v for v in views for _ in beams], beams * len(views)


def outside(pattern: np.ndarray) -> np.ndarray:
    """Return where the pattern is outside the direct beam."""
    offset = np.abs(np.arange(len(pattern)) - 0.5 * (len(pattern) - 1))
    return np.maximum(offset[:, None], offset[None, :]) > 0.2 * len(pattern)


def assert_agree(found, expected, bound, direct_beam=2e-6):
    """To ``bound`` of the largest intensity outside the direct beam, and the direct beam to its own share of itself."""
    for image, truth in zip(found, np.asarray(expected, dtype=float), strict=True):
        largest = truth[outside(truth)].max()
        assert largest > 0
        assert np.abs(image - truth)[outside(truth)].max() < bound * largest
        assert np.abs(image - truth).max() < bound * largest + direct_beam * truth.max()


# --- the compiler of CUDA


def compile_kernels(architecture: str) -> tuple[str, bytes]:
    """Compile with NVRTC; return its log, and the machine code for a real architecture; skip where it is missing."""
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC comes with PyTorch for CUDA; it is not installed")
    try:
        _, program = nvrtc.nvrtcCreateProgram(kernels.SOURCE.encode(), b"kernels.cu", 0, [], [])
    except RuntimeError as missing:  # the bindings are there, the library is not
        pytest.skip(f"NVRTC cannot be loaded: {missing}")
    options = [*kernels.OPTIONS, f"--gpu-architecture={architecture}", "--ptxas-options=-v"]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = b" " * max(size, 2)  # NVRTC writes into it, and Python shares all bytes objects of length 1
    nvrtc.nvrtcGetProgramLog(program, log)
    assert int(result) == 0, log.decode()
    assert b"warning" not in log, log.decode()
    code = b""
    if architecture.startswith("sm_"):
        _, size = nvrtc.nvrtcGetCUBINSize(program)
        code = b" " * size
        nvrtc.nvrtcGetCUBIN(program, code)
    return log.decode(), code


@pytest.mark.parametrize("architecture", ["compute_75", "compute_80", "compute_90"])
def test_kernels_compile(architecture):
    compile_kernels(architecture)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_kernels_use_registers_only(architecture):
    # An array in registers that is not indexed by constants, or too many live values, would go to slow local memory.
    log, code = compile_kernels(architecture)
    assert code.startswith(b"\x7fELF")
    used = dict(re.findall(r"Compiling entry function '(\w+)'.*?Used (\d+) registers", log, re.DOTALL))
    assert set(used) == set(kernels.KERNELS)
    assert re.findall(r"(\d+) bytes stack frame", log) == ["0"] * len(used)
    # the blocks that gpu.py starts have to fit a multiprocessor's 65,536 registers at least twice
    assert all(2 * kernels.MOST_THREADS * int(number) <= 65536 for number in used.values()), used


# --- the kernels' arithmetic, emulated


@pytest.mark.parametrize("model", ["physical", "article"])
def test_laue_equals_the_cpu(emulator, model):
    views, beams = condition(model)
    found = gpu.laue_intensities(views, beams, SIGMA, FACTORS, PLAIN, 1.0, launch=emulator)
    assert_agree(found, laue.intensities(views, beams, SIGMA, FACTORS), SAME)


def test_laue_equals_the_sum_over_all_atoms(emulator):
    view, beam = Specimen.from_atoms(random_crystal((7, 5, 4))).view((1, 1, 2)), electrons(300.0, 0.5, 40.0, 20)
    per_pixel = tuple(axis.per_pixel + 2 for axis in laue.plan(view, beam, SIGMA))
    found = gpu.laue_intensities([view], [beam], SIGMA, FACTORS, PLAIN, 1.0, launch=emulator)
    assert_agree(found, [direct.intensity(view, beam, SIGMA, FACTORS, per_pixel)], laue.ERROR_BOUND)


def test_laue_of_a_large_block(emulator):
    # 96,000 atoms: the phase across the block is hundreds of turns
    view, beam = Specimen.from_atoms(aluminium((40, 30, 20))).view((1, 1, 2)), electrons(200.0, 0.5, 63.5, 48)
    found = gpu.laue_intensities([view], [beam], SIGMA, FACTORS, PLAIN, 1.0, launch=emulator)
    assert_agree(found, laue.intensities([view], [beam], SIGMA, FACTORS), SAME)


def test_laue_of_many_atoms_in_a_cell(emulator):
    # more atoms of a species than are loaded at a time; a cell so wide that F_cell is as fine as the pattern along x
    wide = random_crystal((1, 2, 3), 300)
    wide.set_cell(wide.cell[:] * [[12.0], [1.0], [1.0]], scale_atoms=True)
    view, beam = Specimen.from_atoms(wide).view((0, 0, 1)), electrons(200.0, 0.8, 30.0, 16)
    axis = laue.plan(view, beam, SIGMA)[0]
    assert axis.ratio == 1 and len(view.positions) > 2 * 128
    found = gpu.laue_intensities([view], [beam], SIGMA, FACTORS, PLAIN, 1.0, launch=emulator)
    assert_agree(found, laue.intensities([view], [beam], SIGMA, FACTORS), SAME)


def test_result_does_not_depend_on_launches_and_blocks(emulator, monkeypatch):
    views, beams = condition()
    once = gpu.laue_intensities(views, beams, SIGMA, FACTORS, PLAIN, 1.0, launch=emulator)
    again = gpu.laue_intensities(views, beams, SIGMA, FACTORS, PLAIN, 1.0, launch=emulator)
    assert once.tobytes() == again.tobytes()
    before = emulator.launches["laue_cell"]
    few = gpu.laue_intensities(views, beams, SIGMA, FACTORS, PLAIN, 1e-4, launch=emulator)
    assert emulator.launches["laue_cell"] > before + 1
    assert once.tobytes() == few.tobytes()
    monkeypatch.setattr(gpu_laue, "TILE", 7)  # as for more than 256 pixels: several blocks side by side
    assert once.tobytes() == gpu.laue_intensities(views, beams, SIGMA, FACTORS, PLAIN, 1.0, launch=emulator).tobytes()


@pytest.mark.parametrize(
    ("model", "axis"),
    [("physical", (0, 0, 1)), ("physical", (2, 3, 3)), ("physical", (0, 1, 0)), ("article", (2, 3, 3))],
)
def test_nufft_equals_the_sum_of_laue(emulator, model, axis):
    # the beam along, oblique to and across the plate, and tilted; laue sums its atoms one by one
    view, flat = Specimen.from_atoms(plate()).view(axis, model), model == "article"
    beams = [electrons(300.0, 0.5, 40.0, 16, flat), electrons(200.0, 0.8, 30.0, 16, flat, (0.01, -0.02))]
    found = gpu.nufft_intensities([view] * 2, beams, SIGMA, FACTORS, PLAIN, 1.0, launch=emulator)
    assert_agree(found, laue.intensities([view] * 2, beams, SIGMA, FACTORS), NUFFT)


@pytest.mark.parametrize(
    ("model", "cell", "atoms", "repeat"),
    [
        ("physical", [[33.9, 0, 0], [4.7, 24.4, 0], [-0.5, 0.6, 5.1]], 200, (1, 1, 9)),
        ("article", [[33.9, 0, 0], [4.7, 24.4, 0], [-0.5, 0.6, 5.1]], 200, (1, 1, 9)),
        ("physical", [[20.0, 0, 0], [3.0, 24.4, 0], [-0.5, 5.0, 30.0]], 300, (1, 1, 2)),
    ],
)
def test_nufft_equals_the_cpu(emulator, model, cell, atoms, repeat):
    # neither method is exact: both errors together stay within the bound that is stated for the GPU
    crystal = random_crystal(repeat, atoms)
    crystal.set_cell(cell, scale_atoms=True)
    crystal.info["reference_cell"] = np.diag([4.05] * 3).tolist()
    flat = model == "article"
    views = [Specimen.from_atoms(crystal).view(axis, model) for axis in ((0, 0, 1), (1, 1, 2)) for _ in range(2)]
    beams = [electrons(200.0, 0.8, 63.5, 128, flat), electrons(300.0, 0.5, 63.5, 128, flat, (0.004, -0.002))] * 2
    found = gpu.nufft_intensities(views, beams, SIGMA, FACTORS, PLAIN, 1.0, launch=emulator)
    assert_agree(found, planes.intensities(views, beams, SIGMA, FACTORS), 1e-5, direct_beam=5e-6)


def test_oblique_plate_is_sheared():
    outline = gpu_planes.Outline.of(Specimen.from_atoms(plate()).view((2, 3, 3)))
    sheared = gpu_planes.Grid.plan(outline, electrons(300.0, 0.5, 40.0, 16), SIGMA)
    assert np.linalg.norm(sheared.shear) > 0.5
    flat = gpu_planes.Grid.plan(outline, electrons(300.0, 0.5, 40.0, 16, flat=True), SIGMA)
    assert not flat.shear.any() and flat.bandwidth == 0.0


def test_nufft_in_parts(emulator, monkeypatch):
    # a thick block needs more planes than come at a time where memory is short; the bits stay the same
    block = random_crystal((1, 1, 1), 60)
    block.set_cell(np.diag([12.0, 11.0, 90.0]), scale_atoms=True)
    view, beam = Specimen.from_atoms(block).view((0, 0, 1)), electrons(300.0, 0.5, 40.0, 12)
    once = gpu.nufft_intensities([view], [beam], SIGMA, FACTORS, PLAIN, 1.0, launch=emulator)
    assert_agree(once, laue.intensities([view], [beam], SIGMA, FACTORS), NUFFT)
    before = emulator.launches["nufft_combine"]
    parts = gpu.nufft_intensities([view], [beam], SIGMA, FACTORS, PLAIN, 1e-3, launch=emulator)
    assert emulator.launches["nufft_combine"] >= before + 2 * len(view.elements)
    assert once.tobytes() == parts.tobytes()


@pytest.mark.parametrize("images", [1, 10**9])
def test_a_pattern_that_does_not_fit_is_computed_again_in_an_empty_pool(emulator, monkeypatch, images):
    monkeypatch.setattr(gpu_planes, "IMAGES", images)  # the images of all patterns are copied at once, or each alone
    view = Specimen.from_atoms(plate()).view((0, 0, 1))
    views, beams = [view] * 4, [electrons(voltage, 0.5, 40.0, 12) for voltage in (300.0, 200.0, 120.0, 80.0)]
    expected = gpu.nufft_intensities(views, beams, SIGMA, FACTORS, PLAIN, 1.0, launch=emulator)
    pattern, calls, refused = gpu_planes._pattern, [], {3}

    def crowded(*arguments):
        calls.append(arguments)
        if len(calls) in refused:
            raise PLAIN.out_of_memory
        return pattern(*arguments)

    monkeypatch.setattr(gpu_planes, "_pattern", crowded)
    found = gpu.nufft_intensities(views, beams, SIGMA, FACTORS, PLAIN, 1.0, launch=emulator)
    assert found.tobytes() == expected.tobytes() and len(calls) == 5
    assert calls[1][1] is calls[0][1] and calls[3][1] is not calls[2][1]  # atoms are put there anew
    refused |= {8, 9}
    with pytest.raises(MemoryError):
        gpu.nufft_intensities(views, beams, SIGMA, FACTORS, PLAIN, 1.0, launch=emulator)
    assert len(calls) == 9


@pytest.mark.parametrize("method", [gpu.laue_intensities, gpu.nufft_intensities])
def test_barriers_are_where_they_must_be(emulator, method):
    # without one of them, what a thread reads would depend on which thread of its block came first
    view, beam = Specimen.from_atoms(plate()).view((0, 0, 1)), electrons(300.0, 0.5, 40.0, 12)
    forwards = method([view], [beam], SIGMA, FACTORS, PLAIN, 1.0, launch=emulator)
    emulator.order_threads(backwards=True)
    try:
        backwards = method([view], [beam], SIGMA, FACTORS, PLAIN, 1.0, launch=emulator)
    finally:
        emulator.order_threads(backwards=False)
    assert forwards.tobytes() == backwards.tobytes()


@pytest.mark.parametrize(("method", "mebibytes"), [(gpu.laue_intensities, 1), (gpu.nufft_intensities, 14)])
def test_arrays_stay_within_memory(emulator, method, mebibytes):
    # NumPy stands for the device here, so that every array of the device is one of its arrays
    views = [Specimen.from_atoms(plate()).view((0, 0, 1))] * 5
    beams = [electrons(300.0, 0.5, 40.0, 40)] * 5
    method(views[:1], beams[:1], SIGMA, FACTORS, PLAIN, 1.0, launch=emulator)  # tables and imports are not counted
    memory = mebibytes * 2**20
    tracemalloc.start()
    try:
        result = method(views, beams, SIGMA, FACTORS, PLAIN, memory / 2**30, launch=emulator)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.5 * memory < peak < memory + result.nbytes


@pytest.mark.parametrize("model", ["physical", "article"])
def test_patterns_are_sampled_as_on_the_cpu(model):
    views, beams = condition(model, pixels=256)
    axes = gpu_laue.sample(views, np.arange(len(views)), beams, np.arange(len(beams)), SIGMA)
    plans = [laue.plan(view, beam, SIGMA) for view, beam in zip(views, beams, strict=True)]
    for field, found in axes.items():
        assert found.tolist() == [[getattr(axis, field) for axis in plan] for plan in plans]


def test_narrow_blocks_where_shared_memory_is_short(monkeypatch):
    views, beams = condition()
    wide = gpu_laue.LauePlan.build(views, beams, SIGMA, FACTORS)
    limit = wide.shared - 1
    monkeypatch.setattr(gpu_laue, "SHARED_MEMORY", limit)
    narrow = gpu_laue.LauePlan.build(views, beams, SIGMA, FACTORS)
    assert narrow.width < wide.width
    assert narrow.shared <= limit
    monkeypatch.setattr(gpu_laue, "SHARED_MEMORY", 100)
    with pytest.raises(ValueError, match="samples per pixel are more than a block of the GPU holds"):
        gpu_laue.LauePlan.build(views, beams, SIGMA, FACTORS)


STRUCTS = {
    "Pattern": gpu_laue.PATTERN,
    "Species": gpu_laue.SPECIES,
    "Grid": gpu_planes.GRID,
    "Bins": gpu_planes.BINS,
}


@pytest.mark.parametrize("name", STRUCTS)
def test_python_and_cuda_agree_on_structs(name):
    # every member of the C++ struct, with its type and length, is the field of the NumPy type at the same place
    body = re.search(rf"struct {name} \{{(.*?)\}};", kernels.SOURCE, re.DOTALL).group(1)
    members = []
    for kind, names in re.findall(r"(double|long long|int) ([^;]+);", body):
        for member in names.split(","):
            word, length = re.fullmatch(r"(\w+)(?:\[(\d+)\])?", member.strip()).groups()
            members.append((word, {"double": "f8", "long long": "i8", "int": "i4"}[kind], int(length or 1)))
    fields = [(n, t.base.str[1:], int(np.prod(t.shape))) for n, (t, _) in STRUCTS[name].fields.items()]
    assert members == fields


def test_a_backend_without_a_gpu_is_refused():
    views, beams = condition()
    for method in (gpu.laue_intensities, gpu.nufft_intensities):
        with pytest.raises(ValueError, match="need a GPU"):
            method(views, beams, SIGMA, FACTORS, PLAIN, 1.0)


class Card:
    """Stands for CuPy: a pool that gives ``free`` bytes after its kept blocks are given back."""

    class OutOfMemoryError(MemoryError):
        pass

    def __init__(self, free: int):
        self.cuda = self.memory = self.fft = self.config = self
        self.free, self.kept, self.limit, self.allocate = free, free, None, None

    def Device(self):
        return SimpleNamespace(id=0)

    def MemoryPool(self):
        return self

    def get_plan_cache(self):
        return SimpleNamespace(clear=lambda: None)

    def set_limit(self, size):
        self.limit = size

    def free_all_blocks(self):
        self.kept = 0

    def malloc(self, size):
        if size > min(self.free, self.limit) - self.kept:
            raise self.OutOfMemoryError(f"{size} bytes")
        return size

    @contextmanager
    def using_allocator(self, allocate):
        self.allocate = allocate
        yield


def test_too_little_memory_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(provenance, "used_gpus", set())
    card = Card(free=3 * 2**20)
    backend = Backend("gpu", card, "a card")
    with backend.limited_to(2**-9):
        assert card.limit == 2 * 2**20 and card.kept == 0  # no block of an earlier call is there to be split
        card.kept = 3 * 2**20
        assert card.allocate(2**20) == 2**20  # given once the pool's kept blocks are free
    assert provenance.used_gpus == {"a card"}
    message = r"memory: 0\.00195312 GiB are not enough .* on a card"
    with pytest.raises(MemoryError, match=message), backend.limited_to(2**-9):
        card.allocate(3 * 2**20)


# --- on a GPU


@pytest.mark.parametrize("model", ["physical", "article"])
def test_laue_on_the_device(device, model, caplog):
    views, beams = condition(model, pixels=128)
    found = gpu.laue_intensities(views, beams, SIGMA, FACTORS, device, 1.0)
    assert_agree(found, laue.intensities(views, beams, SIGMA, FACTORS), SAME)
    with caplog.at_level("INFO", "defraction"):
        again = gpu.laue_intensities(views, beams, SIGMA, FACTORS, device, 1e-3)
    assert int(re.search(r"patterns in (\d+) launches", caplog.text).group(1)) > 1
    assert found.tobytes() == again.tobytes()
    left = gpu.laue_intensities(views, beams, SIGMA, FACTORS, device, 1.0, on_device=True)
    assert isinstance(left, device.xp.ndarray)
    assert found.tobytes() == device.to_host(left).tobytes()


@pytest.mark.parametrize("axis", [(0, 0, 1), (2, 3, 3)])
def test_nufft_on_the_device(device, axis):
    view = Specimen.from_atoms(plate()).view(axis)
    views, beams = [view] * 2, [electrons(300.0, 0.5, 40.0, 32), electrons(200.0, 0.8, 30.0, 32, False, (0.01, -0.02))]
    found = gpu.nufft_intensities(views, beams, SIGMA, FACTORS, device, 1.0)
    assert_agree(found, laue.intensities(views, beams, SIGMA, FACTORS), NUFFT)
    assert_agree(found, planes.intensities(views, beams, SIGMA, FACTORS), planes.ERROR_BOUND)
    assert found.tobytes() == gpu.nufft_intensities(views, beams, SIGMA, FACTORS, device, 1.0).tobytes()


def test_memory_on_the_device(device):
    views, beams = condition(pixels=256)
    free = device.xp.cuda.runtime.memGetInfo()[0]
    gpu.laue_intensities(views, beams, SIGMA, FACTORS, device, 0.02)
    assert free - device.xp.cuda.runtime.memGetInfo()[0] < 0.02 * 2**30 + 64 * 2**20  # CUDA's own for the module
    with pytest.raises(MemoryError, match="memory: "):
        gpu.laue_intensities(views, beams, SIGMA, FACTORS, device, 1e-4)
