# SPDX-License-Identifier: Apache-2.0
"""The operators' HTTP interface under ``/api/v1``: one file of routes for each subject."""

from fastapi import APIRouter

from fleet.adapters.operations import Operations
from fleet.web.access import Access
from fleet.web.account_api import account_routes
from fleet.web.alert_routes import alert_routes
from fleet.web.audit_api import audit_routes
from fleet.web.bench_routes import bench_routes
from fleet.web.capture_api import capture_routes
from fleet.web.device_routes import device_routes
from fleet.web.drift_routes import drift_routes
from fleet.web.ingest_routes import ingest_routes
from fleet.web.model_routes import model_routes
from fleet.web.release_routes import release_routes
from fleet.web.rollout_routes import rollout_routes
from fleet.web.signal_routes import signal_routes
from fleet.web.trust_api import trust_routes

__all__ = ["api_router"]


def api_router(operations: Operations, access: Access) -> APIRouter:
    """Return the routes; ``access`` says who may call them."""
    # Whoever asks is a viewer at least; a route that changes something names the role that it needs.
    router = APIRouter(prefix="/api/v1", dependencies=[access.viewer])
    for mine in (account_routes, alert_routes, audit_routes):
        mine(router, operations, access)
    release_routes(router, operations, access)
    ingest_routes(router, operations, access)
    signal_routes(router, operations, access)
    bench_routes(router, operations, access)
    for group in (device_routes, drift_routes, model_routes, rollout_routes, trust_routes, capture_routes):
        group(router, operations, access)
    return router
