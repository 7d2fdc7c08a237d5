"""The label table follows from crystallography: classes, merges, invariances and the limit it sets."""

import csv
import itertools

import numpy as np
import pytest

from defraction.learning import labels

MERGED = [
    # zone axis: groups that look alike on it (general-position extinctions)
    ((1, 1, 1), (213, 221, 225, 227, 229)),
    ((1, 1, 3), (213, 221, 225, 227, 229)),
    ((1, 3, 3), (213, 221, 225, 227, 229)),
    ((0, 0, 1), (221, 225, 227, 229)),
    ((0, 1, 1), (221, 229)),
    ((1, 2, 3), (213, 221, 229)),
    ((0, 1, 2), (221, 225)),
    ((1, 1, 2), (213, 221)),
    ((1, 1, 4), (213, 221)),
    ((2, 3, 3), (213, 221)),
    ((1, 2, 2), (213, 221, 225)),
    ((1, 2, 4), (213, 221, 225)),
    ((0, 2, 3), (221, 225)),
]


@pytest.fixture(scope="module")
def table():
    return labels.label_table()


def test_axes_are_the_coprime_ones_up_to_233():
    found = [
        axis
        for axis in itertools.product(range(5), repeat=3)
        if list(axis) == sorted(axis) and np.gcd.reduce(axis) == 1 and 0 < np.dot(axis, axis) <= 22
    ]
    assert sorted(found) == sorted(labels.ZONE_AXES)


def test_default_table_has_48_classes_for_80_pairs(table):
    assert len(table) == 80
    assert labels.number_of_labels(table) == 48


@pytest.mark.parametrize("radius", [6, 10])
def test_classes_do_not_depend_on_the_radius(table, radius):
    other = labels.label_table(radius=radius)
    assert [row.label for row in other] == [row.label for row in table]


def test_merged_classes_are_the_known_ones_and_no_others(table):
    label = labels.label_of(table)
    expected = {frozenset((group, axis) for group in groups) for axis, groups in MERGED}
    expected |= {
        frozenset({(221, (0, 1, 4)), (225, (0, 1, 4)), (229, (2, 2, 3))}),
        frozenset({(213, (2, 2, 3)), (221, (2, 2, 3)), (225, (2, 2, 3)), (229, (0, 1, 4))}),
    }
    found = {
        frozenset(pair for pair in label if label[pair] == number) for number in range(labels.number_of_labels(table))
    }
    assert {members for members in found if len(members) > 1} == expected


def test_limit_of_one_pattern_is_60_percent(table):
    given = labels.space_group_given_label(table)
    np.testing.assert_allclose(given.sum(axis=1), 1)
    assert labels.single_pattern_limit(table) == pytest.approx(48 / 80, abs=1e-12)
    # one axis on which all five look alike leaves a guess among five
    assert labels.single_pattern_limit(labels.label_table(zone_axes=[(1, 1, 1)])) == pytest.approx(0.2)


def test_extinctions_are_those_of_the_tables():
    """The rules of International Tables A against the operations of the groups."""
    rules = {
        221: lambda h, k, l: True,  # noqa: E741
        229: lambda h, k, l: (h + k + l) % 2 == 0,  # noqa: E741
        225: lambda h, k, l: len({h % 2, k % 2, l % 2}) == 1,  # noqa: E741
    }
    for group, rule in rules.items():
        for axis in labels.ZONE_AXES[:6]:
            allowed = {tuple(hkl) for hkl in labels.allowed_reflections(group, axis, 4).tolist()}
            longest = max(np.dot(hkl, hkl) for hkl in allowed)
            line = range(-12, 13)
            expected = {
                hkl
                for hkl in itertools.product(line, line, line)
                if np.dot(hkl, axis) == 0 and 0 < np.dot(hkl, hkl) <= longest and rule(*hkl)
            }
            assert allowed == expected
    diamond = {tuple(hkl) for hkl in labels.allowed_reflections(227, (0, 0, 1), 4).tolist()}
    assert (2, 2, 0) in diamond and (2, 0, 0) not in diamond and (4, 0, 0) in diamond
    screw = {tuple(hkl) for hkl in labels.allowed_reflections(213, (0, 0, 1), 4).tolist()}
    assert (1, 1, 0) in screw and (2, 0, 0) not in screw and (4, 0, 0) in screw


