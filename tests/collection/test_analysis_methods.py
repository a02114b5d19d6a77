"""The analyses as methods of a collection."""

import ast
import inspect
import subprocess
import sys

import pytest

from nearsight import Collection
from nearsight.collection import analysis_methods as module
from nearsight.collection.analysis_methods import AnalysisMethods, _AnalysisMethod

METHODS = {
    name: method for name, method in vars(AnalysisMethods).items() if isinstance(method, _AnalysisMethod)
}


@pytest.mark.parametrize("name", METHODS)
def test_each_is_a_function_of_a_collection(name):
    function = getattr(Collection, name)
    assert function.__name__ == name
    assert function.__doc__
    assert next(iter(inspect.signature(function).parameters.values())).annotation is Collection


def test_type_checkers_read_what_runs():
    tree = ast.parse(inspect.getsource(module))
    [branch] = [
        node
        for cls in tree.body
        if isinstance(cls, ast.ClassDef)
        for node in cls.body
        if isinstance(node, ast.If)
    ]
    typed = {node.targets[0].id: node.value.attr for node in branch.body}
    assert typed == {name: name for name in METHODS}


def test_a_method_binds_its_collection(tmp_path):
    from fake import FakeBackend

    collection = Collection.create(tmp_path / "c", model=FakeBackend())
    assert collection.outliers.__self__ is collection
    assert collection.outliers() == []


def test_no_analysis_is_imported_before_it_is_used():
    code = "import sys; from nearsight import Collection; print([m for m in sys.modules if 'analyses' in m])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
