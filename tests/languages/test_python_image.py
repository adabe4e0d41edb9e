"""What programs expect of the Python image: packages, documents, fonts, and the tools Bash programs call."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from differential.runner_process import Outcome
from languages.containers import FAMILIES, ROOT, RunnerContainer, image_of

MODULES = {
    "scikit-learn": "sklearn",
    "pillow": "PIL",
    "python-docx": "docx",
    "python-pptx": "pptx",
    "beautifulsoup4": "bs4",
    "pyyaml": "yaml",
    "python-dateutil": "dateutil",
    "fpdf2": "fpdf",
}
"""Packages whose module is called otherwise."""


def packages() -> list[str]:
    lines = (ROOT / "images" / "python.packages").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture
def runner() -> Iterator[RunnerContainer]:
    image = image_of("python")
    if image is None:
        pytest.skip("the image of python has not been built: cluster/images.sh python")
    with RunnerContainer(
        image, FAMILIES["python"], preload="numpy,pandas,matplotlib.pyplot", memory="1g"
    ) as it:
        yield it


def run(runner: RunnerContainer, code: str, language: str = "py") -> Outcome:
    """Run it; it has to succeed, and to say nothing on standard error."""
    runner.prepare(code.encode(), language=language, outputs=20, seconds=100)
    got = runner.go()
    assert (got.exit["exitCode"], got.stderr.decode()) == (0, ""), (got.stdout, got.stderr)
    return got


def test_packages_are_pinned() -> None:
    pinned = (ROOT / "images" / "python.constraints").read_text()
    missing = [name for name in packages() if not re.search(rf"^{name}==", pinned, re.MULTILINE)]
    assert not missing, "run `make constraints`"


def test_every_package_can_be_imported(runner: RunnerContainer) -> None:
    names = [MODULES.get(name, name) for name in packages()]
    run(runner, "".join(f"import {name}\n" for name in names))


def test_documents_can_be_written_and_read_again(runner: RunnerContainer) -> None:
    code = (Path(__file__).parent / "programs" / "documents.py").read_text()
    got = run(runner, code)
    assert set(got.files) == {"table.xlsx", "text.docx", "slides.pptx", "page.pdf"}
    assert got.stdout.decode() == "世界 42\n世界\n世界\nWorld\n"


def test_matplotlib_draws_chinese_japanese_korean_and_emoji(runner: RunnerContainer) -> None:
    """A character no font has would be a warning on standard error."""
    got = run(
        runner,
        "import matplotlib.pyplot as plt\n"
        "plt.figure(figsize=(4, 2))\n"
        "plt.plot([1, 2])\n"
        "plt.title('中文 日本語 한국어 😀 ☂ Grüße')\n"
        "plt.show()\n",
    )
    assert list(got.files) == ["figure-1.png"]


def test_emoji_have_colours(runner: RunnerContainer) -> None:
    got = run(
        runner,
        "from PIL import Image, ImageDraw, ImageFont\n"
        "font = ImageFont.truetype('/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf', 109)\n"
        "image = Image.new('RGB', (160, 160), 'white')\n"
        "ImageDraw.Draw(image).text((10, 10), '🍎', font=font, embedded_color=True)\n"
        "image.save('apple.png')\n",
    )
    colours = Image.open(io.BytesIO(got.files["apple.png"])).convert("RGB").getcolors(1 << 16)
    assert colours is not None
    assert any(red > 180 and green < 100 and blue < 100 for _, (red, green, blue) in colours)


def test_bash_has_its_tools(runner: RunnerContainer) -> None:
    got = run(
        runner,
        "echo '{\"a\": [1, 2]}' | jq -c .a\n"
        "echo '2^10' | bc\n"
        "echo text > one.txt && zip -q all.zip one.txt && unzip -p all.zip\n"
        "python3 - <<'END'\nimport pandas; print(pandas.Series([1, 2]).sum())\nEND\n",
        "bash",
    )
    assert got.stdout.decode() == "[1,2]\n1024\ntext\n3\n"
