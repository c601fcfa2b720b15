"""The made-up surveys as fixtures, and a headless Chromium for the pages."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report_example", Path(__file__).with_name("example.py"))
    if spec is None or spec.loader is None:
        pytest.fail("example.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
