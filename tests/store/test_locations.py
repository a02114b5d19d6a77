"""The conformance suite over locations that need no server."""

from nearsight.testing import LocationTests


class TestDirectory(LocationTests):
    def uri(self, directory):
        return str(directory)

    def unreachable_uri(self, directory):
        # A link to itself, which the system refuses to follow, also for root.
        loop = directory / "loop"
        loop.symlink_to(loop)
        return str(loop / "photos")
