"""Every error that a user can meet: what is wrong, then what to do about it.

One class per fault, one exit code per family (0 is success, 1 a fault in this program, 2 a wrong
command line)::

    U2NetError
    ├── DomainError (3)      UnknownDomain · DuplicateDomain · BrokenPlugin · InvalidSpec
    ├── DataError (4)        MissingFile · UnreadableImage · UnsupportedFormat · InvalidDataset
    │                        GeometryMismatch · UnexpectedLabel · NonFiniteImage · WrongChannels
    │                        EmptyLabel · EmptyImage · TooLarge · InvalidCases · DuplicateCase
    │                        MissingClass · SkewedAxes · SpacingOutlier · SuspiciousIntensities
    │                        ContradictoryLabel · UnmatchedPattern · NamedCase · ContradictoryPlace
    │                        WrongModality · NoDicom · NeedsDicom · AmbiguousSeries
    │                        NoImageData · UnsupportedCompression
    │                        UnsupportedMultiFrame · LocalizerMixedIn · SingleSlice
    │                        MissingPosition · MixedSliceSizes · MixedOrientations · MixedSlices
    │                        DuplicateSlices · UnevenSlices · GantryTilt · InvalidHeader
    ├── StorageError (5)     NotWritable · DiskFull
    ├── CatalogError (6)     CatalogBehind · CatalogUnreachable · UnknownRecord · Conflict
    │                        NotEvaluated · NothingToRollBack · RuleNotMet · InvalidRule
    │                        InvalidSlot
    ├── TrainingError (7)    RunBusy · NothingToResume · InvalidRecipe · Diverged · TooFewCases
    ├── IntegrityError (8)   DigestMismatch · IncompatibleParts · BundleAltered · BundleUnsafe
    │                        BundleSchema · BundleUntrusted · InvalidKey
    ├── DeviceError (9)      DeviceUnavailable
    ├── FederationError (10) InvalidSite · InvalidFederation · QuorumNotReached · NotApproved
    │                        StateLost · RoundTooLong · BudgetSpent · FlowerFailed
    │                        OtherRelease
    └── Interrupted (130)
"""

from __future__ import annotations


class U2NetError(Exception):
    """A fault with a reason and a remedy; `exit_code` is what the command line ends with."""

    exit_code = 1

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[U2NetError], tuple[str, str]]:
        return type(self), (self.message, self.hint)  # so that it travels between processes

    @property
    def error_code(self) -> str:
        """The stable name of the fault, as the JSON envelope carries it."""
        return type(self).__name__

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}"


class DomainError(U2NetError):
    exit_code = 3


class UnknownDomain(DomainError):
    """No plugin, or no row of the catalog, has this name."""


class DuplicateDomain(DomainError):
    """Two plugins claim one name."""


class BrokenPlugin(DomainError):
    """A plugin's files cannot be read or its code cannot be imported."""


class InvalidSpec(DomainError):
    """A domain.toml breaks the schema; the message lists all its faults."""


class DataError(U2NetError):
    exit_code = 4


class MissingFile(DataError):
    """A path does not exist, or cannot be read."""


class UnreadableImage(DataError):
    """A file exists, but is no image, or is truncated."""


class UnsupportedFormat(DataError):
    """The file ending is none that is read or written here."""


class InvalidDataset(DataError):
    """A folder is neither an MSD task folder nor an nnU-Net raw folder, or contradicts itself."""


class GeometryMismatch(DataError):
    """Image and label, or two channels, do not lie on the same grid."""


class UnexpectedLabel(DataError):
    """A label volume holds a value that the spec does not name."""


class NonFiniteImage(DataError):
    """An image holds NaN or infinity."""


class WrongChannels(DataError):
    """An image has more or fewer channels than its domain."""


class ContradictoryLabel(DataError):
    """A label holds a class that the spec says nobody has drawn in this case."""


class UnmatchedPattern(DataError):
    """A pattern of case ids in the spec is that of no case."""


class MirroredSides(DataError):
    """Training mirrors left to right what a domain tells apart."""


class NamedCase(DataError):
    """The spec, which travels, names a case."""


class EmptyLabel(DataError):
    """A training label has no foreground voxel."""


class EmptyImage(DataError):
    """An image has no voxel, or one value everywhere."""


class DuplicateCase(DataError):
    """Two cases have the same voxels."""


class MissingClass(DataError):
    """A class is in no label, or not in some."""


class SkewedAxes(DataError):
    """A header's axes are not quite at right angles."""


class SpacingOutlier(DataError):
    """A case's voxels or extent are unlike those of the others, or of any patient."""


class ContradictoryPlace(DataError):
    """A header says twice where its image lies, and differently."""


class WrongModality(DataError):
    """A data set says that it is of another modality than its domain."""


class SuspiciousIntensities(DataError):
    """Intensities are not what the modality has."""


class TooLarge(DataError):
    """A volume takes more memory than there is."""


