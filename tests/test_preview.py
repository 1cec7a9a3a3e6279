"""The page on which the compiled patterns play: the whole chain, looked at in a real browser."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, found
from test_pattern_library import DENO, doit, make_project

pytestmark = [
    pytest.mark.one_python,
    pytest.mark.skipif(found() is None, reason="there is no Chromium"),
    pytest.mark.skipif(DENO is None, reason="there is no deno"),
]

PATTERNS = ["bloom", "pulse", "spectrum"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and tells nobody."""

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_project(tmp_path_factory.mktemp("project"))
    made = doit(project)
    assert made.returncode == 0, made.stdout
    return Path(project, "generated")


@pytest.fixture(scope="module")
def address(generated: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(generated))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/preview.html"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def page(chromium: Browser, address: str) -> Browser:
    chromium.emulate()
    chromium.open(address)
    return chromium


#: What the strip of a pattern shows, and what is lit on its canvas.
STRIP = "window.preview.strips.find((strip) => strip.article.id === {name!r})"
LIT = """(() => {{
  const {{ canvas }} = {strip};
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return data.filter((part, i) => i % 4 < 3 && part > 60).length;
}})()"""


def steps(page: Browser, number: int = 40) -> None:
    page.value("document.querySelector('#play').click()")  # it stands still but for these
    page.value(f"for (let i = 0; i < {number}; i++) window.preview.step(0.02)")


def test_every_pattern_plays_on_its_strip_without_a_complaint(page: Browser) -> None:
    assert page.value("[...document.querySelectorAll('article')].map((it) => it.id)") == PATTERNS
    steps(page)
    for name in PATTERNS:
        strip = STRIP.format(name=name)
        assert page.value(f"{strip}.leds.rgb.some((part) => part > 0)"), name
        assert page.value(LIT.format(strip=strip)) > 100, name
    assert page.complaints() == []


def test_what_is_drawn_is_what_the_compiled_pattern_renders(page: Browser) -> None:
    steps(page, 7)
    strip = STRIP.format(name="bloom")
    again = f"""(() => {{
      const strip = {strip};
      const light = new strip.Pattern(60);
      const frame = {{ time: 0, dt: 0.02, spectrum: Float32Array.of(1, 1, 1, 1), beat: 0 }};
      light.render(frame, strip.leds);
      return [...strip.leds.bytes().subarray(87, 93)];
    }})()"""
    # The two in the middle: full bass in the colour of bloom.toml, at its brightness.
    red, green, blue = (round(0.8 * part * (1 - 1 / 60) ** 1.5) for part in (0xFF, 0x4F, 0x8B))
    for shown, wanted in zip(page.value(again), [red, green, blue] * 2, strict=True):
        assert abs(shown - wanted) <= 3


def test_each_parameter_has_a_control_that_sets_it(page: Browser) -> None:
    for name in PATTERNS:
        strip = STRIP.format(name=name)
        fields = page.value(f"{strip}.Pattern.parameters.map((it) => it.field)")
        named = f"[...document.querySelectorAll('#{name} fieldset [name]')].map((it) => it.name)"
        assert list(dict.fromkeys(page.value(named))) == fields
    dark = """(() => {
      const slider = document.querySelector("#bloom [name=stripBrightness]");
      slider.value = 0;
      slider.dispatchEvent(new Event("input"));
      return slider.closest("label").textContent;
    })()"""
    assert "0 of full brightness" in page.value(dark)
    steps(page, 5)
    strip = STRIP.format(name="bloom")
    assert page.value(f"{strip}.leds.rgb.every((part) => part === 0)")
    page.value("document.querySelector('#bloom button').click()")
    assert page.value(f"{strip}.light.stripBrightness") == 0.8


def test_the_strips_can_be_longer_and_what_was_set_stays(page: Browser) -> None:
    strip = STRIP.format(name="pulse")
    page.value(f"{strip}.light.ringSpeed = 12")
    page.value(
        "(() => { const it = document.querySelector('#count'); it.value = 300;"
        " it.dispatchEvent(new Event('change')); })()"
    )
    assert page.value(f"{strip}.leds.count") == 300
    assert page.value(f"{strip}.light.ringSpeed") == 12


def test_opened_as_a_file_it_says_how_to_see_it(chromium: Browser, generated: Path) -> None:
    chromium.open(generated / "preview.html")
    said = chromium.value("document.querySelector('#problem').textContent")
    assert "python3 -m http.server -d generated" in said
    assert shutil.which("python3")
