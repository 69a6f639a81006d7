"""Names the parts of the benchmark: the question of each, its deadline, and which of its figures a page shows."""

from __future__ import annotations

from dataclasses import dataclass

BATCHES, SETS = (64, 128, 512), ("hard", "kd", "lfcc", "crcd")
MODELS = ("ResNet-20", "ViT")
TRAINED = (("ResNet-20", "kd"), ("ResNet-20", "lfcc"), ("ViT", "kd"), ("ResNet-20", "vkd"), ("ResNet-20", "skd"))
STUDENTS = (1, 2, 4, 8)
"""What is told apart in names: batches, objective sets, networks, what `train.capture` trains, students at once."""


@dataclass(frozen=True)
class Part:
    """One question.

    Args:
        name: of the part, and of its module's function: `module:function`.
        seconds: its deadline; what is not measured by then is left out.
        question: that it answers.
        shown: names of measures and facts, in the order of the page's table.
    """

    name: str
    function: str
    seconds: float
    question: str
    shown: tuple[str, ...]


def _of_steps() -> tuple[str, ...]:
    rows = [f"{model}, batch 128, {each}" for model in MODELS for each in SETS]
    rows += [f"{model}, batch {batch}, kd" for model in MODELS for batch in BATCHES if batch != 128]
    rows += [
        f"{model}, batch 128, kd: {what}" for model in MODELS for what in ("operations", "waits", "the chip's share")
    ]
    return tuple(rows)


PARTS = (
    Part(
        "teacher-small",
        "gpu_parts.passes:small",
        45,
        "What does a pass of the teacher reach against its bare forward: ResNet-56, 32 px?",
        ("bare forward", "rendering, one thread", "cache-teacher", "cache-teacher over bare forward"),
    ),
    Part(
        "step-cost",
        "gpu_parts.steps:cost",
        70,
        "What does a step cost?",
        _of_steps(),
    ),
    Part(
        "capture",
        "gpu_parts.graphs:capture",
        50,
        "Is the eager step, captured by torch.cuda.graph, the same bit by bit, and what does it gain?",
        tuple(
            f"{model}, {each}: {what}"
            for model, each in (*(("ResNet-20", each) for each in SETS), ("ViT", "kd"))
            for what in ("same bits", "captured over eager")
        )
        + tuple(
            f"{model}, {each}, train.capture: {what}" for model, each in TRAINED for what in ("same bits", "over eager")
        ),
    ),
    Part(
        "side-by-side",
        "gpu_parts.graphs:side_by_side",
        40,
        "What do S students give side by side (`--side-by-side`), and has each the bits that it has alone?",
        (*(f"{count} students" for count in STUDENTS), "same bits as alone"),
    ),
    Part(
        "attention",
        "gpu_parts.attending:attention",
        40,
        "What does attention by plain products cost against fused kernels, and which of them repeat themselves?",
        tuple(
            f"{tokens} tokens, {way}{what}"
            for tokens in (65, 197)
            for way in ("plain products", "fused", "flash, deterministic")
            for what in ("", ": memory", ": repeats itself")
        ),
    ),
    Part(
        "twice-the-same",
        "gpu_parts.repeating:twice",
        30,
        "Do two runs have the same bits?",
        tuple(f"{model}, {each}" for model in MODELS for each in ("kd", "lfcc", "crcd")),
    ),
    Part(
        "arithmetic",
        "gpu_parts.repeating:arithmetic",
        25,
        "What do TF32 and bfloat16 gain over float32, and by how much do logits differ?",
        tuple(
            f"{model}: {what}"
            for model in MODELS
            for what in ("tf32 over float32", "bfloat16 over float32", "error of float32", "error of tf32")
        ),
    ),
    Part(
        "optimisers",
        "gpu_parts.optimisers:optimisers",
        20,
        "What do fused optimisers gain over the loop, and are they the same?",
        (
            *(
                f"{optimiser}: {what}"
                for optimiser in ("sgd", "adamw")
                for what in ("foreach over loop", "fused over loop", "foreach: same bits", "fused: same bits")
            ),
            "fused: skips a step that is not finite",
        ),
    ),
    Part(
        "batches",
        "gpu_parts.batches:batches",
        45,
        "What do batches that lie on the device gain over the loader?",
        (
            "loader alone",
            "hard, one batch from memory",
            "kd, loader",
            "kd, resident",
            "kd with the loader over hard from memory",
            "resident over loader",
            "resident batches are the loader's",
        ),
    ),
    Part(
        "rendering",
        "gpu_parts.rendering:rendering",
        25,
        "What does a core render?",
        (
            "JPEG, decoding, one thread",
            "JPEG, views, one thread",
            "JPEG, views, all cores",
            "32 px, views, one thread",
            "32 px, views, on the device",
            "32 px: the device makes the same pixels",
        ),
    ),
    Part(
        "teacher-photographs",
        "gpu_parts.passes:photographs_run",
        45,
        "What does a pass of the teacher reach against its bare forward: ResNet-50 from JPEGs?",
        ("bare forward", "cache-teacher", "cache-teacher over bare forward"),
    ),
    Part(
        "compile",
        "gpu_parts.compiling:compiling",
        60,
        "What does torch.compile gain?",
        tuple(
            f"{what}{more}"
            for what in ("ResNet-20, step", "ResNet-56, forward", "ViT, step", "ResNet-20, step, compiled and captured")
            for more in (": eager over compiled", ": compiling")
        ),
    ),
)
"""In the order in which they run: what the next designs wait for comes first."""
