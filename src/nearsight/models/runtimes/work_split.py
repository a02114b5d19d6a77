"""Shares images between a device and the threads of the processor, so that both end together."""

import threading

# Weight of the newest measurement.
_NEW = 0.2


class WorkSplit:
    """Decides for each image whether a device or the asking thread decodes it.

    *Method*: list scheduling (Graham 1966). An image goes to where it will be done earlier: to the device,
    behind what is queued there, or to the thread, behind what it has kept for itself. The speed of both is
    measured while they work, in seconds per pixel. Until both are known, images go to the device.

    Parameters
    ----------
    n_slots : int
        Batches that the device has under way at once.
    """

    def __init__(self, n_slots: int = 1) -> None:
        self._n_slots = n_slots
        self._queued_px = 0
        self._device_s_per_px: float | None = None
        self._thread_s_per_px: float | None = None
        self._lock = threading.Lock()

    def take(self, n_pixels: int, kept_px: int = 0) -> bool:
        """Return whether the device decodes an image; it is then counted as queued.

        Parameters
        ----------
        n_pixels : int
            Of the image.
        kept_px : int
            Of the images that the thread will decode before it.
        """
        with self._lock:
            if self._is_for_thread(n_pixels, kept_px):
                return False
            self._queued_px += n_pixels
            return True

    def has_run(self, n_pixels: int, seconds: float) -> None:
        """Record a batch that the device has finished."""
        with self._lock:
            self._queued_px -= n_pixels
            self._device_s_per_px = _averaged(self._device_s_per_px, seconds / self._n_slots / n_pixels)

    def was_decoded(self, n_pixels: int, seconds: float) -> None:
        """Record an image that a thread has decoded."""
        with self._lock:
            self._thread_s_per_px = _averaged(self._thread_s_per_px, seconds / n_pixels)

    def _is_for_thread(self, n_pixels: int, kept_px: int) -> bool:
        if self._device_s_per_px is None or (self._queued_px == 0 and kept_px == 0):
            return False
        if self._thread_s_per_px is None:
            # One image tells how fast a thread is.
            self._thread_s_per_px = float("inf")
            return True
        device_s = (self._queued_px + n_pixels) * self._device_s_per_px
        return device_s > (kept_px + n_pixels) * self._thread_s_per_px


def _averaged(old: float | None, new: float) -> float:
    return new if old is None or old == float("inf") else old + _NEW * (new - old)
