# SPDX-License-Identifier: Apache-2.0
"""Over HTTP: release channels, one version, its family, promotion rules, and deleting what nobody uses."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from edge_contract.errors import MessageError
from edge_contract.fields import Fields
from fleet.adapters import version_views
from fleet.adapters.blob_sweep import GRACE_S
from fleet.adapters.operations import Operations
from fleet.core.rules import read_rules
from fleet.web.access import Access, Document

__all__ = ["release_routes"]

Text = Annotated[str, Query(max_length=2000)]


def release_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """Channels, versions and rules."""
    _looking(router, operations)
    _channels(router, operations, access)
    _versions(router, operations, access)
    _rules(router, operations, access)


def _fields(document: Any) -> Fields:
    return Fields(document or {}, "request", MessageError)


def _looking(router: APIRouter, operations: Operations) -> None:
    store, blobs = operations.store, operations.blobs

    @router.get("/channels")
    def all_channels() -> list[dict[str, Any]]:
        return store.read(lambda db: version_views.channels_json(db, history=20))

    @router.get("/models/{model}/channels")
    def channels_of_model(model: str) -> list[dict[str, Any]]:
        return store.read(lambda db: version_views.channels_json(db, model))

    @router.get("/versions")
    def search(q: Text = "") -> list[dict[str, Any]]:
        return store.read(lambda db: version_views.found_by(db, q))

    @router.get("/models/{model}/diff")
    def diff(model: str, old: Text, new: Text) -> dict[str, Any]:
        return store.read(lambda db: version_views.compared(db, blobs, model, old, new))

    @router.get("/models/{model}/versions/{version}")
    def one_version(model: str, version: str) -> dict[str, Any]:
        return store.read(lambda db: version_views.version_json(db, model, version))

    @router.get("/models/{model}/versions/{version}/lineage")
    def lineage(model: str, version: str) -> list[dict[str, Any]]:
        return store.read(lambda db: version_views.family(db, model, version))

    @router.get("/models/{model}/versions/{version}/check")
    def check(model: str, version: str) -> list[dict[str, Any]]:
        return operations.promotion.check(model, version)


def _channels(router: APIRouter, operations: Operations, access: Access) -> None:
    releases = operations.releases

    @router.put("/models/{model}/channels/{channel}")
    def put_channel(
        actor: Annotated[str, access.operator], model: str, channel: str, document: Document
    ) -> dict[str, Any]:
        f = _fields(document)
        version, reason, force = f.text("version"), f.text("reason", ""), f.flag("force", False)
        return releases.set(model, channel, version, actor, reason=reason, force=force).to_json()

    @router.post("/models/{model}/channels/{channel}/demote")
    def demote(
        actor: Annotated[str, access.operator], model: str, channel: str, document: Document = None
    ) -> dict[str, Any]:
        return releases.demote(model, channel, actor, reason=_fields(document).text("reason", "")).to_json()

    @router.post("/models/{model}/versions/{version}/promote")
    def promote(
        actor: Annotated[str, access.operator], model: str, version: str, document: Document = None
    ) -> dict[str, Any]:
        f = _fields(document)
        to, reason, force = f.text("to", ""), f.text("reason", ""), f.flag("force", False)
        return releases.promote(model, version, actor, to=to, reason=reason, force=force).to_json()


def _versions(router: APIRouter, operations: Operations, access: Access) -> None:
    releases, promotion = operations.releases, operations.promotion

    @router.post("/models/{model}/versions/{version}/retire")
    def retire(
        actor: Annotated[str, access.operator], model: str, version: str, document: Document = None
    ) -> dict[str, Any]:
        f = _fields(document)
        return releases.retire(model, version, actor, reason=f.text("reason", ""), undo=f.flag("undo", False))

    @router.delete("/models/{model}/versions/{version}")
    def delete(actor: Annotated[str, access.operator], model: str, version: str, reason: Text = "") -> dict[str, Any]:
        return releases.delete(model, version, actor, reason=reason)

    @router.post("/models/{model}/versions/{version}/approve")
    def approve(
        actor: Annotated[str, access.operator], model: str, version: str, document: Document = None
    ) -> dict[str, Any]:
        f = _fields(document)
        moves = promotion.approve(model, version, actor, note=f.text("note", ""), undo=f.flag("undo", False))
        return {"moves": [move.to_json() for move in moves]}

    @router.post("/models/{model}/versions/{version}/measurements")
    def attach(actor: Annotated[str, access.operator], model: str, version: str, document: Document) -> dict[str, Any]:
        f = _fields(document)
        target, measured = f.text("target", ""), f.object("measurement")
        moves = promotion.attach(model, version, measured, actor, target=target)
        return {"moves": [move.to_json() for move in moves]}

    @router.post("/blobs/sweep")
    def sweep(actor: Annotated[str, access.operator], document: Document = None) -> dict[str, int]:
        hours = _fields(document).number("grace_hours", GRACE_S / 3600)
        return releases.sweep_files(actor, grace_s=max(0.0, hours) * 3600)


def _rules(router: APIRouter, operations: Operations, access: Access) -> None:
    book = operations.promotion.book

    @router.get("/rules")
    def rules() -> dict[str, Any]:
        shown = [rule.to_json() for rule in book.rules()]
        return {"file": str(book.path), "default": book.is_default, "rules": shown, "text": book.text()}

    @router.post("/rules/check")
    def check_rules(actor: Annotated[str, access.operator], document: Document) -> dict[str, int]:
        f = _fields(document)
        return {"rules": len(read_rules(f.text("text"), f.text("where", "rules.toml")))}
