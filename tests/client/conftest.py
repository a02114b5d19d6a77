import io
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def jpeg():
    """A small JPEG that only this seed gives."""

    def make(seed=0):
        file = io.BytesIO()
        pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(file, "JPEG")
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def serve_on_loopback():
    """Serve an application on a free port, in a thread; give its address."""
    uvicorn = pytest.importorskip("uvicorn")
    from nearsight.server.main import Listener

    @contextmanager
    def serve(app):
        server = Listener(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()

    return serve
