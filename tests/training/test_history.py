from __future__ import annotations

from pipeline.training import History


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
