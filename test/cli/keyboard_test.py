"""The page of a run by keyboard, in headless Chromium: everything that can be used or scrolled takes the focus, in the order of the page,
and it is seen where the focus is. Skipped where there is no Chromium."""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import support
from support import halo, model, write

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# What a page offers, in its order: links, summaries of details, and what has more in it than it shows.
OFFERED = """[...document.querySelectorAll('*')].filter(e => {
  const style = getComputedStyle(e), scrolls = /auto|scroll/.test(style.overflowX + style.overflowY);
  const more = e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1;
  return e !== document.documentElement && e !== document.body && e.getClientRects().length > 0 &&
         (e.matches('a[href], summary, button, input') || (scrolls && more));
})"""

# How the focused element shows itself.
FOCUSED = f"""(() => {{
  const e = document.activeElement;
  if (e === null || e === document.body) return null;
  const style = getComputedStyle(e), box = e.getBoundingClientRect();
  return {{place: {OFFERED}.indexOf(e), outline: style.outlineStyle !== 'none' ? parseFloat(style.outlineWidth) : 0,
           seen: box.bottom > 0 && box.top < innerHeight, name: e.tagName + ' ' + e.textContent.slice(0, 30)}};
}})()"""


class Browser:
    """A page in headless Chromium, spoken to over its debugging pipe."""

    def __init__(self, path, width):
        self.stack, self.count = contextlib.ExitStack(), 0
        profile = self.stack.enter_context(tempfile.TemporaryDirectory(dir=support.SCRATCH, ignore_cleanup_errors=True))
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # Chromium reads descriptor 3 and writes descriptor 4.
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
                   f"--user-data-dir={profile}", f"--window-size={width},700", "about:blank"]
        shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self.process = subprocess.Popen(["bash", "-c", shell, "bash", *command], pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        self.stack.callback(self.process.wait)
        self.stack.callback(self.process.kill)
        os.close(theirs_in)
        os.close(theirs_out)
        self.out = self.stack.enter_context(os.fdopen(ours_out, "wb", buffering=0))
        self.replies = self.stack.enter_context(os.fdopen(ours_in, "rb"))
        self.session = None
        target = next(each for each in self.ask("Target.getTargets")["targetInfos"] if each["type"] == "page")
        self.session = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        self.ask("Page.navigate", url=pathlib.Path(path).as_uri())
        while self.value("location.protocol + document.readyState") != "file:complete":
            pass

    def ask(self, method, **parameters):
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.out.write(json.dumps(message).encode() + b"\0")
        while True:
            text = bytearray()
            while (byte := self.replies.read(1)) != b"\0":
                if not byte:
                    raise EOFError("Chromium has ended")
                text += byte
            reply = json.loads(text)
            if reply.get("id") == self.count:
                if "error" in reply:
                    raise RuntimeError(reply["error"])
                return reply["result"]

    def value(self, expression):
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def press(self, key, code, text=""):
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)

    def close(self):
        self.stack.close()


@unittest.skipUnless(CHROMIUM, "there is no Chromium")
class Keyboard(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        workflow = write("keys.yaml", """
start_ops: [first]
end_ops: [last]
ops:
  first: {model: m, prompt: "Tell of it.", max_tokens: 6, output_ops: [last]}
  last: {model: m, prompt: "And now shorter.", max_tokens: 4, input_ops: [first]}
""")
        rows = write("keys.jsonl", "".join(json.dumps({"prompt": f"Text {i} " + "word " * 200}) + "\n" for i in range(6)))
        cls.page = os.path.join(support.SCRATCH, "keys.html")
        code, _, error = halo("run", workflow, "-i", rows, "--model", f"m={model()}", "--report", cls.page, "--report-samples", "2")
        assert code == 0, error

    def walk(self, width):
        browser = Browser(self.page, width)
        self.addCleanup(browser.close)
        offered = browser.value(f"{OFFERED}.length")
        visited = []
        for _ in range(3 * offered + 10):
            browser.press("Tab", 9)
            at = browser.value(FOCUSED)
            if at is None or (visited and at["place"] == 0):
                break
            visited.append(at)
        self.assertGreater(offered, 6)
        self.assertEqual([at["place"] for at in visited if at["place"] >= 0], list(range(offered)), "all of them, in order")
        for at in visited:
            self.assertGreaterEqual(at["outline"], 2, at)
            self.assertTrue(at["seen"], at)
        return browser

    def test_everything_takes_the_focus_in_order_and_shows_it(self):
        self.walk(1280)

    def test_on_a_narrow_screen_too(self):
        self.walk(390)

    def test_details_open_and_links_lead_by_the_return_key(self):
        browser = self.walk(1280)
        browser.value("document.querySelector('summary').focus()")
        before = browser.value("document.querySelector('details').open")
        browser.press("Enter", 13, "\r")
        self.assertNotEqual(browser.value("document.querySelector('details').open"), before)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
