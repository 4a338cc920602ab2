# SPDX-License-Identifier: Apache-2.0
"""Every error that Strop raises on purpose, as one tree.

::

    StropError                 exit code 1: refused, the state is as it was
    ├── UsageError             exit code 2: the caller's words are wrong
    │   ├── RecipeError        a recipe file: file, key, value, fix
    │   └── TargetError        a target file: file, key, fix
    ├── MissingDependencyError a package or program is not installed; carries the install line
    ├── ContractError          data from a peer does not keep the contract
    │   ├── ManifestError      a bundle's manifest
    │   ├── MessageError       a message on the wire
    │   ├── TopicError         a topic on the wire
    │   ├── SummaryError       a drift summary's bytes
    │   ├── ProfileError       a reference profile
    │   └── TransitionError    an event that a state machine does not accept
    ├── DataError              a data set is missing, empty or unlike its declaration
    ├── ModelError             a model cannot be loaded, traced or run
    │   └── UnsupportedOperatorError  an operator that no writer can express
    ├── BudgetError            a result misses its budget; says what came closest
    ├── CheckError             a check of the recipe failed, and nobody has waived it
    ├── ParityError            two runtimes disagree beyond the declared bound
    ├── BundleError            a bundle's files are missing, changed or foreign
    │   ├── SignatureError     signed by nobody whom we trust, or expired
    │   └── DeltaError         a patch that is malformed, or does not give the file that it promises
    ├── RuntimeAdapterError    an inference runtime refused a model or failed
    │   └── DeviceError        an accelerator is not there
    ├── DownloadError          bytes could not be fetched
    ├── SlotError              the model slots on disk
    ├── EnrolmentError         a token or certificate was refused
    ├── BrokerError            the MQTT broker is missing, busy or refuses us
    ├── StoreError             the server's database or blobs
    ├── ImageError             a disk image or card that is foreign, damaged or full
    ├── RegistryError          a model version that may not be registered or promoted
    ├── MeasurementError       what was to be timed failed, so its time means nothing
    └── RolloutError           a rollout that may not start or change as asked

A message says what happened with its values, where, and how to go on, in one line.

Example:
    >>> error = RecipeError("unknown key 'epoch'", where="digits.toml [step 1]", fix="write 'epochs'")
    >>> str(error), error.exit_code
    ("digits.toml [step 1]: unknown key 'epoch'; write 'epochs'", 2)
"""


class StropError(Exception):
    """Root of the tree. ``where`` names file, key, layer or device; ``fix`` says how to go on."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        prefix = f"{where}: " if where else ""
        suffix = f"; {fix}" if fix else ""
        super().__init__(" ".join(f"{prefix}{what}{suffix}".splitlines()))


class UsageError(StropError):
    """The caller's words are wrong: an unknown option, key or name."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe file cannot be read: names file, key, value and the fix."""


class TargetError(UsageError):
    """A target file cannot be read, or no target has this name."""


class MissingDependencyError(StropError):
    """A package or program is not installed; ``fix`` is the line that installs it."""


class ContractError(StropError):
    """Data from a peer does not keep the contract."""


class ManifestError(ContractError):
    """A bundle's manifest is malformed."""


class MessageError(ContractError):
    """A message on the wire is malformed."""


class TopicError(ContractError):
    """A topic is not one of ours."""


class SummaryError(ContractError):
    """The bytes of a drift summary are truncated, flipped or of another version."""


class ProfileError(ContractError):
    """A reference profile is malformed or belongs to another bundle."""


class TransitionError(ContractError):
    """A state machine does not accept this event in its present state."""


class DataError(StropError):
    """A data set is missing, empty or unlike its declaration."""


class ModelError(StropError):
    """A model cannot be loaded, traced or run."""


class UnsupportedOperatorError(ModelError):
    """An operator that no writer can express; ``where`` names the layer."""


class BudgetError(StropError):
    """A result misses its budget; the message says what came closest."""


class CheckError(StropError):
    """A check of the recipe failed, and nobody has waived it by name."""


class ParityError(StropError):
    """Two runtimes disagree beyond the declared bound."""


class BundleError(StropError):
    """A bundle's files are missing, changed or foreign."""


class SignatureError(BundleError):
    """Signed by nobody whom we trust, expired, or rolled back."""


class DeltaError(BundleError):
    """A patch between two files is malformed, or does not give the file that it promises."""


class RuntimeAdapterError(StropError):
    """An inference runtime refused a model or failed while it ran."""


class DeviceError(RuntimeAdapterError):
    """An accelerator is not there: no model's fault, and none can be judged by it."""


class DownloadError(StropError):
    """Bytes could not be fetched."""


class SlotError(StropError):
    """The model slots on disk are not as they must be."""


class EnrolmentError(StropError):
    """An enrolment token or a device certificate was refused."""


class BrokerError(StropError):
    """The MQTT broker is missing, busy or refuses us."""


class StoreError(StropError):
    """The server's database or blob store refused."""


class ImageError(StropError):
    """A disk image or card is foreign, damaged, cut short or full."""


class RegistryError(StropError):
    """A model version that may not be registered, or is not known."""


class MeasurementError(StropError):
    """What was to be timed failed, so its time means nothing."""


class RolloutError(StropError):
    """A rollout that may not start or change as asked."""
