"""Describes one stage of a dvc.yaml: the command, what it reads, writes and depends on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.dvc_file.dependencies import code_of, written_in
from pipeline.version import installed_version
from pipeline.yaml_text import Raw


@dataclass(frozen=True)
class Stage:
    """Describes one stage of a dvc.yaml.

    Args:
        name: of the stage.
        command: its arguments after `pipeline`.
        deps: the data that it depends on.
        outs: what it writes.
        sections: dotted keys of the configuration that it reads.
        plugins: files of plug-ins that it depends on: text for Decant's, paths for the user's own.
        metrics: the file that DVC shows as numbers, None without one.
    """

    name: str
    command: str
    deps: Sequence[Path]
    outs: Sequence[Path]
    sections: Sequence[str]
    plugins: Collection[str | Path] = ()
    metrics: Path | None = None

    @property
    def code(self) -> str:
        """Return the command that it runs, without arguments; the stage depends on its code."""
        return self.command.partition(" ")[0]

    def entry(self, config: str, raw: Raw, up: str, *, with_code: bool) -> dict[str, Any]:
        """Return the stage as it stands in a dvc.yaml.

        Args:
            config: the configuration's file.
            raw: what it holds, since DVC refuses parameters that are not written there.
            up: the way from the dvc.yaml to the working directory.
            with_code: whether there is code to depend on.

        Without code, the command names the version of Decant that is installed: DVC runs what has another command.
        """
        decant, own = (sorted(file for file in self.plugins if isinstance(file, kind)) for kind in (str, Path))
        files = sorted([*code_of(self.code), *map(str, decant)]) if with_code else []
        version = None if with_code else installed_version()
        program = f"pipeline --require-version {version}" if version else "pipeline"
        words = self.command.split(" ", 1)
        # An output that exists is replaced by the command, which checks it, and not deleted by DVC, which does not.
        outs = [{out.as_posix(): {"persist": True}} for out in self.outs]
        body = {
            "wdir": up if up != "." else None,
            "cmd": " ".join([program, words[0], "--config", config, *words[1:]]),
            "deps": [*files, *(Path(path).as_posix() for path in (*own, *self.deps))],
            "params": [{config: [key for key in self.sections if written_in(raw, key)]}],
            "outs": outs,
            "metrics": [{self.metrics.as_posix(): {"persist": True}}] if self.metrics else None,
        }
        return {key: value for key, value in body.items() if value}
