"""docs/views.md: its configuration is one, and the options and defaults that it lists are those of the files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import plugins
from pipeline.config import bind
from pipeline.views import ViewsConfig, ViewsSection, build_views
from pipeline.views.config import OPERATIONS

PAGE = (Path(__file__).resolve().parents[2] / "docs/views.md").read_text()
TABLE = PAGE.partition("## Operations")[2].partition("\n## ")[0]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines() if line.startswith("| `")]


def test_the_configuration_is_one() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    views = build_views(bind(yaml.safe_load(text), ViewsSection, ["views"]).views, (32, 32))
    assert views.exact
    assert views.output_size == (32, 32)
    assert "random-erasing.noise" in views.parameter_names


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_options_and_defaults_are_those_of_the_files(row: list[str]) -> None:
    for name in re.findall(r"`(\S+)`", row[0]):
        fields: dict[str, Any] = plugins.load(OPERATIONS, name, "name").Options.model_fields
        required = {key: field.examples[0] for key, field in fields.items() if field.is_required()}
        given = required | {"name": name}
        listed = dict(re.findall(r"`(\w+)(?:: ([^`]*))?`", row[1]))
        assert set(listed) == set(fields) - {"name"}
        assert {key for key, default in listed.items() if not default} == set(required)
        for key, default in listed.items():
            if default:
                # Proportions are written as fractions, which YAML has none of.
                value = yaml.safe_load(re.sub(r"(\d)/(\d)", lambda found: str(int(found[1]) / int(found[2])), default))
                chosen = plugins.choose(OPERATIONS, {**given, key: value}).options
                assert chosen == plugins.choose(OPERATIONS, given).options, key


def test_every_operation_is_listed_once() -> None:
    listed = [name for row in ROWS for name in re.findall(r"`(\S+)`", row[0])]
    assert len(listed) == len(set(listed))
    assert set(listed) <= set(plugins.names(OPERATIONS))


@pytest.fixture(scope="module")
def changed() -> Any:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    scope: dict[str, Any] = {}
    exec(code, scope)
    return scope["changed"]


@settings(max_examples=25, deadline=None)
@given(
    operation=st.sampled_from(
        [
            *({"name": name} for name in ("vertical-flip", "rotate90", "grayscale", "solarize", "color-jitter")),
            {"name": "color-jitter", "brightness": [0, 16], "contrast": [0, 16], "saturation": [0, 16], "hue": 0.5},
            *({"name": "rotate", "degrees": 180, "interpolation": way, "fill": 3} for way in ("nearest", "bilinear")),
            {"name": "gaussian-blur", "kernel_size": 3, "sigma": [0.1, 9]},
            *({"name": "random-erasing", "probability": 1, "value": value} for value in (7, "random")),
            *({"name": "randaugment", "magnitude": m, "interpolation": "bilinear"} for m in (0, 11, 30)),
            *({"name": "trivial-augment", "num_magnitude_bins": bins} for bins in (2, 8, 31)),
        ]
    ),
    shape=st.tuples(st.sampled_from([1, 3]), st.integers(2, 40), st.integers(2, 40)),
    seed=st.integers(0, 2**32),
)
def test_the_code_makes_the_pixels_of_the_operations(
    changed: Any, operation: dict[str, Any], shape: tuple[int, int, int], seed: int
) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (8, *shape), np.uint8)
    images[::2] = images[::2] // 64 * 64 + 20  # few levels: ties, and hues that are equal
    views = build_views(ViewsConfig.model_validate({"operations": [operation], "seed": seed}), shape[1:])
    parameters = views.parameters(0, np.arange(8))
    pixels = views.apply(torch.from_numpy(images), parameters).numpy()
    (options,) = views.identity()["operations"]
    for image, row, pixel in zip(images, parameters.tolist(), pixels, strict=True):
        assert np.array_equal(changed(options, image.transpose(1, 2, 0), iter(row)).transpose(2, 0, 1), pixel)
