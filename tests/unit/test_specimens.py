"""Specimens of clean crystals: the drawn blocks are the same crystal in the same orientation, cut otherwise."""

import numpy as np
import pytest
from ase import Atoms

from defraction.diffraction.geometry import zone_frame
from defraction.diffraction.patterns import simulate
from defraction.materials import crystal, read_table
from defraction.orientation import check_standard_orientation
from defraction.specimens import CELLS, OBLIQUE, draw_block, specimens
from defraction.structures import read_structures, write_structures


@pytest.fixture(scope="module")
def nacl(root) -> Atoms:
    return crystal(read_table(root / "resources/materials.csv")["NaCl-225"])


def drawn(atoms, count):
    return specimens(atoms, (4, 3, 2), count, seed=7)[1:]


def test_the_first_is_the_block_and_more_leave_the_others_as_they_were(nacl):
    three, five = specimens(nacl, (4, 3, 2), 3, seed=7), specimens(nacl, (4, 3, 2), 5, seed=7)
    assert three[0].info["repeat"] == [4, 3, 2] and np.array_equal(three[0].positions, nacl.positions)
    for before, after in zip(three, five, strict=False):
        assert np.array_equal(before.cell, after.cell) and before.info["repeat"] == after.info["repeat"]
    assert len(five) == 6 and len(specimens(nacl, (4, 3, 2), 0, seed=7)) == 1
    other = specimens(nacl, (4, 3, 2), 5, seed=8)
    assert [a.info["repeat"] for a in other[1:]] != [a.info["repeat"] for a in five[1:]]


def test_a_drawn_block_is_the_same_crystal_in_the_same_orientation(nacl):
    """Every atom of the block lies on a site of the infinite crystal, turned as `reference_cell` says."""
    lattice = np.asarray(nacl.cell)
    outlines = set()
    for block in drawn(nacl, 12):
        check_standard_orientation(block)
        assert len(block) in (len(nacl), 2 * len(nacl))
        assert block.cell.volume / len(block) == pytest.approx(nacl.cell.volume / len(nacl), rel=1e-9)
        reference = np.asarray(block.info["reference_cell"])
        np.testing.assert_allclose(reference @ reference.T, lattice @ lattice.T, atol=1e-9)  # the same cell, turned
        vectors = np.asarray(block.cell) @ np.linalg.inv(reference)
        np.testing.assert_allclose(vectors, np.rint(vectors), atol=1e-9)  # lattice vectors [uvw]
        assert np.abs(np.rint(vectors)).max() == 1
        for symbol in ("Na", "Cl"):
            ideal = nacl.get_scaled_positions()[np.array(nacl.get_chemical_symbols()) == symbol]
            found = (block.positions @ np.linalg.inv(reference))[np.array(block.get_chemical_symbols()) == symbol]
            apart = found[:, None] - ideal[None]
            assert np.abs(apart - np.rint(apart)).max(axis=2).min(axis=1).max() < 1e-9
        unit = np.asarray(block.cell) / np.linalg.norm(block.cell, axis=1)[:, None]
        assert np.abs((unit @ unit.T)[np.triu_indices(3, 1)]).max() <= OBLIQUE + 1e-12
        edges = np.array(block.info["repeat"]) * block.cell.lengths() / np.cbrt(nacl.cell.volume)
        # a whole number of cells, so up to half a cell's edge (at most sqrt(3)) beside the drawn length
        assert (edges > CELLS[0] - 1).all() and (edges < CELLS[1] + 1).all()
        outlines.add((tuple(np.rint(vectors).ravel()), tuple(block.info["repeat"])))
    assert len(outlines) == 12


def test_patterns_of_all_specimens_have_the_same_spots(nacl, tmp_path):
    """Strong reflections do not move; only the shape of a spot belongs to the outline."""
    write_structures(specimens(nacl, (12, 12, 12), 2, seed=2), tmp_path / "nacl.cif")
    images = read_structures(tmp_path / "nacl.cif")
    data = simulate(images, zone_axes=[(0, 0, 1), (1, 2, 3)], voltages=[200], camera_lengths=[0.8], pixels=64)
    y, x = np.mgrid[:64, :64] - 31.5
    for block, *others in data.intensity.values[:, 0, 0]:
        outside = np.where(np.hypot(x, y) > 4, block, 0)
        bright = [spot for spot in peaks(outside) if outside[spot] > 0.1 * outside.max()]
        assert len(bright) >= 4
        for image in others:
            for spot in bright:
                window = image[spot[0] - 2 : spot[0] + 3, spot[1] - 2 : spot[1] + 3]
                assert np.abs(np.array(np.unravel_index(window.argmax(), window.shape)) - 2).max() <= 1


def peaks(image: np.ndarray) -> list[tuple[int, int]]:
    """Pixels that are brighter than the eight around them, three or more from the rim."""
    around = np.lib.stride_tricks.sliding_window_view(image, (3, 3)).max(axis=(2, 3))
    places = np.argwhere((image[1:-1, 1:-1] == around) & (around > 0)) + 1
    return [(int(a), int(b)) for a, b in places if min(a, b) >= 3 and max(a, b) < image.shape[0] - 3]


def test_zone_frames_follow_the_reference_cell(nacl):
    for block in drawn(nacl, 4):
        frame = zone_frame(np.asarray(block.info["reference_cell"]), (1, 1, 2))
        plain = zone_frame(np.asarray(nacl.cell), (1, 1, 2))
        np.testing.assert_allclose(
            np.asarray(block.info["reference_cell"]) @ frame.T, np.asarray(nacl.cell) @ plain.T, atol=1e-9
        )


def test_drawn_blocks_follow_the_generator(nacl):
    first, second = (draw_block(nacl, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first.positions, second.positions) and first.info["repeat"] == second.info["repeat"]
