"""Stand-ins for the decoder of a GPU, whose memory is the processor's."""

import io
import threading

import numpy as np
from PIL import Image, ImageFile

from nearsight.models.runtimes.onnx_session import DeviceArray


class PillowDecoder:
    """Decodes in full, with Pillow, and takes any end of a file for its end, as a GPU's decoder does.

    Parameters
    ----------
    refuses : callable
        Given a file, returns whether it comes back undecoded.
    delay : callable
        Called before each batch.
    """

    version = "Pillow"

    def __init__(self, refuses=lambda data: False, delay=lambda: None):
        self.refuses, self.delay = refuses, delay
        self.lengths = []
        self.running = threading.Lock()

    def decode(self, files):
        assert self.running.acquire(blocking=False), "two threads at once"
        try:
            self.delay()
            self.lengths.append(len(files))
            return [None if self.refuses(data) else self.pixels(data) for data in files]
        finally:
            self.running.release()

    def pixels(self, data):
        parser = ImageFile.Parser()
        parser.feed(data)
        try:
            image = parser.close()
        except OSError:
            image = parser.image
        if image is None:
            return None
        pixels = np.array(image.convert("RGB"))
        return DeviceArray(pixels.ctypes.data, pixels.shape, np.uint8, pixels)


def jpeg(image, *, turned=1, **options):
    """Return a file of an image."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = turned
    image.save(file, "JPEG", **{"quality": 90, "exif": exif.tobytes(), **options})
    return file.getvalue()
