import pytest
import yaml

from defraction import conditions, config, expansion, models
from defraction.hosts import read_hosts


@pytest.fixture(scope="module")
def hosts(root):
    return read_hosts(root / "resources/hosts.csv")


def fault(raw) -> str:
    with pytest.raises(config.ConfigError) as error:
        config.validate(raw, "c.yaml")
    return str(error.value)


def with_condition(**entry):
    return {"conditions": [{"host": "Al", **entry}]}


AL = with_condition(kind="pristine")


@pytest.mark.parametrize("name", ["config", "paper", "smoke", "shipped", "six-hours", "networks"])
def test_shipped_configurations_are_valid(root, hosts, name):
    settings = config.load(root / f"config/{name}.yaml")
    table = expansion.expand(settings, hosts)
    assert all(c.control in table for c in table.values())
    assert (name == "paper") == (not settings.reductions)


def test_generated_documents_are_up_to_date(root):
    assert (root / "config/README.md").read_text() == config.reference()
    assert (root / "config/schema.json").read_text() == config.schema()


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        ({"conditons": []}, ["conditons", "did you mean 'conditions'"]),
        (with_condition(kind="vacncy"), ["conditions[0]", "'vacncy'", "did you mean 'vacancy'"]),
        (with_condition(kind="vacancy", supercel=[1, 1, 1]), ["conditions[0].supercel", "did you mean 'supercell'"]),
        (with_condition(kind="vacancy", supercell=[0, 1, 1]), ["conditions[0].supercell[0]", "greater", "found 0"]),
        (
            with_condition(kind="strain", component="xx", values={"start": 0.05, "stop": 0.01, "step": 0.01}),
            ["conditions[0].values", "ends (0.01) before it starts (0.05)"],
        ),
        (with_condition(kind="strain", values=[0.01]), ["needs a component"]),
        (with_condition(kind="strain", mode="pressure", component="xx", values=[1]), ["takes no component"]),
        (with_condition(kind="strain", mode="stress", values=[1]), ["needs either a component, or stress"]),
        (with_condition(kind="strain", mode="stress", component="xx", stress={"xy": 1}), ["either a component"]),
        (with_condition(kind="strain", mode="stress", stress={"xq": 1}), ["conditions[0].stress.xq", "did you mean"]),
        (with_condition(kind="strain", mode="stress", stress={"xx": 0}), ["all components of stress are zero"]),
        (with_condition(kind="strain", component="xx", stress={"xx": 1}), ["either a component, or stress"]),
        (with_condition(kind="strain", stress={"xx": 1}, tensor={"xx": 0.1}), ["the mode stress takes no tensor"]),
        (with_condition(kind="strain", mode="tensor"), ["needs tensor, such as"]),
        (with_condition(kind="strain", mode="tensor", tensor={"xx": 0.1}, values=[1, 3]), ["0.3", "beyond 0.2"]),
        (with_condition(kind="strain", mode="stress", stress={"xx": 1}, values=[0]), ["control"]),
        (with_condition(kind="strain", mode="hydrostatic", values=[0.01], elastic="gpaw"), ["leave elastic out"]),
        (with_condition(kind="strain", component="xx", values=[0.01], preset="paper"), ["add elastic: gpaw"]),
        (with_condition(kind="point_defects", supercell=[2, 2, 2], defects=[]), ["conditions[0].defects"]),
        (
            with_condition(kind="point_defects", supercell=[2, 2, 2], defects=[{"kind": "vacancy", "cont": 2}]),
            ["conditions[0].defects[0].cont", "did you mean 'count'"],
        ),
        (
            with_condition(kind="point_defects", supercell=[2, 2, 2], defects=[{"kind": "substitution"}]),
            ["conditions[0].defects[0]", "the defect substitution needs a solute"],
        ),
        (
            with_condition(
                kind="point_defects",
                supercell=[2, 2, 2],
                defects=[{"kind": "vacancy", "count": 2, "positions": [[0, 0, 0]]}],
            ),
            ["positions and count say where the vacancy goes"],
        ),
        (with_condition(kind="thermal", supercell=[1, 1, 1], temperatures=[300], flights=0), ["flights"]),
        (with_condition(kind="random_defects", defect="substitution", concentrations=[0.1]), ["needs a solute"]),
        (with_condition(kind="random_defects", defect="vacancy", site="octahedral", concentrations=[0.1]), ["no site"]),
        (
            with_condition(kind="random_defects", concentrations=[0, 0.05, 0.25]),
            [
                "conditions[0].concentrations[0]: zero is the control (kind pristine), which is always added",
                "leave it out",
            ],
        ),
        (with_condition(kind="random_displacements", fractions=[0.0]), ["fractions[0]: zero is the control"]),
        (with_condition(kind="random_defects", concentrations=[-0.1]), ["greater than 0", "found -0.1"]),
        (
            with_condition(
                kind="point_defects", supercell=[2, 2, 2], defects=[{"kind": "vacancy", "concentration": 0}]
            ),
            ["conditions[0].defects[0].concentration: zero is no defect; leave it out"],
        ),
        (with_condition(kind="random_displacements", fractions=[0.4]), ["less than or equal to 0.25"]),
        (with_condition(kind="strain", component="xx", values=[0.21]), ["0.21", "beyond 0.2"]),
        (with_condition(kind="strain", component="xx", values=[-3]), ["-3", "did you mean -0.03"]),
        (with_condition(kind="strain", component="xx", values=[0.0]), ["control"]),
        (with_condition(kind="strain", component="xx", values={"start": 0.1, "stop": 0.4, "step": 0.1}), ["0.3"]),
        ({"diffraction": {"zone_axes": [[0, 0, 0]]}}, ["zone_axes", "no direction"]),
        ({"diffraction": {"zone_axes": [[0, 0, 2]]}}, ["common factor", "divide by 2"]),
        ({"diffraction": {"voltages": [200, 200]}}, ["voltages", "twice"]),
        ({"learning": {"display": {"beamstop": 1}}}, ["learning.display.beamstop", "beam_stop"]),
        ({"learning": {"architecture": "resnet100"}}, ["learning.architecture", "resnet101"]),
        ({"models": [{"batchsize": 3}]}, ["models[0].batchsize", "did you mean 'batch_size'"]),
        ({"models": [{"split": {"bye": "image"}}]}, ["models[0].split.bye", "did you mean 'by'"]),
        ({"models": [{"name": "Main"}]}, ["models[0].name", "'Main'"]),
        ({**AL, "models": [{}, {}]}, ["main is given twice", "all its seeds"]),
        ({**AL, "models": [{"seeds": [1]}, {"seeds": [2], "architecture": "resnet18"}]}, ["main is given twice"]),
        ({"materials": {"space_groups": [225, 225]}}, ["materials.space_groups", "225 is given twice"]),
        (with_condition(kind="strain", component="xx", values=[float("nan")]), ["conditions[0].values", "finite"]),
        (with_condition(kind="strain", mode="biaxial", plane=[0, 0, 0], values=[0.01]), ["plane [0, 0, 0] is none"]),
        ({"models": [{"seeds": [2, 2]}]}, ["models[0].seeds", "seed 2 is given twice"]),
        ({**AL, "models": [{"pattern_set": "artcle"}], "pattern_sets": {"article": {}}}, ["did you mean 'article'"]),
        ({"pattern_sets": {"small": {"pixel": 64}}}, ["pattern_sets.small.pixel", "did you mean 'pixels'"]),
        ({**AL, "pattern_sets": {"main": {"pixels": 64}}}, ["pattern_sets.main", "another name"]),
        (
            {**AL, "pattern_sets": {"few": {"zone_axes": [[0, 0, 1]]}}},
            ["pattern_sets.few.zone_axes", "share the zone axes"],
        ),
        (
            {**AL, "diffraction": {"model": "article"}, "pattern_sets": {"round": {"shape": "sphere"}}},
            ["pattern_sets.round", "no meaning in the model article"],
        ),
        (
            {**AL, "materials": {"specimens": 1}, "diffraction": {"average_snapshots": True}},
            ["would mix the specimens"],
        ),
        ([1, 2], ["expected keys and values"]),
    ],
)
def test_bad_input_says_what_where_and_how(raw, parts):
    message = fault(raw)
    assert message.startswith("c.yaml: ")
    for part in parts:
        assert part in message


