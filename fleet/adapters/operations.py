# SPDX-License-Identifier: Apache-2.0
"""What an operator or a device may ask of the server, in groups: devices, models, rollouts, captures, identities."""

from collections.abc import Callable

from fleet.adapters.blobs import BlobStore
from fleet.adapters.captures import Captures
from fleet.adapters.desk import Addresses, Desk, Trust
from fleet.adapters.device_verbs import DeviceVerbs
from fleet.adapters.identities import Identities
from fleet.adapters.model_verbs import ModelVerbs
from fleet.adapters.orders import Message
from fleet.adapters.rollout_verbs import RolloutVerbs
from fleet.adapters.sqlite import Store

__all__ = ["Operations"]


class Operations:
    """The verbs of the fleet server, by subject. Safe to call from any thread; arguments as of ``Desk``."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        trust: Trust,
        *,
        addresses: Addresses,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        publish: Callable[[Message], None],
    ) -> None:
        self.store, self.blobs, self.trust, self.addresses, self.clock = store, blobs, trust, addresses, clock
        self.desk = Desk(
            store, blobs, trust, addresses=addresses, clock=clock, random_bytes=random_bytes, publish=publish
        )
        self.identities = Identities(store, trust.ca, clock, trust.signer.public_key)
        folder = trust.ca.parent / "captures"
        self.captures = Captures(store, folder, trust.signer, clock=clock, random_bytes=random_bytes)
        self.devices = DeviceVerbs(self.desk, self.identities)
        self.models = ModelVerbs(self.desk)
        self.rollouts = RolloutVerbs(self.desk)
