"""llama-server as the peers use it: settings, a running one, and what a workload takes on it."""

import dataclasses
import os
import socket
import subprocess
import time
import urllib.parse
import urllib.request


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is swept; everything else stands in `LlamaServer`."""

    threads: int  # -t
    spins: bool = True  # its threads wait for each other without sleeping, which is libgomp's way; servers of several models keep cores from each other
    slots: int = 16  # -np
    unified: bool = False  # one room of cells for all slots, else one each
    host_cache_mib: int = 0  # --cache-ram
    reuse_tokens: int = 0  # --cache-reuse: least length of what is moved within a slot; not exact

    def arguments(self):
        return ["-t", self.threads, "-np", self.slots, "-kvu" if self.unified else "-no-kvu", "--cache-ram", self.host_cache_mib, "--cache-reuse", self.reuse_tokens]

    def environment(self):
        return {} if self.spins else {"OMP_WAIT_POLICY": "passive"}

    def __str__(self):
        return " ".join(map(str, [*(f"{name}={value}" for name, value in self.environment().items()), *self.arguments()]))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class LlamaServer:
    """A llama-server for one model, up when made."""

    def __init__(self, program, model, settings, slot_tokens, log, limit_s=300, environment=None):
        """`slot_tokens`: the longest call, prompt and answer. Throws RuntimeError if it is not up within `limit_s` seconds."""
        self.start(program, ["-m", model], settings, slot_tokens, log, limit_s, environment or {})

    def start(self, program, source, settings, slot_tokens, log, limit_s, environment):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [program, *source, "--host", "127.0.0.1", "--port", port, "-c", settings.slots * slot_tokens, "-fa", "on", "--no-webui",
                   *settings.arguments()]
        # The kernels are the server's own, whatever the caller's are.
        inherited = {name: value for name, value in os.environ.items() if name not in ("GGML_CPU_EXACT", "OMP_WAIT_POLICY")}
        with open(log, "w", encoding="utf-8") as file:
            self.process = subprocess.Popen(list(map(str, command)), stdout=file, stderr=file, env=inherited | settings.environment() | environment)
        give_up = time.monotonic() + limit_s
        while not self.is_up():
            if time.monotonic() > give_up or self.process.poll() is not None:
                self.end()
                raise RuntimeError(f"llama-server does not come up, see {log}")
            time.sleep(0.05)

    def is_up(self):
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:  # not listening yet, or still loading (503)
            return False

    def end(self):
        self.process.terminate()
        self.process.wait(timeout=60)


class LlamaRouter(LlamaServer):
    """llama-server's router over several models, one of them resident: it starts a server for the model that a request names, and ends the one
    that was used least recently once that is idle. The first model is there when it is made."""

    def __init__(self, program, models, settings, slot_tokens, log, limit_s=300, environment=None):
        """`models`: name -> file. `log`: a path; the list of models is written beside it."""
        self.log, preset = log, log.with_suffix(".ini")
        preset.write_text("version = 1\n" + "".join(f"[{name}]\nmodel = {path}\n" for name, path in models.items()))
        self.start(program, ["--models-preset", preset, "--models-max", 1], settings, slot_tokens, log, limit_s, environment or {})
        with urllib.request.urlopen(f"{self.url}/props?model={urllib.parse.quote(next(iter(models)), safe='')}", timeout=limit_s):
            pass

    def switches(self):
        """How often another model took the place of one."""
        return self.log.read_text(errors="replace").count("spawning server instance with name=") - 1
