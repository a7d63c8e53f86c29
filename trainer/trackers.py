"""Whether the trackers that a recipe reports to can be used: said before a model is loaded, not after.

The callbacks are those of transformers. TensorBoard's event files go to `<run>/runs/`, trackio's tables to its own
folder (TRACKIO_DIR).
"""

from collections.abc import Sequence

from ahabench.harness.errors import UsageError, unknown_name

PACKAGES = {"azure_ml": "azureml-core", "comet_ml": "comet-ml", "flyte": "flytekitplugins-deck-standard"}
"""What to install, where it is not called as the tracker is."""


def check_trackers(names: Sequence[str]) -> None:
    """Look for the packages of trackers.

    Raises:
        UsageError: there is no such tracker, or its package is not installed.
    """
    if not names:
        return
    from transformers.integrations import integration_utils

    known = sorted(integration_utils.INTEGRATION_TO_CALLBACK)
    for name in names:
        if name not in known:
            raise unknown_name("tracker in report_to", name, known)
    there = integration_utils.get_available_reporting_integrations()  # type: ignore[no-untyped-call]
    for name in names:
        # transformers leaves flyte out of the list of what it finds.
        if name not in {*there, "flyte"}:
            raise UsageError(
                f"report_to names {name}, and it is not installed or not set up; pip install "
                f"{PACKAGES.get(name, name)}, or leave it out: log.jsonl and report.html are written anyway"
            )
