from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.data import DataConfig, PackedDataset, open_source, pack, select
from pipeline.measuring.metrics import measure
from pipeline.measuring.prediction import predict
from pipeline.models import build_network
from pipeline.progress import Silent
from pipeline.signals import Signals
from pipeline.views import ViewsConfig, build_views

POSITIONS = np.array([1, 4, 5, 9, 12, 20, 21], dtype=np.int64)


@dataclass
class FewSamples:
    """Stands in for `pipeline.data.Samples`."""

    differing: bool = False
    positions: NDArray[np.int64] = field(default_factory=lambda: POSITIONS)

    @property
    def count(self) -> int:
        return len(self.positions)

    def read(self, samples: NDArray[np.int64]) -> Any:
        images = [torch.full((3, 4, 4), 2 * int(i), dtype=torch.uint8) for i in samples]
        if self.differing:
            return [nn.functional.pad(image, (0, i)) for i, image in zip(samples.tolist(), images, strict=True)]
        return torch.stack(images)


class ShiftedViews:
    """Stands in for `pipeline.views.Views`: adds the view number and the position to every pixel."""

    numbers = range(3, 5)
    needs_sizes = True

    def __init__(self) -> None:
        self.sizes: list[list[int]] = []

    def parameters(self, view: int, samples: NDArray[np.int64], sizes: Any = None) -> NDArray[np.int32]:
        self.sizes += sizes.tolist()
        return (samples[:, None] + view).astype(np.int32)

    def apply(self, images: Any, parameters: NDArray[np.int32]) -> Tensor:
        cropped = torch.stack([image[:, :4, :4] for image in images])
        return cropped + torch.from_numpy(parameters).to(torch.uint8)[:, :, None, None]


class Tiny(nn.Module):
    """Logits [B, 2]: the mean pixel of the image, and whether anything in here trains or records gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.BatchNorm2d(3).eval()
        self.rest = nn.Dropout()
        self.weight = nn.Parameter(torch.ones(1))
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Signals:
        assert images.dtype == torch.uint8
        self.batches.append(len(images))
        mean = (self.weight * images.float().mean(dim=(1, 2, 3))).float()
        flag = self.training or self.rest.training or mean.requires_grad
        return Signals(torch.stack([mean, torch.full_like(mean, float(flag))], dim=1))


def run(**options: Any) -> tuple[Tensor, Tiny, ShiftedViews]:
    network, views = Tiny(), ShiftedViews()
    samples = options.pop("samples", FewSamples())
    return predict(network, samples, views, **options), network, views  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_first_view_of_every_sample_in_order(batch_size: int) -> None:
    logits, network, _ = run(batch_size=batch_size)
    expected = [2 * i + position + 3 for i, position in enumerate(POSITIONS)]
    assert logits[:, 0].tolist() == expected
    assert sum(network.batches) == 7
    assert max(network.batches) == min(batch_size, 7)


def test_runs_in_evaluation_mode_without_gradients_and_puts_modes_back() -> None:
    logits, network, _ = run()
    assert logits[:, 1].tolist() == [0.0] * 7
    assert (network.training, network.rest.training, network.frozen.training) == (True, True, False)


def test_modes_are_put_back_after_an_error() -> None:
    network = Tiny()
    broken = FewSamples(positions=np.array([0, 1]))
    broken.read = lambda samples: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        predict(network, broken, ShiftedViews())  # type: ignore[arg-type]
    assert network.training
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_logits_are_float32_on_the_cpu(precision: str) -> None:
    logits, _, _ = run(precision=precision)
    assert (logits.dtype, logits.device.type, list(logits.shape)) == (torch.float32, "cpu", [7, 2])


def test_bfloat16_is_autocast() -> None:
    class Reports(Tiny):
        def forward(self, images: Tensor) -> Signals:
            enabled = torch.is_autocast_enabled("cpu")
            return Signals(torch.full((len(images), 1), float(enabled)))

    for precision, expected in (("float32", 0.0), ("bfloat16", 1.0)):
        logits = predict(Reports(), FewSamples(), ShiftedViews(), precision=precision)  # type: ignore[arg-type]
        assert logits.unique().tolist() == [expected]


def test_operations_learn_the_sizes_of_images_that_differ() -> None:
    logits, _, views = run(samples=FewSamples(differing=True), batch_size=4)
    assert views.sizes == [[4, 4 + i] for i in range(7)]
    assert logits[:, 0].tolist() == run()[0][:, 0].tolist()


def test_reports_progress() -> None:
    told: list[Any] = []

    class Told:
        def begin(self, what: str, total: int, unit: str, done: int = 0) -> None:
            told.append((what, total, unit))

        def advance(self, amount: int, note: str = "") -> None:
            told.append(amount)

        def end(self) -> None:
            told.append("end")

    run(batch_size=5, progress=Told())
    assert told == [("evaluate", 7, "images"), 5, 2, "end"]


def test_the_real_rooms_fit_together(tmp_path: Path) -> None:
    config = DataConfig(path=tmp_path / "digits.h5", source={"name": "digits"}, split="test", limit=40)  # type: ignore[arg-type]
    pack(open_source(config.source), config.path, Silent())
    samples, _ = select(PackedDataset.open(config.path), config)
    views = build_views(ViewsConfig.model_validate({"operations": [{"name": "resize", "size": 12}]}), (8, 8))
    network = build_network("cifar_resnet8", 10, input_size=12, seed=0)
    logits = predict(network, samples, views, batch_size=16)

    everything = np.arange(40)
    pixels = views.apply(samples.read(everything), views.parameters(0, samples.positions))
    with torch.no_grad():
        expected = network.eval()(pixels).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert samples.labels is not None
    assert measure(logits, samples.labels, expected).agreement == 1.0
