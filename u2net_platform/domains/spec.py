"""What a domain declares about itself: its `domain.toml` as a frozen, fully checked object."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from u2net_platform.errors import BrokenPlugin, InvalidSpec, MissingFile

# Names become keys of a torch ModuleDict, folders and MLflow models: letters, digits, `-`, `_`,
# none of what ModuleDict has itself, nor the other owner of weights.
NAME_PATTERN = r"^[a-z][a-z0-9_-]{0,62}$"
RESERVED_NAMES = frozenset(
    """
    add_module apply backbone bfloat16 buffers call_super_init children clear compile cpu
    cuda double dump_patches eval extra_repr float forward get_buffer get_extra_state
    get_parameter get_submodule half ipu items keys load_state_dict modules mtia
    named_buffers named_children named_modules named_parameters parameters pop
    register_backward_hook register_buffer register_forward_hook register_forward_pre_hook
    register_full_backward_hook register_full_backward_pre_hook
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module
    register_parameter register_state_dict_post_hook register_state_dict_pre_hook
    requires_grad_ set_extra_state set_submodule share_memory state_dict to to_empty train
    training type update values xpu zero_grad
    """.split()  # noqa: SIM905
)

Positive = Annotated[float, Field(gt=0)]
ZYX = tuple[Positive, Positive, Positive]
Side = Annotated[int, Field(ge=1)]
Sides = tuple[Side, Side, Side]
Stride = Literal[1, 2]
Strides = tuple[Stride, Stride, Stride]
Kernel = Literal[1, 3]
Kernels = tuple[Kernel, Kernel, Kernel]
Value = Annotated[int, Field(gt=0, le=255)]  # of a label file

LETTER_L = re.compile(r"(?<![a-z])l(?=t?(?![a-z0-9]))")  # of left, and not of L5
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x80-\x9f]")  # all but white space, and DEL
IGNORED = 255  # in label volumes: a voxel that no loss and no metric looks at


class Declared(BaseModel):
    """Base of everything that is read from TOML: immutable, and no key that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _shows_as_it_is(cls, value: Any) -> Any:
        """A stranger's words must not move a terminal's cursor."""
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and CONTROL.search(text):
                raise ValueError("holds control characters")
        return value


class Label(Declared):
    """One class of the output, and the values that stand for it in the source labels.

    Several values merge into one class, as tumour and liver do in the paper.
    """

    name: str = Field(min_length=1)
    values: tuple[Value, ...] = Field(min_length=1)


class Unlabelled(Declared):
    """Classes that nobody has drawn in some cases: what is background there may well be theirs.

    cases: patterns of case ids, as `site_b_*`.
    """

    labels: tuple[str, ...] = Field(min_length=1)
    cases: tuple[str, ...] = Field(min_length=1)


class Intensity(Declared):
    """How raw intensities become network input.

    `image`: clip to percentiles of the image, then z-score with the image's own statistics
    (paper, section 3). `dataset`: clip and z-score with the statistics of the foreground of the
    whole data set, for modalities whose numbers mean something, as CT's do.
    """

    statistics: Literal["image", "dataset"] = "image"
    clip_percentiles: tuple[float, float] = (2.0, 98.0)

    @model_validator(mode="after")
    def _percentiles_ascend(self) -> Self:
        low, high = self.clip_percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"clip_percentiles must ascend within 0..100, not {low}, {high}")
        return self


class Geometry(Declared):
    """The grid that the network sees."""

    spacing_zyx_mm: ZYX | Literal["median"] = "median"
    image_interpolation: Literal["bspline", "linear"] = "bspline"
    label_interpolation: Literal["nearest", "linear"] = "nearest"


class Augmentation(Declared):
    """Which random changes leave an image of this domain plausible. Axes are z, y, x.

    The paper's code turns by up to 180 degrees; no patient lies so, and parts that only their
    place tells apart, as the two of the hippocampus, would change places. 30 is nnU-Net's.
    """

    mirror_axes: tuple[Literal["z", "y", "x"], ...] = ("x",)
    rotation_axes: tuple[Literal["z", "y", "x"], ...] = ("z",)
    rotation_degrees: float = Field(default=30.0, ge=0, le=180)
    scaling: tuple[Positive, Positive] = (0.75, 1.25)
    elastic: bool = True

    @model_validator(mode="after")
    def _scaling_ascends(self) -> Self:
        if self.scaling[0] > self.scaling[1]:
            raise ValueError(f"scaling must ascend, not {self.scaling[0]}, {self.scaling[1]}")
        return self


class Evaluation(Declared):
    """`surface_tolerance_mm`: two surfaces closer than this count as the same."""

    surface_tolerance_mm: Positive = 1.0


class DeclaredBorder(Declared):
    """Two classes that readers part with one slice across an axis of the canonical volume."""

    between: tuple[str, str]
    axis: Literal["z", "y", "x"]


class Postprocessing(Declared):
    """keep_largest: classes of which only the largest connected component is kept, those near a
    class's place counting as larger. border: what parts two classes, drawn as such."""

    keep_largest: tuple[str, ...] = ()
    border: DeclaredBorder | None = None


class Statistics(Declared):
    """Of one channel; `low` and `high` are the values at the clip percentiles."""

    mean: float
    std: float
    low: float
    high: float


