"""A small member of every family of timm's, and what a walk through all that teachers and students do finds of it.

`python tests/models/families.py` walks through all of them and writes the table in docs/models.md. The long test
`test_families.py` walks through them and compares.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs/models.md"
LIMIT = 900
"""Seconds for one family, on a machine that does other things, too."""

IMG = {"img_size": 32}
FLOAT16 = 65504.0
"""The largest number of the encoding that is the default."""

NARROW = {"embed_dim": 96, "depth": 4, "num_heads": 3}


@dataclass(frozen=True)
class Member:
    """A model, what it is built with, and the side of its images. Its weights are random."""

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    size: int = 32


MEMBERS: dict[str, Member] = {
    "beit": Member("beit_base_patch16_224", {**IMG, **NARROW}),
    "byoanet": Member("lambda_resnet26t"),
    "byobnet": Member("test_byobnet"),
    "cait": Member("cait_xxs24_224", IMG),
    "coat": Member("coat_tiny", IMG),
    "convit": Member("convit_tiny", IMG),
    "convmixer": Member("convmixer_768_32"),
    "convnext": Member("test_convnext"),
    "cpubone": Member("cpubone_nano"),
    "crossvit": Member("crossvit_tiny_240"),
    "csatv2": Member("csatv2", size=64),
    "cspnet": Member("cs3darknet_focus_s"),
    "cspnext": Member("cspnext_tiny"),
    "davit": Member("davit_tiny"),
    "deepseek_vit": Member("deepseek_vit_412m", NARROW, size=56),
    "deit": Member("deit_tiny_distilled_patch16_224", IMG),
    "densenet": Member("densenet121"),
    "dla": Member("dla46x_c"),
    "dpn": Member("dpn48b"),
    "edgenext": Member("edgenext_xx_small"),
    "efficientformer": Member("efficientformer_l1", size=224),
    "efficientformer_v2": Member("efficientformerv2_s0", IMG),
    "efficientnet": Member("test_efficientnet"),
    "efficientvim": Member("efficientvim_m1"),
    "efficientvit_mit": Member("efficientvit_b0"),
    "efficientvit_msra": Member("efficientvit_m0"),
    "eva": Member("eva02_tiny_patch14_224", IMG),
    "fasternet": Member("fasternet_t0"),
    "fastvit": Member("fastvit_t8"),
    "focalnet": Member("focalnet_tiny_srf"),
    "gcvit": Member("gcvit_xxtiny", IMG),
    "gemma4_vit": Member("gemma4_vit_167m", NARROW, size=96),
    "ghostnet": Member("ghostnet_050"),
    "hardcorenas": Member("hardcorenas_a"),
    "hgnet": Member("hgnetv2_b0"),
    "hiera": Member("hiera_tiny_224", IMG),
    "hieradet_sam2": Member("hieradet_small"),
    "hrnet": Member("hrnet_w18_small"),
    "iformer": Member("iformer_t"),
    "inception_next": Member("inception_next_atto"),
    "inception_resnet_v2": Member("inception_resnet_v2", size=96),
    "inception_v3": Member("inception_v3", size=96),
    "inception_v4": Member("inception_v4", size=96),
    "lcnetv2": Member("lcnetv2_small"),
    "levit": Member("levit_128s", IMG),
    "lowformer": Member("lowformer_b0"),
    "mambaout": Member("test_mambaout"),
    "maxxvit": Member("coatnet_pico_rw_224", IMG),
    "metaformer": Member("poolformer_s12"),
    "mlp_mixer": Member("gmlp_ti16_224", IMG),
    "mobilenetv3": Member("lcnet_050"),
    "mobilenetv5": Member("mobilenetv5_base"),
    "mobilevit": Member("mobilevit_xxs"),
    "mvitv2": Member("mvitv2_tiny"),
    "naflexvit": Member("naflexvit_base_patch16_gap", {**IMG, **NARROW}),
    "nasnet": Member("nasnetalarge"),
    "nest": Member("nest_tiny", IMG),
    "nextvit": Member("nextvit_small"),
    "nfnet": Member("test_nfnet"),
    "pit": Member("pit_ti_224", IMG),
    "pnasnet": Member("pnasnet5large"),
    "pvt_v2": Member("pvt_v2_b0"),
    "qwen3_vit": Member("qwen3_vit_88m", NARROW),
    "rdnet": Member("rdnet_tiny"),
    "regnet": Member("regnetx_002"),
    "repghost": Member("repghostnet_050"),
    "repvit": Member("repvit_m0_9"),
    "res2net": Member("res2net50_48w_2s"),
    "resnest": Member("resnest14d"),
    "resnet": Member("test_resnet"),
    "resnetv2": Member("resnetv2_18"),
    "rexnet": Member("rexnet_100"),
    "selecsls": Member("selecsls42"),
    "senet": Member("legacy_seresnet18"),
    "sequencer": Member("sequencer2d_s"),
    "shvit": Member("shvit_s1"),
    "sknet": Member("skresnet18"),
    "starnet": Member("starnet_s050"),
    "swiftformer": Member("swiftformer_xs"),
    "swin_transformer": Member("swin_tiny_patch4_window7_224", IMG),
    "swin_transformer_v2": Member("swinv2_tiny_window8_256", IMG),
    "swin_transformer_v2_cr": Member("swinv2_cr_tiny_224", IMG),
    "tiny_vit": Member("tiny_vit_5m_224"),
    "tnt": Member("tnt_s_legacy_patch16_224", IMG),
    "tresnet": Member("tresnet_m"),
    "twins": Member("twins_svt_small"),
    "vgg": Member("vgg11", {"mlp_ratio": 0.125}),
    "visformer": Member("visformer_tiny", IMG),
    "vision_transformer": Member("test_vit"),
    "vision_transformer_hybrid": Member("vit_tiny_r_s16_p8_224", IMG),
    "vision_transformer_relpos": Member("test_vit_relpos", IMG),
    "vision_transformer_sam": Member("samvit_base_patch16", {**IMG, **NARROW, "global_attn_indexes": [3]}),
    "vitamin": Member("vitamin_small_224", IMG),
    "volo": Member("volo_d1_224", IMG),
    "vovnet": Member("ese_vovnet19b_slim_dw"),
    "xception": Member("xception"),
    "xception_aligned": Member("xception41"),
    "xcit": Member("xcit_nano_12_p16_224"),
}


@dataclass(frozen=True)
class Found:
    """What docs/models.md says of a member.

    maps: sides of the blocks' maps. embedding: its length. mean_of: the map whose mean it is. beside: what is special.
    """

    maps: str
    embedding: str
    mean_of: str
    beside: str

    def row(self, family: str) -> str:
        """The family's line in the table."""
        member = MEMBERS[family]
        options = ", ".join(f"{key}: {value}" for key, value in member.options.items())
        called = f"`{member.model}`" + (f" `{{{options}}}`" if options else "")
        cells = (family, called, str(member.size), self.maps, self.embedding, self.mean_of, self.beside)
        return f"| {' | '.join(cells)} |"


