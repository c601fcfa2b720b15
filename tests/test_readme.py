"""The README's three lines survey a ten-class network that nobody here wrote."""

import re
from pathlib import Path

import torch

README = Path(__file__).parents[1] / "README.md"


def three_lines() -> str:
    block = re.search(r"```python\n(import theodolite.*?)```", README.read_text(), re.DOTALL)
    assert block is not None
    assert len([line for line in block.group(1).splitlines() if line.strip()]) == 3
    return block.group(1)


def test_three_lines_suffice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(784, 16), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(16, 10)
    )
    images = torch.randint(0, 256, (12, 1, 28, 28), generator=torch.Generator().manual_seed(1))
    code = three_lines().replace('"5 min"', '"3000 evaluations"')
    scope = {"module": module, "images": images}
    exec(code, scope)
    page = (tmp_path / "report.html").read_text()
    assert "log-odds of class 3" in page
    assert module.training and next(module.parameters()).requires_grad
