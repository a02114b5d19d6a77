"""No library that nearsight loads reports to its makers."""

import os
import subprocess
import sys


def test_nothing_is_noted_or_sent_when_an_image_is_embedded(tmp_path):
    # A test server says that it is one, and is then left out of such reports.
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    program = (
        "import nearsight, numpy, pathlib; "
        "model = nearsight.load_model(device='cpu', cache_dir=pathlib.Path('cache')); "
        "nearsight.Embedder(model).embed([numpy.zeros((64, 64, 3), 'uint8')])"
    )
    subprocess.run([sys.executable, "-c", program], env=environment, cwd=tmp_path, check=True)
    # With reports, ONNX Runtime keeps the number of this machine and a queue below the home folder.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]


def test_who_wants_reports_asks_for_them():
    variables = ("ORT_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED")
    program = f"import nearsight, os; print([os.environ[name] for name in {variables}])"
    for given, expected in (({}, ["1", "0"]), ({"RAY_USAGE_STATS_ENABLED": "1"}, ["1", "1"])):
        environment = {name: value for name, value in os.environ.items() if name not in variables}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment | given, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(expected)