def test_appearance_is_the_same_for_equivalent_axes_and_multiples():
    for group in (213, 227):
        same = labels.appearance(group, (1, 2, 3))
        assert labels.appearance(group, (-3, 1, 2)) == same
        assert labels.appearance(group, (1, 3, 2)) == same  # seen as the mirror image
        assert labels.appearance(group, (2, 4, 6)) == same
    assert labels.appearance(227, (0, 1, 1)) != labels.appearance(225, (0, 1, 1))


def test_other_axes_and_groups_get_a_table():
    axes = [(0, 0, 1), (1, 1, 5), (-1, 1, 0)]
    table = labels.label_table([216, 225], axes)
    assert len(table) == 6
    # 216 and 225 share the F lattice and no further extinction: never apart
    label = labels.label_of(table)
    assert all(label[(216, axis)] == label[(225, axis)] for axis in axes)
    assert labels.single_pattern_limit(table) == pytest.approx(0.5)


def test_table_round_trip(tmp_path, table):
    path = tmp_path / "labels.csv"
    assert labels.write_labels(path) == table
    assert labels.read_labels(path) == table
    with path.open() as handle:
        first = next(csv.DictReader(handle))
    assert first["zone_axis"] == "[001]" and first["label"] == "0"


def test_axis_names():
    for axis in [(0, 0, 1), (-1, 1, 0), (1, -2, 12)]:
        assert labels.parse_axis(labels.axis_name(axis)) == axis
    assert labels.parse_axis("[-1 1 0]") == (-1, 1, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: labels.label_table([225, 225]), "given once"),
        (lambda: labels.label_table([62]), "not cubic"),
        (lambda: labels.label_table(zone_axes=[(0, 0, 0)]), "not all zero"),
        (lambda: labels.parse_axis("[12]"), "not 3"),
        (lambda: labels.parse_axis("[1x1]"), "is no index"),
        (lambda: labels.number_of_labels([]), "empty"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_extinction_classes_are_those_of_other_operations():
    """All cubic groups against spglib's operations: h R = h and h.t not whole means absent."""
    import spglib

    line = np.arange(-4, 5)
    hkl = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 3)
    hkl = hkl[hkl.any(axis=1)]
    absent, seen = {}, set()
    for hall in range(489, 531):
        number = spglib.get_spacegroup_type(hall).number
        if number in seen:  # another origin: the same absences
            continue
        seen.add(number)
        operations = spglib.get_symmetry_from_database(hall)
        gone = np.zeros(len(hkl), dtype=bool)
        for rotation, shift in zip(operations["rotations"], operations["translations"], strict=True):
            phase = hkl @ shift
            gone |= (hkl @ rotation == hkl).all(axis=1) & (np.abs(phase - np.rint(phase)) > 1e-6)
        absent.setdefault(gone.tobytes(), []).append(number)
    assert seen == set(range(195, 231))
    # so many axes that every reflection up to 4 lies in some zone
    axes = [axis for axis in itertools.product(range(-4, 5), repeat=3) if np.gcd.reduce(axis) == 1]
    found = labels.extinction_classes(range(195, 231), axes, reach=4)
    assert sorted(found) == sorted(map(tuple, absent.values()))
    assert (196, 202, 209, 216, 225) in found  # extinction symbol F - - -


def test_extinction_classes_depend_on_the_zones():
    assert labels.extinction_classes() == [(213,), (221,), (225,), (227,), (229,)]
    # along [111] no reflection of an I lattice is missing that a P lattice has, and no glide of 227 is seen
    assert labels.extinction_classes(zone_axes=[(1, 1, 1)]) == [(213, 221, 229), (225, 227)]
    with pytest.raises(ValueError, match="no space group 231"):
        labels.extinction_classes([225, 231])
