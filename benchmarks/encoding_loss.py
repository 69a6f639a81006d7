"""What each encoding costs and keeps: bytes, errors, and a student that learns from it.

    python benchmarks/encoding_loss.py --config configs/cifar100.yaml --folder DIRECTORY [--set KEY=VALUE ...] \
        [--student resnet8] [--objectives lfcc-kd] [--seeds 3]

Makes one cache per encoding with the pipeline's own commands (`topk` for the logits, the other signals then in
float16) and trains the student from each with every seed. Printed, beside float32: bytes of a view; the root mean
square of the error of logits and features as a share of the signal's own; top-1 of the stored logits over all cached
views, and how often their largest is another than float32's; the student's top-1 on the test split, mean and spread.
A second table is of the logits alone, `topk` with several k: bytes of a view, the mean KL divergence in nats from the
teacher's softmax at two temperatures, and the mean mass that the logits which were not kept have there: the teacher's,
and decoded. Work that is already there is not done again, so the command may be stopped and started.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from pipeline.signals import EncodingChoice
from pipeline.store.encodings import load_encoding, name_of
from pipeline.store.reader import TeacherCache

ENCODINGS = ("float32", "float16", "int8", "topk")
LOGITS: tuple[EncodingChoice, ...] = ("float16", "int8", *({"name": "topk", "k": k} for k in (5, 10, 32, 100)))
TEMPERATURES = (1.0, 4.0)


def pipeline(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pipeline.cli", *arguments], check=True)


def overrides(encoding: str, folder: Path) -> list[str]:
    others = "float16" if encoding == "topk" else encoding
    values = {
        "signals.logits.encoding": encoding,
        "signals.embedding.encoding": others,
        "signals.features.encoding": others,
        "store.path": folder / f"{encoding}.zarr",
        "runs.path": folder / encoding,
    }
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def share(stored: Tensor, exact: Tensor) -> float:
    return float((stored - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def errors(cache: TeacherCache, exact: TeacherCache) -> dict[str, float]:
    """Averages over views; labels are those of the cache."""
    rows, labels = np.arange(cache.count), torch.from_numpy(cache.labels)
    found: dict[str, list[float]] = {}
    for view in cache.views:
        one, other = cache.read(view, rows), exact.read(view, rows)
        top = one.logits.argmax(1)
        found.setdefault("top-1", []).append(float((top == labels).float().mean()))
        found.setdefault("changed", []).append(float((top != other.logits.argmax(1)).float().mean()))
        found.setdefault("logits", []).append(share(one.logits, other.logits))
        for name in one.features:
            found.setdefault("features", []).append(share(one.features[name], other.features[name]))
    return {name: statistics.fmean(values) for name, values in found.items()}


def divergence(stored: Tensor, exact: Tensor, temperature: float) -> float:
    """Mean KL(exact || stored) in nats of the softmax at a temperature; both [R, K]."""
    stored, exact = (torch.log_softmax(logits.double() / temperature, dim=1) for logits in (stored, exact))
    return float((exact.exp() * (exact - stored)).sum(1).mean())


def others(logits: Tensor, kept: Tensor, temperature: float) -> float:
    """The mean mass of the classes that are not `kept` [R, k] in the softmax at a temperature."""
    mass = torch.softmax(logits.double() / temperature, dim=1)
    return float(mass.scatter(1, kept, 0.0).sum(1).mean())


def logits_table(exact: TeacherCache) -> None:
    """Of the first view of every sample."""
    logits = exact.read(exact.views[0], np.arange(exact.count)).logits
    print("\n| logits | bytes per view | KL, T = 1 | KL, T = 4 | mass of the others, T = 1 | T = 4 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for choice in LOGITS:
        encoding = load_encoding(choice, "logits", (logits.shape[1],))
        parts = {part: torch.from_numpy(array) for part, array in encoding.encode(logits.numpy()).items()}
        stored = encoding.decode(parts)
        size = sum(dtype.itemsize * int(np.prod(shape)) for dtype, shape in encoding.parts.values())
        masses = ["", ""]
        if "indices" in parts:
            kept = logits.topk(parts["indices"].shape[1], dim=1).indices
            masses = [f"{others(logits, kept, t):.3f} as {others(stored, kept, t):.3f}" for t in TEMPERATURES]
        name = name_of(choice) if isinstance(choice, str) else f"{choice['name']}, k = {choice['k']}"
        cells = [name, f"{size:,}", *(f"{divergence(stored, logits, t):.1e}" for t in TEMPERATURES), *masses]
        print(f"| {' | '.join(cells)} |")


@click.command()
@click.option("--config", type=click.Path(path_type=Path), required=True)
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--set", "values", multiple=True)
@click.option("--student", default="resnet8", show_default=True)
@click.option("--objectives", default="lfcc-kd", show_default=True)
@click.option("--seeds", default=3, show_default=True)
def main(config: Path, folder: Path, values: tuple[str, ...], student: str, objectives: str, seeds: int) -> None:
    common = ["--config", str(config), *(part for value in values for part in ("--set", value))]
    rows = []
    for encoding in ENCODINGS:
        options = [*common, *overrides(encoding, folder)]
        pipeline("cache-teacher", *options)
        for seed in range(seeds):
            run = ["--student", student, "--objectives", objectives, "--seed", str(seed), "--verify", "sample"]
            pipeline("train-student", *run, *options)
        pipeline("evaluate", *options, "--set", f"runs.seeds={list(range(seeds))}")
        evaluation = json.loads((folder / encoding / "evaluation.json").read_text())
        accuracies = [100 * found["metrics"]["top1"] for found in evaluation["students"]]
        rows.append((encoding, accuracies))
    exact = TeacherCache.open(folder / "float32.zarr")
    print("| encoding | bytes per view | logits' error | features' error | top-1 | changed | student's top-1 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for encoding, accuracies in rows:
        cache = TeacherCache.open(folder / f"{encoding}.zarr")
        size, error = sum(cache.manifest.layout.bytes_per_view.values()), errors(cache, exact)
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        print(
            f"| {encoding} | {size:,} | {error['logits']:.1e} | {error.get('features', 0):.1e} | "
            f"{100 * error['top-1']:.2f} | {100 * error['changed']:.2f} % | "
            f"{statistics.fmean(accuracies):.2f} ± {spread:.2f} |"
        )
    logits_table(exact)


if __name__ == "__main__":
    main()