def walk_through(family: str) -> None:
    """Walk through a family's member and print what was found as JSON, as the last line."""
    from network_walk import pixels, walk

    from pipeline.models import build_network

    member = MEMBERS[family]
    network = build_network(member.model, 5, input_size=member.size, options=member.options, seed=0)
    blocks = {tap: shape for tap, shape in network.taps.items() if tap.startswith("block")}
    maps, blocks_end = ", ".join(str(height) for _, height, _ in blocks.values()), f"`{list(blocks)[-1]}`"
    with tempfile.TemporaryDirectory() as folder:
        said = walk(network, pixels(2, 3, member.size, member.size), Path(folder))
    mean_of = blocks_end if network.linear else "`final`" if network.linear_final else "-"
    beside = [
        "" if network.linear_classifier else "no linear head",
        "" if "final" in network.taps else "no `final`",
        "" if largest(said) <= FLOAT16 else "random weights exceed float16",
    ]
    embedding = " x ".join(map(str, network.taps["embedding"]))
    print(json.dumps(asdict(Found(maps, embedding, mean_of, "; ".join(filter(None, beside))))))


def largest(said: Any) -> float:
    """The largest magnitude in signals."""
    return max(float(each.detach().abs().max()) for each in (said.logits, said.embedding, *said.features.values()))


def table(rows: dict[str, str]) -> str:
    return "\n".join(rows[family] for family in sorted(rows))


def rows_of(page: str) -> dict[str, str]:
    """The lines of the table by family."""
    lines = re.findall(r"^\| (\w+) (\| `\w+`.*\|)$", page, re.MULTILINE)
    return {family: f"| {family} {rest}" for family, rest in lines if family in MEMBERS}


def outcomes(families: list[str]) -> Iterator[tuple[str, int | None, str]]:
    """Walk through each in a process of its own, one at a time: its exit code, None if it took too long; its words."""
    from processes import begin_process

    with tempfile.TemporaryDirectory() as folder:
        for family in families:
            log = Path(folder) / f"{family}.log"
            process = begin_process(walk_through, family, log=log)
            process.join(LIMIT)
            code = process.exitcode
            if code is None:
                process.kill()
                process.join()
            yield family, code, log.read_text()


def main(families: list[str]) -> None:
    """Walk through families and put what was found into the page; say what went wrong."""
    for family, code, said in outcomes(families or list(MEMBERS)):
        page = PAGE.read_text()
        rows = rows_of(page)
        lines = said.strip().splitlines() or [""]
        print(f"{time.strftime('%H:%M:%S')} {family} {code} {lines[-1]}", flush=True)
        if code != 0:
            print("    " + "\n    ".join(lines[-12:]), flush=True)
            continue
        before = table(rows)
        rows[family] = Found(**json.loads(lines[-1])).row(family)
        PAGE.write_text(page.replace(before, table(rows)))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main(sys.argv[1:])
