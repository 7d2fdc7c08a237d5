"""benchmarks/training.py on a network and patterns so small that only its code is tested."""

import argparse
import importlib.util
import logging

import pytest

from defraction import config
from defraction.evaluation.predictions import read_predictions


@pytest.fixture(scope="module")
def benchmark(root):
    path = root / "benchmarks/training.py"
    module = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("training_benchmark", path))
    spec.loader.exec_module(module)
    return module


def test_the_patterns_of_a_condition_are_predicted_by_the_network_that_was_trained(benchmark, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="defraction.learning.train")
    options = argparse.Namespace(network="resnet18", pixels=32, batch=8, steps=40, threads=1)
    settings = config.plain(config.Learning(architecture="resnet18", epochs=1, batch_size=64, monitor=4))
    files = benchmark.write_study(tmp_path, options.pixels, options.batch * options.steps)
    assert all(seconds > 0 for seconds in benchmark.ours(tmp_path, files, options, settings))
    assert all(seconds > 0 for seconds in benchmark.inference(tmp_path, options))
    found = read_predictions(tmp_path / "predictions.nc")
    assert found.n_patterns == 144 and found.log_probability.shape == (1, 16, 3, 3, 1, 1, 48)
