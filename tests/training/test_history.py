from __future__ import annotations

from pipeline.training import History
from pipeline.training.history import diverging, epoch_note


def history(*scores: float | None) -> History:
    return History([{"epoch": i + 1.0} | ({} if s is None else {"holdout_top1": s}) for i, s in enumerate(scores)])


def test_the_best_epoch_is_the_first_of_the_highest():
    assert history(0.2, 0.5, 0.4, 0.5).best() == 2
    assert history().best() == history(None, None).best() == 0


def test_stale_after_so_many_epochs_that_were_no_better():
    scores = [0.2, 0.5, 0.5, 0.4, 0.45]
    assert [history(*scores[:n]).stale(3) for n in range(6)] == [False, False, False, False, False, True]
    assert not history(*scores).stale(None)
    assert not history(None, None, None).stale(1)


def test_a_note_has_the_terms_with_their_weights_and_the_best_so_far():
    means = {"loss": 1.13, "hard-label/cross-entropy": 2.3, "kd/kl": 1.0}
    weights = {"hard-label": 0.1, "kd": 0.9}
    note = epoch_note(history(0.25, 0.5, 0.375), 8, means, weights)
    assert note == (
        "epoch 3/8 loss 1.1300 = 0.1 x 2.3 hard-label/cross-entropy + 0.9 x 1 kd/kl, "
        "holdout 37.50%, best 50.00% in epoch 2"
    )
    sides = note.split(" = ")[1].split(",")[0].split(" + ")
    assert sum(float(side.split()[0]) * float(side.split()[2]) for side in sides) == means["loss"]
    alone = epoch_note(history(None), 8, {"loss": 2.3, "hard-label/cross-entropy": 2.3}, {"hard-label": 1.0})
    assert alone == "epoch 1/8 loss 2.3000"


def test_a_note_does_not_say_that_terms_add_up_where_teachers_are_dropped():
    means = {"loss": 3.0, "vkd-a/feature": 1.0, "vkd-b/feature": 1.5, "dropped/a": 0.5, "dropped/b": 0.1}
    note = epoch_note(history(None), 8, means, {"vkd-a": 1.0, "vkd-b": 1.0})
    assert note.endswith("loss 3.0000, teachers left out at random of 1 x 1 vkd-a/feature + 1 x 1.5 vkd-b/feature")


def rows(**columns: list[float | None]) -> list[dict[str, float]]:
    named = {name.replace("__", "/").replace("_", "-"): values for name, values in columns.items()}
    count = max(map(len, named.values()))
    return [
        {"epoch": i + 1.0, **{name: values[i] for name, values in named.items() if values[i] is not None}}
        for i in range(count)
    ]


def test_a_term_that_grows_with_the_loss_is_named():
    crcd = rows(loss=[31.0, 30.0, 80.0], hard_label__cross_entropy=[4.4, 4.0, 4.6], crcd__gradient=[15.0, 14.0, 60.0])
    assert diverging(crcd) == "crcd/gradient grew from 14 in epoch 2 to 60"
    assert [diverging(crcd[:n]) for n in (1, 2)] == ["", ""]
    note = epoch_note(History(crcd), 40, {"loss": 80.0, "crcd/gradient": 60.0}, {"crcd": 1.0})
    assert note == "epoch 3/40 loss 80.0000; crcd/gradient grew from 14 in epoch 2 to 60"


def test_what_grows_as_it_should_is_not_named():
    raised = rows(loss=[4.0, 9.0], kd__kl=[3.0, 2.5])
    small = rows(loss=[4.0, 3.5], ufd__low=[0.001, 0.02])
    later = rows(loss=[1.0, 9.0], lfcc__contrast=[None, 4.0], dropped__a=[0.1, 0.5])
    negative = rows(loss=[-4.0, -1.0], itrd__mutual=[-9.0, -2.0])
    assert [diverging(each) for each in (raised, small, later, negative)] == [""] * 4
