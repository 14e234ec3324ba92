"""Gateway invoices: the newest delivery, and the name of the workspace."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

RunModel = Callable[..., list[dict[str, Any]]]
EARLY = datetime(2026, 11, 1)
LATE = datetime(2026, 11, 2)


def delivered(**stated: Any) -> dict[str, Any]:
    return {
        "infery_invoice_id": "inv_1",
        "workspace_id": "ws_1",
        "status": "open",
        "total_minor": 1200,
        "currency": "usd",
        "source_object": "file",
        "source_line": 2,
        "arrived_at": EARLY,
    } | stated


def test_the_latest_delivery_of_an_invoice_speaks(run_model: RunModel) -> None:
    rows = run_model(
        "staging.invoices",
        {"raw.invoices": [delivered(status="paid", arrived_at=LATE), delivered()]},
    )

    assert [row["status"] for row in rows] == ["paid"]


def test_within_a_file_the_last_line_speaks(run_model: RunModel) -> None:
    rows = run_model(
        "staging.invoices", {"raw.invoices": [delivered(status="void", source_line=9), delivered()]}
    )

    assert [row["status"] for row in rows] == ["void"]


def test_an_invoice_carries_the_name_of_its_workspace(run_model: RunModel) -> None:
    [row] = run_model(
        "marts.invoices",
        {
            "staging.invoices": [{"infery_invoice_id": "inv_1", "workspace_id": "ws_1"}],
            "staging.workspaces": [{"workspace_id": "ws_1", "name": "Acme"}],
        },
    )

    assert (row["invoice_id"], row["workspace_name"]) == ("inv_1", "Acme")


def test_an_invoice_of_a_workspace_the_directory_does_not_know_stays(run_model: RunModel) -> None:
    [row] = run_model(
        "marts.invoices",
        {"staging.invoices": [{"infery_invoice_id": "inv_1", "workspace_id": "ws_9"}]},
    )

    assert row["workspace_name"] is None


def test_net_and_vat_that_miss_the_total_are_complained_of(run_model: RunModel) -> None:
    good = {"invoice_id": "inv_1", "net_minor": 1000, "vat_minor": 200, "total_minor": 1200}
    bad = good | {"invoice_id": "inv_2", "vat_minor": 201}
    silent = good | {"invoice_id": "inv_3", "vat_minor": None}

    [complaint] = run_model(
        "invoices__net_and_vat_make_the_total", {"marts.invoices": [good, bad, silent]}
    )

    assert (complaint["expected"], complaint["found"]) == ("1200", "1201")
    assert "inv_2" in complaint["claim"]