def test_all_faults_are_named_at_once():
    message = fault({"sed": 1, "learning": {"epochs": 0}, "conditions": []})
    assert len(message.splitlines()) == 3


def test_unreadable_files(tmp_path):
    with pytest.raises(config.ConfigError, match="cannot be read"):
        config.load(tmp_path / "absent.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(config.ConfigError, match=r"broken.yaml: is not YAML"):
        config.load(tmp_path / "broken.yaml")


def test_unknown_host_and_element(hosts):
    for entry, part in [
        ({"kind": "pristine", "host": "All"}, "did you mean 'Al'"),
        ({"kind": "substitution", "host": "Al", "solute": "Zz", "supercell": [1, 1, 1]}, "solute 'Zz' is not a"),
        (
            {
                "kind": "point_defects",
                "host": "Al",
                "supercell": [2, 2, 2],
                "defects": [{"kind": "vacancy"}, {"kind": "substitution", "solute": "SI"}],
            },
            "conditions[0].defects[1]: solute 'SI' is not a chemical element; did you mean 'Si'?",
        ),
        ({"kind": "substitution", "host": "Al", "solute": "Al"}, "conditions[0]: substituting Al in"),
        ({"kind": "interstitial", "host": "Al", "solute": "C", "site": "hexagonal"}, "site 'hexagonal' in fcc; choose"),
        ({"kind": "dislocation", "host": "Si"}, "a dislocation is built in fcc and bcc crystals; Si is diamond"),
        ({"kind": "twin", "host": "Si"}, "a twin is built in fcc and bcc crystals; Si is diamond"),
        (
            {"kind": "random_defects", "host": "Al", "concentrations": [1e-6]},
            "1e-06 of 96000 sites is not one defect; the least is 5.2e-06",
        ),
        (
            {"kind": "point_defects", "host": "Fe", "defects": [{"kind": "vacancy", "concentration": 0.01}]},
            "0.01 of 16 sites is not one defect",
        ),
    ]:
        sized = {} if entry["kind"] not in ("substitution", "interstitial", "point_defects") else {"supercell": [2] * 3}
        settings = config.validate({"conditions": [{**sized, **entry}]})
        with pytest.raises(config.ConfigError) as error:
            expansion.expand(settings, hosts)
        assert part in str(error.value)


def test_a_host_whose_group_no_network_knows_is_refused_before_anything_is_computed(hosts):
    settings = config.validate(
        {"materials": {"space_groups": [221, 225]}, "conditions": [{"kind": "pristine", "host": "Fe"}]}
    )
    with pytest.raises(config.ConfigError, match=r"conditions\[0\].host: Fe has space group 229, which is not among"):
        expansion.expand(settings, hosts)


def test_lattice_defects_are_refused_where_they_cannot_be_built():
    from defraction.defects import dislocation, twin

    frames = {"dislocation": tuple(dislocation.FRAMES), "twin": tuple(twin.FRAMES)}
    assert frames == expansion.LATTICE_DEFECTS


def test_ranges_include_both_ends():
    assert config.Range(start=0.005, stop=0.035, step=0.005).values() == [
        0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035,
    ]  # fmt: skip


def test_ids_do_not_depend_on_order_or_neighbours(root, hosts):
    raw = yaml.safe_load((root / "config/config.yaml").read_text())
    forward = expansion.expand(config.validate(raw), hosts)
    raw["conditions"] = raw["conditions"][::-1]
    backward = expansion.expand(config.validate(raw), hosts)
    assert forward == backward
    raw["conditions"] = raw["conditions"][:3]
    fewer = expansion.expand(config.validate(raw), hosts)
    assert all(forward[name] == c for name, c in fewer.items())


def test_same_condition_twice_is_refused(hosts):
    entry = {"kind": "strain", "host": "Al", "component": "xx", "values": [0.01]}
    settings = config.validate({"conditions": [entry, entry]})
    with pytest.raises(config.ConfigError, match=r"al-strain-xx\+1pct is already a condition"):
        expansion.expand(settings, hosts)


def test_controls_share_cell_and_specimen(root, hosts):
    table = expansion.expand(config.load(root / "config/paper.yaml"), hosts)
    for c in table.values():
        control = table[c.control]
        assert control.control == control.id
        settings = dict(c.settings)
        if "block" in settings:  # a disordered one is the whole specimen
            settings["repeat"] = settings["block"]
        for key in ("supercell", "repeat", "size", "line_repeat"):
            assert settings.get(key) == control.settings.get(key), (c.id, key)


def test_table_round_trip(root, hosts, tmp_path):
    table = expansion.expand(config.load(root / "config/config.yaml"), hosts)
    conditions.write_table(table, tmp_path / "conditions.csv")
    assert conditions.read_table(tmp_path / "conditions.csv") == table


@pytest.mark.parametrize(
    ("entry", "ids", "settings"),
    [
        (
            {"kind": "strain", "mode": "stress", "component": "xy", "values": [1, -0.5]},
            ["al-strain-stress-xy+1GPa", "al-strain-stress-xy-0.5GPa"],
            {"mode": "stress", "stress": {"xy": 1.0}},
        ),
        (
            {"kind": "strain", "mode": "stress", "stress": {"xx": 0.5, "xy": -0.1}},
            ["al-strain-stress-xx+0.5-xy-0.1GPa"],
            {"mode": "stress", "stress": {"xx": 0.5, "xy": -0.1}},
        ),
        (
            {"kind": "strain", "mode": "stress", "stress": {"xx": 0.5, "xy": 0.1}, "values": [2, -1]},
            ["al-strain-stress-xx+1-xy+0.2GPa", "al-strain-stress-xx-0.5-xy-0.1GPa"],
            {"mode": "stress", "stress": {"xx": 1.0, "xy": 0.2}},
        ),
        (
            {"kind": "strain", "tensor": {"zz": 0.01, "xz": 0.004}},
            ["al-strain-tensor-zz+0.01-xz+0.004"],
            {"mode": "tensor", "tensor": {"zz": 0.01, "xz": 0.004}},
        ),
        (
            {"kind": "strain", "component": "xy", "values": [0.02], "elastic": "gpaw", "preset": "paper"},
            ["al-strain-xy+0.02rad-gpaw-paper"],
            {"component": "xy", "value": 0.02, "elastic": "gpaw", "preset": "paper"},
        ),
        (
            {"kind": "strain", "mode": "biaxial", "plane": [1, 1, 1], "values": [0.02]},
            ["al-strain-biaxial-111+2pct"],
            {"mode": "biaxial", "plane": [1, 1, 1], "value": 0.02},
        ),
        (
            {"kind": "random_defects", "concentrations": [0.05, 0.25], "samples": 3},
            ["al-random-vacancy-5pct", "al-random-vacancy-25pct"],
            {"block": [40, 30, 20], "samples": 3},
        ),
        (
            {"kind": "random_displacements", "fractions": [0.006]},
            ["al-displaced-gaussian-0.6pct"],
            {"displacement": {"distribution": "gaussian", "fraction": 0.006}},
        ),
    ],
)
def test_ids_and_settings_of_more_kinds(hosts, entry, ids, settings):
    table = expansion.expand(config.validate({"conditions": [{"host": "Al", **entry}]}), hosts)
    assert list(table) == ["al-pristine", *ids]
    assert settings.items() <= table[ids[0]].settings.items()
    assert all(table[i].control == "al-pristine" for i in ids)


def one(hosts, entry, **other) -> dict:
    return expansion.expand(config.validate({"conditions": [{"host": "Al", **entry}], **other}), hosts)


def test_several_kinds_of_defects_are_one_condition_relaxed_and_unrelaxed(hosts):
    pair = [{"kind": "vacancy"}, {"kind": "substitution", "solute": "Si", "neighbour": {"shell": 2}}]
    entry = {"kind": "point_defects", "supercell": [2, 2, 2], "defects": pair}
    control, relaxed, unrelaxed = one(hosts, entry)
    assert control == "al-perfect-2x2x2" and unrelaxed == f"{relaxed}-unrelaxed"
    assert relaxed.startswith("al-defects-vacancy-si-") and relaxed.endswith("-2x2x2")
    chosen = one(hosts, entry)[relaxed].settings["defect"]
    assert chosen["defects"][1]["neighbour"] == {"shell": 2, "of": 0}
    assert "seed" not in chosen and one(hosts, entry, seed=5)[relaxed].settings["defect"] == chosen
    nearer = [pair[0], {**pair[1], "neighbour": {"shell": 1}}]
    assert not set(one(hosts, {**entry, "defects": nearer})) & {relaxed, unrelaxed}
    at_random = {**entry, "defects": [{"kind": "vacancy", "count": 2}, pair[1]]}
    seeds = [list(one(hosts, at_random, seed=n).values())[1].settings["defect"]["seed"] for n in (1, 5)]
    assert seeds[0] != seeds[1]


def test_further_keys_leave_older_conditions_as_they_were(hosts):
    """Settings are params of the rules: a key that appears would run finished calculations again."""
    strain = one(hosts, {"kind": "strain", "component": "xx", "values": [0.01]})["al-strain-xx+1pct"]
    assert set(strain.settings) == {"family", "component", "value", "repeat"}
    thermal = {"kind": "thermal", "supercell": [1, 1, 1], "temperatures": [300]}
    found = one(hosts, thermal)["al-thermal-300K-1x1x1"]
    assert set(found.settings) == {"family", "protocol", "temperature", "supercell", "repeat"}
    assert one(hosts, {**thermal, "flights": 3})["al-thermal-300K-1x1x1"].settings == {**found.settings, "flights": 3}
    vacancy = {"kind": "vacancy", "supercell": [2, 2, 2], "count": 2, "minimum_separation": 3}
    defect = one(hosts, vacancy)["al-vacancy-x2-2x2x2"].settings["defect"]
    assert list(defect) == ["kind", "solute", "site", "count", "seed", "minimum_separation"]  # compared as text


def test_every_kind_has_a_name_in_figures():
    from defraction.figures import style

    assert set(config.KINDS) <= set(style.KINDS)


MODELS = {
    **with_condition(kind="pristine"),
    "seed": 4,
    "learning": {"epochs": 7, "display": {"beam_stop": 1.0}},
    "pattern_sets": {"fine": {"pixels": 512}},
    "models": [
        {"name": "main", "seeds": [1, 2]},
        {"name": "image", "split": {"by": "image"}, "display": {"decades": 5}, "pattern_set": "fine", "keep": "best"},
    ],
}


def test_models_take_what_they_do_not_change_from_learning():
    settings = config.validate(MODELS)
    found = models.expand(settings)
    assert list(found) == ["main-seed1", "main-seed2", "image-seed4"]
    main, image = found["main-seed1"], found["image-seed4"]
    assert main["learning"] | {"split": main["split"] | {"validation": 0.1}} == config.plain(settings.learning)
    assert image["learning"]["epochs"] == 7 and image["learning"]["display"] == {"beam_stop": 1.0, "decades": 5.0}
    assert (main["split"]["by"], image["split"]["by"]) == ("material", "image")
    # the third part is taken only where something is chosen by it
    assert (main["split"]["validation"], image["split"]["validation"]) == (0.0, 0.1)
    assert settings.diffraction_of("fine") == settings.diffraction.model_copy(update={"pixels": 512})


def test_a_further_model_or_seed_leaves_the_others_as_they_were():
    before = models.expand(config.validate(MODELS))
    more = [{"name": "main", "seeds": [3, 1, 2]}, {"name": "wide"}, MODELS["models"][1]]
    after = models.expand(config.validate(MODELS | {"models": more}))
    assert all(after[name] == model for name, model in before.items())


def test_a_configuration_survives_being_written_out():
    """Jobs get the configuration as Snakemake passes it on: plain values, checked again."""
    settings = config.validate(MODELS)
    again = config.validate(config.plain(settings))
    assert models.expand(again) == models.expand(settings) and config.plain(again) == config.plain(settings)


def test_the_table_of_models_is_read_as_it_was_written(tmp_path):
    rows = models.rows(config.validate(MODELS))
    models.write_table(tmp_path / "models.csv", rows)
    read = models.read_table(tmp_path / "models.csv")
    assert [row["headline"] for row in read] == [True, False, False]
    assert [row["pixels"] for row in read] == [256, 256, 512]
    assert [{**row, "headline": int(row["headline"])} for row in read] == rows
    (tmp_path / "other.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match=r"other\.csv: columns"):
        models.read_table(tmp_path / "other.csv")
