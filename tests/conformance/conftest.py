"""What a conformance test reports for the matrix that is printed at the end of the run."""

from __future__ import annotations

import pytest

from tests.conformance.matrix import Findings


@pytest.fixture
def findings(request: pytest.FixtureRequest) -> Findings:
    return Findings(request.node)
