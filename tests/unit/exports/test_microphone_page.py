"""The guide's page in headless Chromium records the microphone and computes the vectors that Python does."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from support.exports import Exportable
from support.paths import ROOT

from unfused_ray import api, load_student
from unfused_ray.exports import onnx_file

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

RUNTIME = ROOT / "output" / "browser" / "node_modules"
RUN = """async ([file, wave]) => {
  const ort = await import("/node_modules/onnxruntime-web/dist/ort.wasm.min.mjs");
  const session = await ort.InferenceSession.create(file);
  const { vectors, frames } = await session.run({ wave: new ort.Tensor("float32", wave.flat(), [2, wave[0].length]) });
  return { vectors: Array.from(vectors.data), frames: frames.dims };
}"""


LOADED = "network loaded; the microphone is off"
REFUSE = """navigator.mediaDevices.getUserMedia =
  () => Promise.reject(new DOMException("Permission denied", "NotAllowedError"))"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url(student: Exportable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the guide's folder on loopback, with an 8-bit file as well."""
    if not RUNTIME.exists():
        pytest.fail(f"{RUNTIME} is not there: make test-browser installs it")
    folder = Path(api.export(encoder=student.run, output=str(tmp_path_factory.mktemp("page"))).folder)
    small = onnx_file.with_int8_weights(onnx.load(folder / "model.onnx"))
    onnx.save(small, folder / "model-int8.onnx")
    shutil.copy(ROOT / "docs" / "guides" / "microphone.html", folder)
    (folder / "node_modules").symlink_to(RUNTIME)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize(("file", "tolerance"), [("model.onnx", 1e-4), ("model-int8.onnx", 0.05)])
def test_the_browser_computes_what_python_does(student, browser: Browser, url: str, file: str, tolerance: float):
    page = browser.new_page()
    page.goto(f"{url}/microphone.html")
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 20_000)).astype(np.float32)
    found = page.evaluate(RUN, [f"/{file}", wave.tolist()])
    page.close()
    expected = load_student(student.run)(wave)
    vectors = torch.tensor(found["vectors"]).reshape(2, -1)
    torch.testing.assert_close(vectors, expected, rtol=0, atol=tolerance * float(expected.std()))
    assert found["frames"] == [2, 15, 16]


def test_the_page_hears_the_microphone(browser: Browser, url: str):
    context = browser.new_context(permissions=["microphone"])
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{url}/microphone.html")
    page.wait_for_function(f"document.getElementById('status').textContent === '{LOADED}'")
    page.get_by_role("button", name="Listen").click()
    page.wait_for_function("document.getElementById('status').textContent.startsWith('16 numbers in ')")
    page.wait_for_timeout(2_500)  # so that the last two seconds are of the tone
    page.get_by_role("button", name="Keep this sound").click()
    page.wait_for_function("Number(document.querySelector('output')?.value) > 0.9")
    assert page.evaluate("document.getElementById('frames').width") == 25
    context.close()
    assert not complaints


def test_the_page_says_that_it_may_not_hear_the_microphone(browser: Browser, url: str):
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(REFUSE)  # the tests' browser asks no user
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{url}/microphone.html")
    page.wait_for_function(f"document.getElementById('status').textContent === '{LOADED}'")
    page.get_by_role("button", name="Listen").click()
    page.wait_for_function("document.getElementById('status').textContent.startsWith('no microphone: ')")
    assert page.get_by_role("button", name="Listen").is_enabled()
    assert page.get_by_role("button", name="Keep this sound").is_disabled()
    context.close()
    assert not complaints
