"""The memory of freed images, kept for the next ones."""

from PIL import Image

# Of a decoded image, its resized forms and its thumbnail, so many are there at the same time.
_BLOCKS_PER_THREAD = 4


def keep_pixel_memory(n_threads: int) -> None:
    """Let Pillow keep the memory of freed images, which takes a seventh off the time of decoding.

    *Method.* Otherwise the system takes each image's memory back, and gives it again page by page, filled
    with zeros. Pillow keeps at most 4 blocks of up to 16 MB for each thread. This is a setting of the whole
    process, so only processes that nearsight has started make it.

    Parameters
    ----------
    n_threads : int
        Threads that decode.
    """
    # Pillow reads another number from PILLOW_BLOCKS_MAX.
    core = Image.core  # type: ignore[attr-defined] # Pillow does not export it
    if not core.get_blocks_max():
        core.set_blocks_max(_BLOCKS_PER_THREAD * n_threads)
