import subprocess
import sys

import pytest

CLIENT = "lance_namespace_urllib3_client"


def run(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_lancedb_is_imported_without_its_rest_client():
    program = (
        "import sys\n"
        "from nearsight.store.lance.engine import import_lancedb\n"
        "lancedb = import_lancedb()\n"
        f"assert '{CLIENT}' in sys.modules, 'LanceDB no longer imports the client: this trick can go'\n"
        "assert not [f for f in sys.meta_path if type(f).__name__ == '_PlaceholderFinder']\n"
        "print(lancedb.__name__, *[name for name in sys.modules if '.api.' in name and 'lance' in name])\n"
    )
    assert run(program) == ["lancedb"]


@pytest.mark.slow
def test_the_rest_client_is_there_when_it_is_used():
    program = (
        "from nearsight.store.lance.engine import import_lancedb\n"
        "import_lancedb()\n"
        f"import {CLIENT} as client\n"
        f"from {CLIENT} import TagApi\n"
        f"from {CLIENT}.api.table_api import TableApi\n"
        "assert client.TableApi is TableApi\n"
        "print(TagApi.__name__, hasattr(TableApi, 'create_table'), hasattr(client, 'Nothing'))\n"
    )
    assert run(program) == ["TagApi", "True", "False"]


@pytest.mark.slow
def test_a_client_that_is_imported_already_is_left_alone():
    program = (
        f"from {CLIENT} import TagApi\n"
        "from nearsight.store.lance.engine import import_lancedb\n"
        "import_lancedb()\n"
        f"import {CLIENT} as client\n"
        "print(client.TagApi is TagApi)\n"
    )
    assert run(program) == ["True"]


def test_what_checks_its_own_code_is_left_out_of_the_import_and_there_afterwards():
    program = (
        "import sys\n"
        "from nearsight.store.lance.engine import import_lancedb\n"
        "lancedb = import_lancedb()\n"
        "assert 'overrides' not in sys.modules\n"
        "if sys.version_info < (3, 12):\n"
        "    assert not hasattr(lancedb.db.LanceDBConnection.table_names, '__override__')\n"
        "    import overrides\n"
        "    assert overrides.EnforceOverrides.__module__.startswith('overrides'), 'a placeholder stayed'\n"
        "print('done')\n"
    )
    assert run(program) == ["done"]
