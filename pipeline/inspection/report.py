"""Reports what was found out about a cache: its files, its views, its teacher."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.inspection.files import FilesReport
from pipeline.progress import size
from pipeline.store.location import StorePath

if TYPE_CHECKING:  # files alone are reported without torch
    from pipeline.inspection.static import LabelsReport
    from pipeline.inspection.teacher import Deviation, TeacherReport
    from pipeline.inspection.views import ViewsReport


HEADS = ("signal", "largest", "typical", "cosine", "least", "top-1", "same bits")


@dataclass
class CacheReport:
    """Holds what was found out about a cache.

    Args:
        path: of the cache.
        role: what it is for in an experiment; None if that is not known.
        files: what reading them found.
        views, labels, teacher: what comparing them found; None if they were not compared.
        unchecked: what was not checked, and why.
    """

    path: StorePath
    role: str | None
    files: FilesReport
    views: ViewsReport | None = None
    labels: LabelsReport | None = None
    teacher: TeacherReport | None = None
    unchecked: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """List everything that is wrong, for people; empty if the cache can be trusted as far as it was checked."""
        damaged = [f"{name}: {what}" for name, what in self.files.damaged.items()]
        others = (report.problems for report in (self.views, self.teacher) if report)
        return damaged + [line for lines in others for line in lines]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values, for programs; numbers that are not finite are null."""
        files = {"files": self.files.files, "bytes": self.files.bytes, "damaged": self.files.damaged}
        teacher = self.teacher and _teacher_facts(self.teacher)
        return {
            "path": self.path.as_posix(),
            "role": self.role,
            "fine": not self.problems,
            "problems": self.problems,
            "files": files,
            "views": self.views and asdict(self.views),
            "labels": self.labels and asdict(self.labels),
            "teacher": teacher,
            "unchecked": self.unchecked,
        }

    def text(self) -> str:
        """Return the report as a paragraph for people."""
        lines = [f"{self.path}{f' ({self.role})' if self.role else ''}", *self._files()]
        if self.views:
            same = "" if self.views.problems else ": the pixels that the teacher saw"
            lines.append(f"  views    {self.views.views:,} rendered again{same}")
            lines += [f"           WRONG  {line}" for line in self.views.problems]
        if self.teacher:
            lines += self._teacher(self.teacher)
        lines += [f"  note     {line}" for line in [*(self.labels.notes if self.labels else []), *self.unchecked]]
        return "\n".join(lines)

    def _files(self) -> list[str]:
        count, damaged = f"{self.files.files:,} files, {size(self.files.bytes)}", self.files.damaged
        if not damaged:
            return [f"  files    {count}: every checksum is right, nothing is missing or foreign"]
        return [f"  files    {count}", *(f"           WRONG  {name}: {what}" for name, what in damaged.items())]

    def _teacher(self, report: TeacherReport) -> list[str]:
        views = report.deviations[0].views
        lines = [f"  teacher  run again on {views:,} views on {report.run_on}"]
        if report.alike:
            lines.append("           as when the cache was made: outputs may differ by their encoding's rounding")
        else:
            made = "; ".join(report.made_on) or "an unknown device"
            allowed = f"cosines from {report.limits.cosine:g}, top-1 agreement from {report.limits.agreement:.0%}"
            lines += [
                f"           the cache was made on {made}:",
                f"           last bits may differ; let pass: {allowed}",
            ]
        table = [HEADS, *(_cells(each) for each in report.deviations)]
        widths = [max(len(row[i]) for row in table) for i in range(len(HEADS))]
        for name, *cells in table:
            right = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
            lines.append(f"             {name.ljust(widths[0])}  {right}".rstrip())
        if report.head and not report.head.different:
            lines.append("           its head is the stored one, bit for bit")
        return lines + [f"           WRONG  {line}" for line in report.problems]


def _teacher_facts(report: TeacherReport) -> dict[str, Any]:
    facts = {**asdict(report), "alike": report.alike}
    facts["asked_on"] = facts.pop("run_on")  # the key of version 0.1: programs read it
    return {**facts, "deviations": [_finite(asdict(each)) for each in report.deviations]}


def _cells(deviation: Deviation) -> tuple[str, ...]:
    agreement = "" if deviation.agreement is None else _percent(deviation.agreement)
    numbers = (f"{deviation.largest:.3g}", f"{deviation.typical:.3g}")
    cosines = (f"{deviation.cosine:.5f}", f"{deviation.least_cosine:.5f}")
    return (deviation.signal, *numbers, *cosines, agreement, _percent(deviation.equal))


def _percent(share: float) -> str:
    """Write a share in percent; `100 %` only if it is all."""
    return "100 %" if share == 1 else f"{min(math.floor(share * 1e4) / 1e2, 99.99):.2f} %"


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
