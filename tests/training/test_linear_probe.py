from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from active_devices import ActiveDevices
from sklearn.linear_model import LogisticRegression
from training_pieces import SMALL, VIT, config, network, objectives, same, samples, views

import pipeline.training.linear_probe
import pipeline.training.probe_fit
from pipeline.data import DataConfig, PackedDataset, Samples, select
from pipeline.errors import ConfigError
from pipeline.measuring.metrics import measure
from pipeline.measuring.prediction import predict
from pipeline.models import Network
from pipeline.progress import Silent
from pipeline.training import ProbeResult, ProbeViews, probe
from pipeline.training.embeddings import embed
from pipeline.views import Views, ViewsConfig, build_views

pytestmark = pytest.mark.usefixtures("few_penalties")

ALL = pipeline.training.probe_fit.DECAYS
PLAIN = build_views(ViewsConfig(), (8, 8))
HARD = {"name": "hard-label"}


def held(road: Path) -> Samples:
    values = {"path": road / "data.h5", "limit": 60, "holdout": {"count": 12}}
    found = select(PackedDataset.open(road / "data.h5"), DataConfig.model_validate(values))[1]
    assert found is not None
    return found


def seen(road: Path, *numbers: int) -> ProbeViews:
    """As evaluation sees the images, and drawn in views of these numbers."""
    drawn: list[tuple[Views, int]] = [(views(), number) for number in numbers]
    return ProbeViews(samples(road), [(PLAIN, 0), *drawn])


def fitted(
    road: Path, student: Network, *numbers: int, holdout: bool = True, folder: Path | None = None, **changes: Any
) -> ProbeResult:
    entry = changes.pop("entry", HARD)
    scored = ProbeViews(held(road), [(PLAIN, 0)]) if holdout else None
    chosen = objectives(student, entry)
    settings = config(**changes)
    given = seen(road, *numbers)
    return probe(student, chosen, given, scored, settings, seed=0, folder=folder, progress=Silent())


def standard(vectors: np.ndarray) -> np.ndarray:
    deviation = vectors.std(0)
    return (vectors - vectors.mean(0)) / np.where(deviation > 0, deviation, 1)


def test_embeddings_are_what_the_classifier_is_given(road: Path):
    student = network()
    said = embed(student, seen(road, 5), config(), Silent())
    assert said.shape == (2, 48, 16)
    rows = np.arange(3, 9)
    images = samples(road).read(rows)
    drawn = views().apply(images, views().parameters(5, samples(road).positions[rows]))
    student.eval()
    for number, pixels in enumerate([images, drawn]):
        with torch.inference_mode():
            expected = student(pixels).embedding
        torch.testing.assert_close(said[number, 3:9], expected, rtol=1e-5, atol=1e-6)


def test_embeddings_are_the_same_by_worker_processes(road: Path):
    one, two = (embed(network(), seen(road, 1), config(workers=count), Silent()) for count in (0, 2))
    assert torch.equal(one, two)


@pytest.mark.parametrize("kind", [SMALL, VIT])
def test_the_classifier_is_sklearns_of_standardised_embeddings(road: Path, kind: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipeline.training.probe_fit, "DECAYS", (0.03,))
    student = network(kind)
    vectors = embed(student, seen(road, 1), config(), Silent()).flatten(0, 1).numpy()
    labels = np.tile(samples(road).labels, 2)
    found = fitted(road, student, 1)
    standardised = standard(vectors)
    # C is the weight of the summed loss against |W|²/2.
    oracle = LogisticRegression(C=1 / (len(labels) * found.decay), tol=1e-8, max_iter=5000).fit(standardised, labels)
    expected = oracle.decision_function(standardised)
    with torch.no_grad():
        logits = student.model.get_classifier()(torch.from_numpy(vectors)).numpy()
    centred = logits - logits.mean(1, keepdims=True)  # logits are free up to a constant
    np.testing.assert_allclose(centred, expected - expected.mean(1, keepdims=True), atol=2e-3)
    assert found.loss == pytest.approx(-oracle.predict_log_proba(standardised)[range(96), labels].mean(), rel=1e-3)


