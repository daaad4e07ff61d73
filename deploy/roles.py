"""The roles of a secured deployment. What each may do is in `deploy/rights.py`."""

from __future__ import annotations

from typing import Literal, get_args

SecuredRole = Literal["command-worker", "view-worker", "client", "operator"]
ROLES: tuple[SecuredRole, ...] = get_args(SecuredRole)
"""`view-worker` is for the workers of all views; `client` sends commands and queries; `operator`
creates topics, rebuilds views, verifies and reads everything."""
