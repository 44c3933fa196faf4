"""Versions are judged by the requirements of the package, and shown beside those that are known to work."""

from __future__ import annotations

from pathlib import Path

import pytest

from consistent4d_ns.setup import software
from consistent4d_ns.setup.diagnosis import _of_packages
from consistent4d_ns.setup.software import Package, packages


def by_name() -> dict[str, Package]:
    return {package.name: package for package in packages()}


def test_installed_packages_fit_and_are_known():
    found = by_name()
    assert set(software.SHOWN) <= found.keys()
    assert [package.name for package in found.values() if not package.fits] == []
    assert found["torch"].known is not None
    assert found["torch"].required is not None
    assert found["triton"].required is None
    assert not {"usd-core", "pytest", "ruff"} & found.keys()


def test_what_is_missing_or_old_does_not_fit(monkeypatch: pytest.MonkeyPatch):
    elsewhere = ["numpy>=1.0 ; extra == 'none'", "viser==0.1 ; python_version < '3'"]
    declared = ["torch>=99", "no-such-package<3,>=2", *elsewhere]
    monkeypatch.setattr(software, "_declared", lambda: declared)
    found = by_name()
    assert not found["torch"].fits
    assert (found["no-such-package"].installed, found["no-such-package"].required) == (None, "<3,>=2")
    assert not found["no-such-package"].fits
    assert found["numpy"].required is None
    assert found["viser"].fits


def test_what_only_an_extra_needs_may_be_missing(monkeypatch: pytest.MonkeyPatch):
    declared = ["torch", "no-such-package>=2 ; extra == 'prepare'", "numpy>=99 ; extra == 'prepare'"]
    monkeypatch.setattr(software, "_declared", lambda: declared)
    found = by_name()
    assert found["torch"].extra is None
    assert (found["no-such-package"].installed, found["no-such-package"].extra) == (None, "prepare")
    assert found["no-such-package"].fits
    assert not found["numpy"].fits
    assert [problem.stops for problem in _of_packages(list(found.values()))] == [()]


def test_without_metadata_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(software, "NAME", "no-such-package")
    monkeypatch.setattr(software, "CONSTRAINTS", (tmp_path / "none",))
    assert [package for package in packages() if package.required or package.known or not package.fits] == []