def test_the_rest_of_the_network_is_as_it_was(road: Path):
    student, before = network(), network().model.state_dict()
    fitted(road, student)
    changed = {name for name, value in student.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_what_is_said_of_the_holdout_is_what_the_network_gets(road: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipeline.training.probe_fit, "DECAYS", ALL)
    student = network()
    found = fitted(road, student, 0, 1)
    others = held(road)
    assert others.labels is not None
    top1 = measure(predict(student, others, PLAIN), others.labels).top1
    assert found.holdout == pytest.approx(top1)
    assert top1 >= 0.75  # of four classes, by random features
    assert (found.views, found.decay in ALL) == (3, True)


def test_the_penalty_is_the_best_on_the_holdout(road: Path, monkeypatch: pytest.MonkeyPatch):
    """By accuracy, and by the likelihood where that is the same."""
    others, scores = held(road), {}
    assert others.labels is not None
    decays = (100.0, 0.03, 1e-6)
    for decay in decays:
        monkeypatch.setattr(pipeline.training.probe_fit, "DECAYS", (decay,))
        student = network()
        fitted(road, student)
        metrics = measure(predict(student, others, PLAIN), others.labels)
        scores[decay] = (metrics.top1, -metrics.nll)
    monkeypatch.setattr(pipeline.training.probe_fit, "DECAYS", decays)
    assert fitted(road, network()).decay == max(decays, key=lambda decay: scores[decay]) == 0.03


def test_without_a_holdout_all_images_are_learnt_from(road: Path):
    student = network()
    found = fitted(road, student, holdout=False)
    assert found.holdout is None
    vectors = embed(student, seen(road), config(), Silent())[0].numpy()
    standardised = standard(vectors)
    labels = samples(road).labels
    oracle = LogisticRegression(C=1 / (48 * found.decay), tol=1e-8, max_iter=5000).fit(standardised, labels)
    assert found.loss == pytest.approx(-oracle.predict_log_proba(standardised)[range(48), labels].mean(), rel=1e-3)


def test_without_a_holdout_a_fifth_of_the_images_is_set_aside_in_all_their_views(
    road: Path, monkeypatch: pytest.MonkeyPatch
):
    """While the penalty is chosen: each image is learnt from or judged by, never both."""
    fit, learnt, judged = pipeline.training.probe_fit.ProbeFit, [], []
    minimise, score = fit._minimise, fit._score

    def learning(self: Any, rows: Any, decay: float) -> None:
        learnt.append(set(rows.samples.tolist()))
        minimise(self, rows, decay)

    def judging(self: Any, rows: Any) -> tuple[float, float]:
        judged.append(set(rows.samples.tolist()))
        return score(self, rows)

    monkeypatch.setattr(fit, "_minimise", learning)
    monkeypatch.setattr(fit, "_score", judging)
    fitted(road, network(), 1, 2, holdout=False)
    everything = set(range(48))
    assert judged == [judged[0]] * 2
    assert 4 <= len(judged[0]) <= 17
    assert learnt == [everything - judged[0]] * 2 + [everything]


def test_twice_the_same(road: Path):
    one, two = network(), network()
    fitted(road, one, 0)
    torch.rand(3)
    fitted(road, two, 0)
    assert same(one.model.state_dict(), two.model.state_dict())


def test_options_of_the_objective_and_balanced_sampling_are_learnt_by(road: Path):
    states = {}
    for name, changes in {
        "plain": {},
        "smooth": {"entry": {**HARD, "label_smoothing": 0.2}},
        "balanced": {"sampling": "balanced"},
    }.items():
        student = network()
        fitted(road, student, **changes)
        states[name] = student.model.state_dict()
    assert not same(states["plain"], states["smooth"])
    # The classes of these samples have twelve each: balanced already.
    torch.testing.assert_close(states["plain"]["fc.weight"], states["balanced"]["fc.weight"], rtol=0.05, atol=0.02)


def test_balanced_rows_are_drawn_anew_for_each_view():
    labels = torch.tensor([0] * 9 + [1] * 3)
    vectors = torch.arange(48.0).reshape(2, 12, 2)
    rows = pipeline.training.linear_probe._rows(vectors, labels, config(sampling="balanced"), 7)
    found = []
    for view in range(2):
        part = slice(12 * view, 12 * view + 12)
        found.append(rows.samples[part])
        assert torch.equal(rows.vectors[part], vectors[view, found[view]])
        assert torch.equal(rows.labels[part], labels[found[view]])
        assert rows.labels[part].bincount().tolist() == [6, 6]
    assert found[0].unique().tolist() != found[1].unique().tolist()  # six of the nine


def test_a_probe_that_was_fitted_is_not_fitted_again(road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first, again = network(), network()
    found = fitted(road, first, folder=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.training.linear_probe, "embed", None)
        assert fitted(road, again, folder=tmp_path) == found
    assert same(first.model.state_dict(), again.model.state_dict())
    (tmp_path / "probe.pt").write_bytes(b"half a file")
    third = network()
    assert fitted(road, third, folder=tmp_path).decay == found.decay
    assert same(first.model.state_dict(), third.model.state_dict())


def test_features_that_never_vary_do_no_harm(road: Path):
    student = network()
    with torch.no_grad():
        last = student.model.layer3[-1]
        last.bn2.weight[3] = 0  # the shortcut is left, which the next line ends
        student.model.fc.weight[:, 3] = 0
    fitted(road, student)
    assert all(value.isfinite().all() for value in student.model.state_dict().values())


@pytest.mark.parametrize(
    ("holdout", "changes", "copies"), [(True, {}, 1), (True, {"sampling": "balanced"}, 2), (False, {}, 2)]
)
def test_more_than_memory_is_meant_for_is_refused_before_work(
    road: Path, monkeypatch: pytest.MonkeyPatch, holdout: bool, changes: dict[str, Any], copies: int
):
    """48 images in 2 views: embeddings of 16 numbers, and four times the logits of 4 classes."""
    gigabytes = 4 * 96 * (copies * 16 + 4 * 4) / 2**30
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.training.linear_probe, "embed", None)
        with pytest.raises(ConfigError, match=r"train\.probe: is too many views for memory") as error:
            fitted(road, network(), 1, holdout=holdout, resident_gigabytes=gigabytes * 0.999, **changes)
    assert "raise resident_gigabytes" in str(error.value)
    monkeypatch.setattr(pipeline.training.probe_fit, "DECAYS", (0.03,))
    fitted(road, network(), 1, holdout=holdout, resident_gigabytes=gigabytes, **changes)


def tensors() -> list[torch.Tensor]:
    """All that Python knows of."""
    return [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]


@pytest.mark.parametrize(
    ("holdout", "changes", "copies"), [(True, {}, 1), (True, {"sampling": "balanced"}, 1), (False, {}, 2)]
)
def test_no_more_embeddings_are_held_than_were_counted(
    road: Path, monkeypatch: pytest.MonkeyPatch, holdout: bool, changes: dict[str, Any], copies: int
):
    """Of the 48 training images in 5 views, whenever a classifier is fitted; beside the 12 held out in one."""
    minimise, most = pipeline.training.probe_fit.ProbeFit._minimise, 0
    gc.collect()
    before = tensors()
    others = {id(tensor) for tensor in before}

    def counting(fit: Any, rows: Any, decay: float) -> None:
        nonlocal most
        minimise(fit, rows, decay)
        wide = [tensor for tensor in tensors() if tensor.shape[-1:] == (16,) and id(tensor) not in others]
        stores = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in wide}
        most = max(most, sum(size for size in stores.values() if size > 4 * 12 * 16))

    monkeypatch.setattr(pipeline.training.probe_fit.ProbeFit, "_minimise", counting)
    fitted(road, network(), 1, 2, 3, 4, holdout=holdout, **changes)
    assert 4 * 16 * 48 * 5 <= most <= copies * 4 * 16 * 48 * 5


