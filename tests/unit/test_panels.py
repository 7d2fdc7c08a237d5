"""Which figures a configuration has, and what they show."""

import pytest
import yaml

from defraction import config, expansion, hosts, panels


@pytest.fixture(scope="module")
def plan(root):
    known = hosts.read_hosts(root / "resources/hosts.csv")

    def make(raw, zone_axes=((0, 0, 1), (0, 1, 1), (1, 1, 1), (1, 1, 2))):
        conditions = expansion.expand(config.validate(raw), known)
        axes = panels.shown_axes(conditions, {n: h.crystal_structure for n, h in known.items()}, zone_axes)
        return conditions, axes, panels.panels(conditions, axes, zone_axes)

    return make


def test_the_published_study_shows_what_the_article_shows(root, plan):
    conditions, axes, found = plan(yaml.safe_load((root / "config/paper.yaml").read_text()))

    def shown(figure):
        return [(panel.condition, panel.zone_axis) for panel in found[figure]]

    front = (0, 0, 1)
    assert shown("strain_patterns")[1:] == [
        ("al-strain-xx+2pct", front), ("al-strain-xx+5pct", front),
        ("al-strain-xy+0.015rad", front), ("al-strain-xy+0.035rad", front),
    ]  # fmt: skip
    assert shown("thermal_patterns")[1:] == [
        (f"al-thermal-{protocol}{kelvin}K-3x3x3", front) for protocol in ("", "equilibrated-") for kelvin in (100, 300)
    ]
    # beside the article's own pictures "published" would claim to be one of them
    assert [panel.title for panel in found["thermal_patterns"]] == [
        "Al, at rest", "Al, 100 K, short run", "Al, 300 K, short run", "Al, 100 K, equilibrium",
        "Al, 300 K, equilibrium",
    ]  # fmt: skip
    assert not [c.id for c in conditions.values() if "published" in c.parameter]
    assert {("fe-vacancy-3x3x3", front), ("fe-substitution-au-3x3x3", front)} <= set(shown("point_patterns"))
    assert shown("interstitial") == [("al-interstitial-c-tetrahedral-3x3x3", front)]
    assert shown("dislocation_patterns")[:3] == [
        ("al-dislocation-edge-4", axis) for axis in [(1, 1, -2), (1, 1, 1), (-1, 1, 0)]
    ]
    assert shown("twin_patterns")[:2] == [("al-twin", (-1, 1, 0)), ("fe-twin", (-1, 0, 1))]
    assert set(axes) == {name for name, c in conditions.items() if c.family in ("dislocation", "twin")}
    names = panels.figures(conditions, found, [256, 256])
    assert "resolution" not in names and "sweeps" in names
    assert "resolution" in panels.figures(conditions, found, [64, 256])


def test_a_study_without_a_defect_has_no_figure_of_it(plan):
    conditions, axes, found = plan({"conditions": [{"kind": "pristine", "host": "Al"}]})
    assert found == {} and axes == {}
    names = panels.figures(conditions, found, [64])
    assert names == ["accuracy", "ensemble", "settings", "mistakes", "confusion", "calibration", "patterns", "learning"]


def test_the_nearest_of_what_there_is(plan):
    strain = {"kind": "strain", "host": "Fe", "component": "xx", "values": [0.01, 0.04]}
    vacancies = [{"kind": "vacancy", "host": "Fe", "supercell": [n, n, n]} for n in (2, 4)]
    conditions, _, found = plan({"conditions": [strain, *vacancies]}, zone_axes=[(1, 1, 1)])
    assert [p.condition for p in found["strain_patterns"]] == ["fe-pristine", "fe-strain-xx+1pct", "fe-strain-xx+4pct"]
    assert {p.zone_axis for p in found["strain_patterns"]} == {(1, 1, 1)}  # no [001] here
    assert [p.condition for p in found["point_patterns"]] == ["fe-perfect-2x2x2", "fe-vacancy-2x2x2"]
    assert panels.relaxed_point_defects(conditions) == ["fe-vacancy-4x4x4", "fe-vacancy-2x2x2"]


def test_only_axes_with_labels_are_shown(plan):
    _, axes, found = plan({"conditions": [{"kind": "twin", "host": "Al"}]}, zone_axes=[(0, 0, 1), (1, 1, 1)])
    assert axes == {} and "twin_patterns" not in found
