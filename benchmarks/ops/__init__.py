# SPDX-License-Identifier: Apache-2.0
"""Where an inference's time goes, operator by operator, in one form for every runtime. numpy and a runtime only."""

from benchmarks.ops.profile import OpTime, Profile, read
from benchmarks.ops.running import profile_of

__all__ = ["OpTime", "Profile", "profile_of", "read"]
