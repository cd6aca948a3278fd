"""Whether a data set has drifted away from a golden report: for jobs that run every night."""

from dataclasses import dataclass

from pydantic import ValidationError

from ...schemas.errors import UserError
from ...schemas.report import REPORT_VERSION, ReportData
from ...stages.statistics import total_variation

MAX_DISTANCE = 0.1  # of a distribution: a tenth of its mass has moved
MAX_SHARE_CHANGE = 0.02  # of empty or quarantined images
SAMPLING = 3.0  # distances below what samples so small differ by anyway, times this, are no drift


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing that may have moved. `few`: too few values were there for the bound that was asked for."""

    name: str
    distance: float
    bound: float
    few: bool = False

    @property
    def moved(self) -> bool:
        """Whether it is beyond its bound."""
        return self.distance > self.bound


def read_report(path: str) -> ReportData:
    """A `report.json`. Raises UserError if it is none."""
    try:
        with open(path, "rb") as file:
            return ReportData.model_validate_json(file.read())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a report.json of an earlier report.") from None
    except ValidationError:
        raise UserError(
            f"{path} is no report of version {REPORT_VERSION}: make it anew from the golden data set."
        ) from None


def drift(data: ReportData, golden: ReportData, bound: float = MAX_DISTANCE) -> list[Drift]:
    """Total variation of every distribution, and changes of shares, each with its bound.

    Small samples differ by chance, by about the square root of bins over values: the bound is never below that.
    """
    found = []
    for name, mine in data.histograms.items():
        theirs = golden.histograms.get(name)
        if theirs is None or theirs.edges != mine.edges:
            raise UserError("The golden report was made by another version: make it anew from the golden data set.")
        used = sum(1 for a, b in zip(mine.counts, theirs.counts, strict=True) if a or b)
        fewest = max(1, min(mine.total, theirs.total))
        chance = SAMPLING * 0.4 * (used / fewest) ** 0.5 if mine.total and theirs.total else 0.0
        distance = total_variation(mine.counts, theirs.counts)
        found.append(Drift(mine.title, distance, min(0.9, max(bound, chance)), chance > bound))
    for name in ("empty", "quarantined"):
        shares = [getattr(d.totals, name) / max(1, d.totals.images) for d in (data, golden)]
        found.append(Drift(f"share of {name} images", abs(shares[0] - shares[1]), MAX_SHARE_CHANGE))
    return found