def test_the_probe_alone_is_a_run_of_no_epochs(road: Path):
    student = network()
    found = fitted(road, student)
    run = found.run(student, config())
    assert run.network is student
    assert run.history.rows[0]["epoch"] == 0
    assert run.history.rows[0]["holdout_top1"] == found.holdout
    assert run.seconds == found.seconds


def test_classes_by_a_probe_of_embeddings_are_those_of_a_logistic_regression():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 3
    centres = 2 * torch.randn(3, 6, generator=generator)
    bank = centres[labels] + torch.randn(200, 6, generator=generator)
    embeddings = centres[labels[:90]] + torch.randn(90, 6, generator=generator)
    before = bank.clone()
    found = pipeline.training.linear_probe.probed_classes(bank, labels, embeddings, torch.device("cpu"))
    assert torch.equal(bank, before)
    oracle = LogisticRegression(max_iter=5000).fit(bank.double().numpy(), labels.numpy())
    assert (found.numpy() == oracle.predict(embeddings.double().numpy())).mean() > 0.95
    unlabeled = torch.where(torch.arange(200) < 100, labels, -1)
    some = pipeline.training.linear_probe.probed_classes(bank, unlabeled, embeddings, torch.device("cpu"))
    fewer = pipeline.training.linear_probe.probed_classes(bank[:100], labels[:100], embeddings, torch.device("cpu"))
    assert torch.equal(some, fewer)


def test_a_probe_is_fitted_reproducibly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What that means on a GPU: tests/models/test_device.py."""
    fitted: list[list[torch.device]] = []
    active = ActiveDevices(monkeypatch, "pipeline.training.linear_probe")
    monkeypatch.setattr(pipeline.training.linear_probe.ProbeFit, "best", lambda *given: fitted.append(list(active.now)))
    pipeline.training.linear_probe.probed_classes(torch.eye(3), torch.arange(3), torch.eye(3), torch.device("cpu"))
    assert fitted == [[torch.device("cpu")]]