class InvalidCases(DataError):
    """Several cases of a dataset are at fault; the message names each."""


class NoDicom(MissingFile):
    """A folder holds no image file and no DICOM file."""


class NeedsDicom(DataError):
    """What was asked for exists for DICOM input alone."""


class AmbiguousSeries(DataError):
    """A folder has several DICOM series that could be meant, or none; the message lists them."""


class NoImageData(DataError):
    """A DICOM series, or a file of it, has no pixels."""


class UnsupportedCompression(DataError):
    """A DICOM file's transfer syntax is none that is decoded here."""


class UnsupportedMultiFrame(DataError):
    """The frames of a DICOM file make no volume that is read here."""


class LocalizerMixedIn(DataError):
    """A DICOM series holds localizers among its slices."""


class SingleSlice(DataError):
    """A DICOM series has one slice, whose extent across is unknown."""


class MissingPosition(DataError):
    """A DICOM file does not tell where in the patient it lies."""


class MixedSliceSizes(DataError):
    """The slices of a DICOM series differ in rows, columns or pixel spacing."""


class MixedSlices(DataError):
    """The slices of a DICOM series are of several kinds, or lie in several frames of reference."""


class MixedOrientations(DataError):
    """The slices of a DICOM series are not parallel."""


class DuplicateSlices(DataError):
    """Two slices of a DICOM series lie at the same place."""


class UnevenSlices(DataError):
    """A slice of a DICOM series is missing, or the distances between slices differ."""


class GantryTilt(DataError):
    """The slices of a DICOM series are stacked at an angle to their normal."""


class InvalidHeader(DataError):
    """A header holds values that contradict each other or the format's standard."""


class StorageError(U2NetError):
    exit_code = 5


class NotWritable(StorageError):
    """A file or folder cannot be written."""


class DiskFull(StorageError):
    """The disk has no room left."""


class CatalogError(U2NetError):
    exit_code = 6


class CatalogBehind(CatalogError):
    """The database's schema is older (or newer) than this program."""


class CatalogUnreachable(CatalogError):
    """The database does not answer."""


class UnknownRecord(CatalogError):
    """No such run or version."""


class Conflict(CatalogError):
    """A write contradicts what the catalog already holds."""


class NotEvaluated(CatalogError):
    """A version without test scores was to be put into service."""


class InvalidSlot(CatalogError):
    """A name under which a version was to go into service, or of a site or person, is none."""


class NothingToRollBack(CatalogError):
    """Nothing was in service before."""


class RuleNotMet(CatalogError):
    """A version is not as good as the rule for its promotion asks."""


class InvalidRule(CatalogError):
    """A rule for promotion cannot be read."""


class TrainingError(U2NetError):
    exit_code = 7


class RunBusy(TrainingError):
    """Another process works on the same run."""


class NothingToResume(TrainingError):
    """There is no checkpoint to continue from."""


class InvalidRecipe(TrainingError):
    """A recipe breaks its schema; the message lists all its faults."""


class Diverged(TrainingError):
    """The loss is no longer a finite number."""


class WorkerEnded(TrainingError):
    """The system has ended a process that prepares cases or patches."""


class TooFewCases(TrainingError):
    """A split leaves nothing to train on."""


class IntegrityError(U2NetError):
    exit_code = 8


class DigestMismatch(IntegrityError):
    """Stored bytes are not those that their name promises."""


class IncompatibleParts(IntegrityError):
    """A backbone and a domain do not fit together."""


class BundleAltered(IntegrityError):
    """A bundle is damaged, or is not what its own list promises."""


class BundleUnsafe(IntegrityError):
    """A bundle holds what no bundle holds."""


class BundleSchema(IntegrityError):
    """A bundle has another format than this release reads."""


class BundleUntrusted(IntegrityError):
    """A bundle is not signed by whom it should be."""


class InvalidKey(IntegrityError):
    """A file is no key of the kind that is needed."""


class DeviceError(U2NetError):
    exit_code = 9


class DeviceUnavailable(DeviceError):
    """The device asked for is not on this machine."""


class FederationError(U2NetError):
    exit_code = 10


class InvalidSite(FederationError):
    """A site's folder or its site.toml is missing or at fault."""


class InvalidFederation(FederationError):
    """What a federation was asked to do cannot be done."""


class QuorumNotReached(FederationError):
    """Too few sites sent something usable, several times in a row."""


class NotApproved(FederationError):
    """A site was asked to run what its people have not approved."""


class StateLost(FederationError):
    """What a site kept between two rounds is gone."""


class OtherRelease(FederationError):
    """Coordinator and site run different releases."""


class RoundTooLong(FederationError):
    """A site's time for a round is up."""


class BudgetSpent(FederationError):
    """One more round would spend more privacy than a site allows."""


class FlowerFailed(FederationError):
    """A process of Flower does not come up, or a run of it has failed."""


class Interrupted(U2NetError):
    """Stopped by a signal after a checkpoint was written."""

    exit_code = 130
