"""Binds the students of an experiment: their networks, and how they are trained."""

from __future__ import annotations

import sys

import torch

from pipeline.errors import ModelError, PipelineError, first_line
from pipeline.experiment.networks import build
from pipeline.experiment.sections import views_learnt
from pipeline.experiment.students import training_of
from pipeline.models import NEUTRAL, Network, Preprocessing
from pipeline.models.preprocessing import height_and_width
from pipeline.planning.draft import Assembly, collected
from pipeline.planning.optimiser import require_optimiser
from pipeline.training import refuse_too_many_views
from pipeline.training.gpu_settings import refuse_without_gpu


def bind_networks(parts: Assembly) -> None:
    """Build the students that can be built, with the preprocessing that they will have.

    Args:
        parts: takes the students, and all that is wrong with them.
    """
    teacher, problems = parts.teacher, parts.problems
    used = Preprocessing(teacher.mean, teacher.std, teacher.interpolation) if teacher else NEUTRAL
    for name, config in parts.draft.students.items():
        with collected(problems, f"students.{name}"):
            student, guess = config.taught_by(config, used), parts.data is None
            network = build(student, parts.classes, seed=0, offline=True, any_classes=guess)
            parts.students[name] = network
            if parts.data:
                network.pixels.require(parts.data.channels)


def require_trainable(network: Network, count: int = 2) -> None:
    """Raise ModelError if a network computes nothing of some images while it is trained.

    Some do more then than otherwise: Inception's further classifiers want larger images than the network itself, and
    batch normalisation wants two numbers of a channel, which a map of one place has not in a batch of one image.

    Args:
        network: a student's, or a teacher's that is to be trained.
        count: images in a batch.
    """
    images = torch.zeros(count, len(network.mean), *height_and_width(network.input_size), dtype=torch.uint8)
    training = network.training
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            network.train()(images)
    except PipelineError:
        raise
    except Exception as error:  # whatever a module raises
        size = " x ".join(map(str, height_and_width(network.input_size)))
        larger = "`input_size`" if count > 1 else "`input_size` or `batch_size`"
        raise ModelError(
            f"{network.name} runs on images of {size} pixels, but not while it is trained",
            got=f"{type(error).__name__}: {first_line(error)}",
            fix=f"raise {larger}, or set the option of the model that leaves out what fails",
        ) from error
    finally:
        network.train(training)


def bind_training(parts: Assembly) -> None:
    """Check the settings of every student's training, and find how many views of a sample are in its batches.

    Args:
        parts: takes the numbers of views, and all that is wrong.
    """
    draft, data, problems = parts.draft, parts.data, parts.problems
    for name, config in draft.students.items():
        with collected(problems):
            training = training_of(draft.train, config, name)
            parts.views_per_step[name] = training.views_per_step
            parts.samples_per_batch[name] = training.batch_size // training.views_per_step
            parts.captured |= {name} if training.capture else set()
            with collected(problems, f"students.{name}"):
                if name in parts.students:
                    samples = parts.data.training.count if parts.data else training.samples_per_step
                    require_trainable(parts.students[name], min(2, training.smallest_batch(samples)))
            with collected(problems, note=f" (student {name})"):
                if name in parts.students:
                    require_optimiser(parts.students[name], training, "train")
            with collected(problems, note=f" (student {name})"):
                refuse_without_gpu(training)
            with collected(problems, note=f" (student {name})"):
                if data:
                    training.refuse_without("train", labels=data.training.labels is not None, holdout=data.scored)
            with collected(problems, note=f" (student {name})"):
                if draft.objectives and all(config.fresh for config in draft.objectives.values()):
                    continue  # views are drawn in every epoch, as many as a batch needs
                views = views_learnt(draft.views, draft.caches)
                refuse_too_many_views(training, sys.maxsize if views is None else views)
