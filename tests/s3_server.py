"""A server that speaks S3, on loopback: moto's, in a process of its own, which keeps objects in memory."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec

VARIABLES = {
    "AWS_ACCESS_KEY_ID": "test-key",
    "AWS_SECRET_ACCESS_KEY": "test-secret-7Qx",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

# It looks through its folders of services at each request, and logs each: that is a third of its time.
PROGRAM = """
import logging, sys
from moto import backends, server
services = list(backends.list_of_moto_modules())
backends.list_of_moto_modules = lambda: services
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server.main(sys.argv[1:])
"""


def is_installed():
    return find_spec("moto") is not None and find_spec("s3fs") is not None


class S3Server:
    """A running server; `stop` ends it."""

    def __init__(self):
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        command = [sys.executable, "-c", PROGRAM, "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **VARIABLES},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while True:
            assert self._process.poll() is None, "moto's server has ended"
            try:
                urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5).close()
                return
            except OSError:
                time.sleep(0.1)

    def stop(self):
        self._process.kill()
        self._process.wait()

    def make_bucket(self, name):
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT")
        urllib.request.urlopen(request, timeout=30).close()


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
