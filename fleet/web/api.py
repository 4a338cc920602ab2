# SPDX-License-Identifier: Apache-2.0
"""The operators' HTTP interface under ``/api/v1``: one file of routes for each subject."""

from fastapi import APIRouter

from fleet.adapters.operations import Operations
from fleet.web.access import Access
from fleet.web.capture_api import capture_routes
from fleet.web.device_routes import device_routes
from fleet.web.drift_routes import drift_routes
from fleet.web.model_routes import model_routes
from fleet.web.rollout_routes import rollout_routes
from fleet.web.trust_api import trust_routes

__all__ = ["api_router"]


def api_router(operations: Operations, access: Access) -> APIRouter:
    """Return the routes; ``access`` says who may call them."""
    router = APIRouter(prefix="/api/v1")
    for group in (device_routes, drift_routes, model_routes, rollout_routes, trust_routes, capture_routes):
        group(router, operations, access)
    return router
