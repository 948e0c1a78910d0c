"""Debian's Chromium, in which pages are used as people use them; Playwright's own would be one more download."""

from __future__ import annotations

from pathlib import Path

from deploy.native.install.system import apt_install, find_program, require_program
from deploy.progress import Steps

PACKAGE = "chromium"


def ensure_browser(steps: Steps) -> None:
    """Install the browser where there is none. Raises `InstallError` naming the package."""
    if find_program(PACKAGE) is None:
        with steps.step(f"installing {PACKAGE}"):
            apt_install([PACKAGE])


def browser_program() -> Path:
    """Where the browser is. Raises `InstallError` where it is missing."""
    return require_program(PACKAGE, PACKAGE)
