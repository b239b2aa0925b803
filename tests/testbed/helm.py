"""What `helm template` and `helm lint` do, with Helm's own code and without a cluster.

helm.py LIBRARY version
helm.py LIBRARY template CHART RELEASE NAMESPACE VALUES    VALUES: JSON; prints the manifests, exits 1 if the values are refused
"""

import json
import logging
import sys

sys.path.insert(0, sys.argv[1])
logging.disable()

from helm_python import _native  # noqa: E402
from helm_python.chart import Chart, lint  # noqa: E402
from helm_python.errors import HelmError  # noqa: E402


def template(path, release, namespace, values):
    chart = Chart.load(path)
    chart.validate_schema(values)
    for name, text in sorted(chart.render(values, name=release, namespace=namespace).items()):
        if text.strip() and not name.endswith("NOTES.txt"):
            print(f"---\n# Source: {name}\n{text}")


def main(arguments):
    if arguments[0] == "version":
        print(_native.helm_sdk_version())
        return
    _, path, release, namespace, values = arguments
    try:
        template(path, release, namespace, json.loads(values))
    except HelmError as error:
        sys.exit(f"helm: {error}")


main(sys.argv[2:])
