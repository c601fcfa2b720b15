"""The made-up surveys as fixtures, and a headless Chromium for the pages."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"report_{name}", Path(__file__).with_name(f"{name}.py"))
    if spec is None or spec.loader is None:
        pytest.fail(f"{name}.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def example() -> ModuleType:
    return _module("example")


@pytest.fixture(scope="session")
def landscapes() -> ModuleType:
    return _module("landscape_example")


@pytest.fixture(scope="session")
def converged(example):
    return example.density_example(converged=True)


@pytest.fixture(scope="session")
def doubtful(example):
    return example.density_example(converged=False)


@pytest.fixture(scope="session")
def chromium():
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on this machine: apt-get install chromium runs the browser tests")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the dev extra")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