class DeclaredStatistics(Statistics):
    """Unlike those of an image, which may have one value nearly everywhere, these must differ."""

    std: Positive

    @model_validator(mode="after")
    def _clips_ascend(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low must lie below high, not {self.low} and {self.high}")
        return self


class PlanOverrides(Declared):
    """Figures of the plan that are not derived but declared, for those who know better."""

    patch_zyx: Sides | None = None
    strides_zyx: tuple[Strides, Strides, Strides, Strides, Strides] | None = None
    kernels_zyx: tuple[Kernels, Kernels, Kernels, Kernels, Kernels, Kernels] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    statistics: tuple[DeclaredStatistics, ...] | None = None


class DataCard(Declared):
    """Where the data of the domain comes from, and what one may do with it."""

    dataset: str
    licence: str
    citation: str = ""
    url: str = ""


class DomainSpec(Declared):
    """A domain as declared. Class 0 is background; label k of `labels` is class k + 1."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=NAME_PATTERN)
    description: str
    modality: Literal["MR", "CT", "PET", "US", "other"]
    channels: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    labels: tuple[Label, ...] = Field(min_length=1, max_length=254)
    ignore: tuple[Value, ...] = ()
    empty_labels: bool = False
    subject: str | None = None
    unlabelled: tuple[Unlabelled, ...] = ()
    intensity: Intensity = Intensity()
    geometry: Geometry = Geometry()
    augmentation: Augmentation = Augmentation()
    evaluation: Evaluation = Evaluation()
    postprocessing: Postprocessing = Postprocessing()
    plan: PlanOverrides = PlanOverrides()
    data: DataCard

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        faults = []
        if self.subject is not None and _groups(self.subject) != 1:
            faults.append("subject is no regular expression with one group")
        if self.name in RESERVED_NAMES:
            faults.append(f"name {self.name!r} is reserved")
        names = [label.name for label in self.labels]
        values = [value for label in self.labels for value in label.values]
        if len(set(names)) < len(names):
            faults.append("two labels have the same name")
        if len(set(values)) < len(values):
            faults.append("a source value belongs to two labels")
        if set(self.ignore) & set(values):
            faults.append("a source value is both a label's and ignored")
        if unknown := {name for rule in self.unlabelled for name in rule.labels} - set(names):
            faults.append(f"unlabelled names no label: {sorted(unknown)}")
        if self.plan.statistics and len(self.plan.statistics) != len(self.channels):
            faults.append("plan.statistics needs one entry a channel")
        if unknown := set(self.postprocessing.keep_largest) - set(names):
            faults.append(f"postprocessing.keep_largest names no label: {sorted(unknown)}")
        if border := self.postprocessing.border:
            if unknown := set(border.between) - set(names):
                faults.append(f"postprocessing.border names no label: {sorted(unknown)}")
            if border.between[0] == border.between[1]:
                faults.append("postprocessing.border lies between two labels, not one")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def classes(self) -> int:
        """Number of classes of the output, background included."""
        return len(self.labels) + 1

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the foreground classes; entry k is class k + 1."""
        return tuple(label.name for label in self.labels)

    def subject_of(self, case_id: str) -> str:
        """Whom a case shows: what the group of `subject` matches from the start of its id; where
        nothing does, each case shows another."""
        found = re.match(self.subject, case_id) if self.subject else None
        return (found and found[1]) or case_id

    def hidden_classes(self, case_id: str) -> tuple[int, ...]:
        """The classes that are unlabelled in a case, ascending."""
        hidden = {
            name
            for rule in self.unlabelled
            if any(fnmatchcase(case_id, pattern) for pattern in rule.cases)
            for name in rule.labels
        }
        return tuple(k for k, name in enumerate(self.class_names, start=1) if name in hidden)

    def document(self) -> dict[str, Any]:
        """What is declared, as JSON values. Defaults are left out: so a key that a later release
        adds changes no digest of a spec that does not use it."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @property
    def digest(self) -> str:
        return digest_of(self.document())

    @classmethod
    def load(cls, path: Path) -> DomainSpec:
        """Read a domain.toml.

        Raises:
            MissingFile: there is no such file.
            BrokenPlugin: it is no TOML.
            InvalidSpec: it breaks the schema; all faults are listed at once.
        """
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except FileNotFoundError as error:
            raise MissingFile(
                f"{path} does not exist", "Write one: u2net domain new --help"
            ) from error
        # Also of a number of thousands of digits, and of brackets within brackets.
        except (ValueError, RecursionError, OSError) as error:
            raise BrokenPlugin(
                f"{path} cannot be read: {error}", "Correct the file's syntax."
            ) from error
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: object, where: str) -> DomainSpec:
        """Check a parsed document; `where` names it in the error."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            count = "1 fault" if error.error_count() == 1 else f"{error.error_count()} faults"
            raise InvalidSpec(
                f"{where} has {count}:\n{list_faults(error)}",
                "Correct each line named above; ARCHITECTURE.md describes every key.",
            ) from error


def _groups(pattern: str) -> int | None:
    try:
        return re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError):  # as of a number, or brackets, without end
        return None


def list_faults(error: ValidationError) -> str:
    """All faults of a document, one a line, as `key.path: what is wrong`."""
    return "\n".join(
        f"  {'.'.join(map(str, fault['loc'])) or '(whole)'}: {fault['msg']}"
        for fault in error.errors()
    )


def mirrored_pair(names: Iterable[str]) -> tuple[str, str] | None:
    """Two of these names, in lower case, that differ in the side of the body alone, if there are:
    `left kidney` and `right kidney`, `Lung_L` and `Lung_R`."""
    known = {name.lower() for name in names}
    for name in sorted(known):
        spelled_out = name.replace("left", "right")
        other = spelled_out if spelled_out != name else LETTER_L.sub("r", name)
        if other != name and other in known:
            return name, other
    return None


def digest_of(document: dict[str, Any]) -> str:
    """SHA-256 of canonical JSON: equal content has equal digests on every machine."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
