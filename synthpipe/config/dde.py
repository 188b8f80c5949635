"""Options of ``kind: dde``: a density of clean images, and of degraded ones beside it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from synthpipe.config.degrade import DegradeOptions
from synthpipe.config.reader import Options
from synthpipe.config.run import AUGMENT_MEANING, Augment, DomainOptions, ReadingOptions, RunOptions
from synthpipe.errors import counted

__all__ = [
    "CLEAN_NAME",
    "CorruptionDomain",
    "DDEDataOptions",
    "DDEModelOptions",
    "DegradeDomain",
    "DegradedDomain",
    "Family",
    "ImagesDomain",
    "TrainDDEOptions",
]

#: Name of the first domain of every estimator.
CLEAN_NAME = "clean"
#: The only list of synthetic corruptions; :mod:`synthpipe.transforms.corruptions` has what each does.
Family = Literal["jpeg", "blur", "upscale", "noise", "screen", "page"]
#: Domains' names become column names of score files.
_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
_NAME_MEANING = "name of the domain, also of its columns in score files; small letters, digits and underscores"


class CorruptionDomain(Options):
    """Clean crops with a synthetic corruption of every strength."""

    name: _Name = Field(description=_NAME_MEANING)
    type: Literal["corruption"] = Field(description="chooses a synthetic corruption")
    family: Family | Annotated[tuple[Family, ...], Field(min_length=1)] = Field(
        description="one corruption, or several of which each image gets one"
    )

    @property
    def families(self) -> tuple[Family, ...]:
        """The families, as a tuple."""
        return (self.family,) if isinstance(self.family, str) else self.family


class ImagesDomain(DomainOptions):
    """The user's own degraded images."""

    name: _Name = Field(description=_NAME_MEANING)
    type: Literal["images"] = Field(description="chooses images of your own")


class DegradeDomain(Options):
    """Clean crops through a degradation at full size, such as a trained DeFlow."""

    name: _Name = Field(description=_NAME_MEANING)
    type: Literal["degrade"] = Field(description="chooses a degradation at full size")
    degrade: DegradeOptions = Field(description="what degrades the clean crops; they keep their size")


DegradedDomain = Annotated[CorruptionDomain | ImagesDomain | DegradeDomain, Field(discriminator="type")]


class DDEModelOptions(Options):
    """Arguments of :class:`synthpipe.density.DDE`; its domains follow from the data."""

    channels: Literal[1, 3] = Field(1, description="1: luma, what most corruptions show in; 3: colour")
    width: int = Field(16, ge=1, description="channels inside")
    depth: int = Field(6, ge=2, description="3x3 convolutions; a pixel sees 2 * depth + 1 pixels across")
    outputs: int = Field(
        8, ge=1, description="channels of each domain's head; half the sum of their squares is the energy"
    )
    sigma_range: tuple[float, float] = Field(
        (0.01, 0.25), description="[low, high]: noise levels on the [0, 1] scale, drawn log-uniformly"
    )

    @model_validator(mode="after")
    def _check(self) -> DDEModelOptions:
        if not 0 < self.sigma_range[0] < self.sigma_range[1]:
            raise ValueError("expected 0 < low < high in 'sigma_range'")
        return self

    def arguments(self, domains: tuple[str, ...]) -> dict[str, Any]:
        """Keyword arguments for :class:`synthpipe.density.DDE` with these ``domains``."""
        return {**self.model_dump(), "domains": list(domains)}


class DDEDataOptions(ReadingOptions):
    """Clean images and any number of degraded domains; every batch holds as many crops of each."""

    clean: DomainOptions = Field(description="the clean images")
    degraded: tuple[DegradedDomain, ...] = Field(
        (), description="degraded domains, each with a head of its own beside the clean one's"
    )
    context: int = Field(
        64, ge=16, description="side of what is cut from an image and degraded, in pixels: crops meet no border of it"
    )
    crop: int = Field(32, ge=8, description="side of the crops that the loss sees, in pixels; anywhere within it")
    crops_per_context: int = Field(2, ge=1, description="crops from each context: less to decode and to degrade")
    grey: float = Field(0.0, ge=0, le=1, description="share of images that a density of colour sees without it")
    batch_size: int = Field(
        40, ge=1, description="crops per step, a multiple of domains * processes * crops_per_context"
    )
    augment: Augment = Field("dihedral", description=AUGMENT_MEANING)

    @model_validator(mode="after")
    def _check(self) -> DDEDataOptions:
        names = self.domains
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"expected a name of its own for each domain ('clean' is taken), got {twice} twice")
        if self.crop > self.context:
            raise ValueError(f"expected 'crop' of at most 'context', {self.context}, got {self.crop}")
        share = len(names) * self.crops_per_context
        if self.batch_size % share:
            raise ValueError(
                f"expected 'batch_size' to be a multiple of {share} ({counted(len(names), 'domain')}, "
                f"{counted(self.crops_per_context, 'crop')} from each context), got {self.batch_size}"
            )
        return self

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of all domains, the clean one first."""
        return (CLEAN_NAME, *(domain.name for domain in self.degraded))


class TrainDDEOptions(RunOptions):
    """``kind: dde``: a denoising density estimator of images, one head for each domain."""

    examples: ClassVar = (
        """\
kind: dde
run_dir: runs/dde
data:
  clean: {folder: /data/clean_photos}
  degraded:
    - {name: jpeg, type: corruption, family: jpeg}
    - {name: scraped, type: images, folder: /data/bad_photos}
  batch_size: 48
""",
    )

    kind: Literal["dde"] = Field("dde", description="chooses this kind of training")
    model: DDEModelOptions = Field(DDEModelOptions(), description="the estimator's network")
    data: DDEDataOptions = Field(description="clean images and degraded domains")

    @model_validator(mode="after")
    def _check(self) -> TrainDDEOptions:
        if self.precision == "16-mixed":
            raise ValueError(
                "expected precision 32 or bf16-mixed, got 16-mixed: what scaling the loss does to the gradient of a "
                "gradient in float16 was never measured; bf16-mixed was"
            )
        return self
